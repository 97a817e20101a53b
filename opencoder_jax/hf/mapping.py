"""Hugging Face's Llama names and layouts, both ways, from one table: every tensor of either side exactly once.

The table derives from the weights' declarations in `model.py`: the name pattern, and how many leading dims are inputs.
Hugging Face keeps one [out, in] matrix per layer where this project stacks [layers, in..., out...].
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from flax import nnx

from opencoder_jax.config import ModelConfig
from opencoder_jax.model import Weight, abstract, check

LAYER = "{}"


@dataclass(frozen=True)
class Tensor:
    """One tensor of a Hugging Face checkpoint and the slice of a parameter that it is."""

    name: str
    path: tuple[str, ...]  # in the state of weights
    layer: int | None  # index into the parameter's leading dim; None: the whole parameter
    ours: tuple[int, ...]  # shape of that slice
    in_dims: int  # leading dims of the slice that are inputs; 0: same layout on both sides

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape at Hugging Face."""
        if not self.in_dims:
            return self.ours
        return math.prod(self.ours[self.in_dims :]), math.prod(self.ours[: self.in_dims])

    def to_hf(self, piece: np.ndarray) -> np.ndarray:
        """The slice [in..., out...] -> [out, in]."""
        return piece.reshape(self.shape[::-1]).T if self.in_dims else piece

    def from_hf(self, array: np.ndarray) -> np.ndarray:
        """The inverse of `to_hf`."""
        return array.T.reshape(self.ours) if self.in_dims else array


def table(cfg: ModelConfig) -> list[Tensor]:
    """All tensors, parameter by parameter."""
    rows = []
    for path, weight in nnx.to_flat_state(abstract(cfg)[1]):
        assert isinstance(weight, Weight)
        path, shape = tuple(map(str, path)), tuple(weight.shape)
        if LAYER in weight.hf:
            rows += [Tensor(weight.hf.format(i), path, i, shape[1:], weight.in_dims) for i in range(shape[0])]
        else:
            rows.append(Tensor(weight.hf, path, None, shape, weight.in_dims))
    return rows


def check_names(cfg: ModelConfig, shapes: dict[str, tuple[int, ...]], source: str) -> None:
    """Raises ValueError for the first tensor that is missing, superfluous or of another shape."""
    expected = {row.name: row.shape for row in table(cfg)}
    # Older releases carry this constant table of frequencies.
    found = {name: shape for name, shape in shapes.items() if not name.endswith("rotary_emb.inv_freq")}
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing:
        raise ValueError(f"{source}: {len(missing)} tensor(s) missing, first {missing[0]}; download the model again")
    if extra:
        raise ValueError(f"{source}: {len(extra)} tensor(s) that no such model has, first {extra[0]}")
    for name, shape in expected.items():
        if tuple(found[name]) != shape:
            raise ValueError(f"{source}: {name} is {tuple(found[name])}, config.json makes it {shape}")


def hf_config(cfg: ModelConfig, *, dtype: str, bos_token_id: int | None, eos_token_id: int | None) -> dict[str, Any]:
    """config.json with the fields of the published models. dtype: float32 or bfloat16."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": bos_token_id,
        "eos_token_id": eos_token_id,
        "head_dim": cfg.head_dim,
        "hidden_act": "silu",
        "hidden_size": cfg.embed_dim,
        "initializer_range": cfg.init_std,
        "intermediate_size": cfg.ffn_dim,
        "max_position_embeddings": cfg.max_seq_len,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": cfg.num_query_heads,
        "num_hidden_layers": cfg.num_layers,
        "num_key_value_heads": cfg.num_kv_heads,
        "pretraining_tp": 1,
        "rms_norm_eps": cfg.norm_eps,
        "rope_scaling": None,
        "rope_theta": cfg.rope_theta,
        "tie_word_embeddings": False,
        "torch_dtype": dtype,
        "use_cache": True,
        "vocab_size": cfg.vocab_size,
    }


# What this architecture has no place for: field -> the values that mean 'absent'.
_ABSENT: dict[str, Iterable[Any]] = {
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "tie_word_embeddings": (False,),
    "attention_dropout": (0, 0.0),
    "rope_scaling": (None,),
    "hidden_act": ("silu",),
}


def model_config(fields: dict[str, Any], source: str) -> ModelConfig:
    """The inverse of `hf_config`.

    Raises: ValueError naming the field when another architecture is described.
    """
    architecture = (fields.get("architectures") or [fields.get("model_type")])[0]
    if architecture not in ("LlamaForCausalLM", "llama"):
        raise ValueError(f"{source}: architecture {architecture}, only LlamaForCausalLM can be imported")
    for field, allowed in _ABSENT.items():
        if field in fields and fields[field] not in allowed:
            raise ValueError(
                f"{source}: {field}={fields[field]!r}; this architecture has it as {next(iter(allowed))!r}"
            )
    # transformers 5 nests the rotary base.
    rope = fields.get("rope_parameters") or {}
    if rope.get("rope_type", "default") != "default":
        raise ValueError(f"{source}: rope_type={rope['rope_type']!r}; only default can be imported")
    try:
        heads = fields["num_attention_heads"]
        cfg = ModelConfig(
            num_layers=fields["num_hidden_layers"],
            embed_dim=fields["hidden_size"],
            num_query_heads=heads,
            num_kv_heads=fields.get("num_key_value_heads") or heads,
            head_dim=fields.get("head_dim") or fields["hidden_size"] // heads,
            ffn_dim=fields["intermediate_size"],
            vocab_size=fields["vocab_size"],
            rope_theta=float(rope.get("rope_theta", fields.get("rope_theta", 10_000.0))),
            max_seq_len=fields["max_position_embeddings"],
            norm_eps=fields["rms_norm_eps"],
            init_std=fields.get("initializer_range", 0.02),
        )
    except KeyError as error:
        raise ValueError(f"{source}: field {error.args[0]} is missing") from None
    check(cfg)
    return cfg


def to_hf(cfg: ModelConfig, weights: nnx.State) -> dict[str, np.ndarray]:
    """All tensors under their Hugging Face names: for models that fit into memory; `export` streams."""
    ours = {tuple(map(str, path)): np.asarray(weight[...]) for path, weight in nnx.to_flat_state(weights)}
    return {
        row.name: row.to_hf(ours[row.path] if row.layer is None else ours[row.path][row.layer]) for row in table(cfg)
    }


def from_hf(cfg: ModelConfig, tensors: dict[str, np.ndarray], source: str = "tensors") -> nnx.State:
    """The inverse of `to_hf`. Raises: ValueError as `check_names`."""
    check_names(cfg, {name: array.shape for name, array in tensors.items()}, source)
    rows = grouped(table(cfg))
    weights = {}
    for path, weight in nnx.to_flat_state(abstract(cfg)[1]):
        mine = rows[tuple(map(str, path))]
        pieces = [row.from_hf(tensors[row.name]) for row in mine]
        weights[path] = weight.replace(pieces[0] if mine[0].layer is None else np.stack(pieces))
    return nnx.from_flat_state(weights)


def grouped(rows: Iterable[Tensor]) -> dict[tuple[str, ...], list[Tensor]]:
    """Rows by parameter, layers in order."""
    groups: dict[tuple[str, ...], list[Tensor]] = {}
    for row in rows:
        groups.setdefault(row.path, []).append(row)
    return groups
