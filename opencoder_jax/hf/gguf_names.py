"""GGUF's names and layouts of a Llama, both ways: tensors, metadata, and the order of rotary pairs."""

from __future__ import annotations

import re

import numpy as np

from opencoder_jax.config import ModelConfig
from opencoder_jax.hf import mapping as hf

ARCHITECTURE = "llama"
# Hugging Face's name of a tensor -> GGUF's; {} is the layer.
NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.layers.{}.input_layernorm.weight": "blk.{}.attn_norm.weight",
    "model.layers.{}.self_attn.q_proj.weight": "blk.{}.attn_q.weight",
    "model.layers.{}.self_attn.k_proj.weight": "blk.{}.attn_k.weight",
    "model.layers.{}.self_attn.v_proj.weight": "blk.{}.attn_v.weight",
    "model.layers.{}.self_attn.o_proj.weight": "blk.{}.attn_output.weight",
    "model.layers.{}.post_attention_layernorm.weight": "blk.{}.ffn_norm.weight",
    "model.layers.{}.mlp.gate_proj.weight": "blk.{}.ffn_gate.weight",
    "model.layers.{}.mlp.up_proj.weight": "blk.{}.ffn_up.weight",
    "model.layers.{}.mlp.down_proj.weight": "blk.{}.ffn_down.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
# Factors by which frequencies are divided, of llama3 scaling: derived from its fields, no weight.
ROPE_FREQUENCIES = "rope_freqs.weight"
# Fields of our own with what the factors are made of.
SCALING = "opencoder.rope_scaling."
_TO_HF = {theirs: ours for ours, theirs in NAMES.items()}


def to_gguf(name: str) -> str:
    """GGUF's name of a tensor."""
    layer = re.search(r"\.(\d+)\.", name)
    return NAMES[re.sub(r"\.\d+\.", ".{}.", name)].format(*(layer.groups() if layer else ()))


def to_hf(name: str) -> str | None:
    """The inverse of `to_gguf`; None for a name that no Llama has."""
    layer = re.search(r"\.(\d+)\.", name)
    pattern = _TO_HF.get(re.sub(r"\.\d+\.", ".{}.", name))
    return None if pattern is None else pattern.format(*(layer.groups() if layer else ()))


def heads_of(name: str, cfg: ModelConfig) -> int | None:
    """Heads of the matrices whose rows GGUF orders otherwise (queries and keys), by their Hugging Face name."""
    if name.endswith("self_attn.q_proj.weight"):
        return cfg.num_query_heads
    return cfg.num_kv_heads if name.endswith("self_attn.k_proj.weight") else None


def interleave(array: np.ndarray, heads: int) -> np.ndarray:
    """[out, in] as Hugging Face has it -> as llama.cpp: row i of a head and row i + H/2, which turn together, are made
    neighbours (2i, 2i + 1)."""
    out, width = array.shape
    return array.reshape(heads, 2, out // heads // 2, width).swapaxes(1, 2).reshape(out, width)


def separate(array: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of `interleave`."""
    out, width = array.shape
    return array.reshape(heads, out // heads // 2, 2, width).swapaxes(1, 2).reshape(out, width)


def rope_factors(cfg: ModelConfig) -> np.ndarray:
    """What llama.cpp divides the rotary frequencies by: fp32 [H/2]."""
    from dataclasses import replace

    from opencoder_jax.config import RopeScaling
    from opencoder_jax.model import rope_frequencies

    plain = rope_frequencies(replace(cfg, rope_scaling=RopeScaling()))
    return np.asarray(plain / rope_frequencies(cfg), np.float32)


def expected_shapes(cfg: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor's shape under GGUF's name, [out, in]."""
    return {to_gguf(row.name): row.shape for row in hf.table(cfg)}
