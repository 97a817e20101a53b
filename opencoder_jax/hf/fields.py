"""Hugging Face's config.json, both ways: the fields of a Llama, and an error that names the field for all else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opencoder_jax.bounds import check_ranges
from opencoder_jax.config import ModelConfig, RopeScaling
from opencoder_jax.model import check


def hf_config(cfg: ModelConfig, *, dtype: str, bos_token_id: int | None, eos_token_id: int | None) -> dict[str, Any]:
    """config.json with the fields of the published models. dtype: float32, bfloat16 or float16."""
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
        "rope_scaling": _scaling_fields(cfg.rope_scaling),
        "rope_theta": cfg.rope_theta,
        "tie_word_embeddings": cfg.tie_word_embeddings,
        "torch_dtype": dtype,
        "use_cache": True,
        "vocab_size": cfg.vocab_size,
    }


def _scaling_fields(scaling: RopeScaling) -> dict[str, Any] | None:
    if scaling.factor == 1:
        return None
    return {
        "factor": scaling.factor,
        "high_freq_factor": scaling.high_freq_factor,
        "low_freq_factor": scaling.low_freq_factor,
        "original_max_position_embeddings": scaling.original_max_seq_len,
        "rope_type": "llama3",
    }


# What a Llama has no place for: field -> the values that mean that it is not used. Fields of relatives that call
# themselves Llama: Mistral's window, Gemma's caps, Granite's multipliers, experts, norms of queries and keys.
_UNUSED: dict[str, Iterable[Any]] = {
    "attention_bias": (False,),
    "attention_dropout": (0,),
    "attention_multiplier": (None,),
    "attn_logit_softcapping": (None,),
    "auto_map": (None, {}),
    "bias": (False,),
    "embedding_multiplier": (None, 1),
    "final_logit_softcapping": (None,),
    "hidden_act": ("silu", "swish"),
    "layer_types": (None,),  # a list of full_attention is removed first
    "logit_scale": (None, 1),
    "logits_scaling": (None, 1),
    "mlp_bias": (False,),
    "no_rope_layers": (None, []),
    "num_experts": (None, 0),
    "num_local_experts": (None, 0),
    "partial_rotary_factor": (None, 1),
    "qk_layernorm": (None, False),
    "quantization_config": (None,),
    "residual_multiplier": (None, 1),
    "rope_interleaved": (None, False),
    "sliding_window": (None,),
    "use_qk_norm": (None, False),
    "use_sliding_window": (None, False),
}
_LLAMA3 = {
    "factor": "factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_max_position_embeddings": "original_max_seq_len",
}


def model_config(fields: dict[str, Any], source: str) -> ModelConfig:
    """The inverse of `hf_config`: any Llama of transformers 4 or 5.

    Raises: ValueError naming the field when another architecture is described, one is missing or of another type.
    """
    if not isinstance(fields, dict):
        raise ValueError(f"{source}: not a configuration of a model")
    for architecture in fields.get("architectures") or ["LlamaForCausalLM"]:
        if architecture != "LlamaForCausalLM":
            raise ValueError(f"{source}: architecture {architecture}, only LlamaForCausalLM can be imported")
    if (kind := fields.get("model_type", "llama")) != "llama":
        raise ValueError(f"{source}: model_type={kind!r}, only llama can be imported")
    if not fields.get("architectures") and "model_type" not in fields:
        raise ValueError(f"{source}: neither architectures nor model_type; only LlamaForCausalLM can be imported")
    layers = fields.get("layer_types")
    given = {k: v for k, v in fields.items() if k != "layer_types" or set(layers or ()) - {"full_attention"}}
    if fields.get("use_sliding_window") is False:
        given.pop("sliding_window", None)
    for field, unused in _UNUSED.items():
        if field in given and given[field] not in unused:
            raise ValueError(f"{source}: {field}={given[field]!r}; a Llama has it as {next(iter(unused))!r}")
    theta, scaling = _rope(fields, source)
    heads = _number(fields, "num_attention_heads", source)
    width = _number(fields, "hidden_size", source)
    tied = fields.get("tie_word_embeddings", False)
    if not isinstance(tied, bool):
        raise ValueError(f"{source}: tie_word_embeddings={tied!r} must be true or false")
    if not fields.get("head_dim") and width % max(heads, 1):
        raise ValueError(
            f"{source}: no head_dim, and hidden_size={width} is not a multiple of num_attention_heads={heads}"
        )
    cfg = ModelConfig(
        num_layers=_number(fields, "num_hidden_layers", source),
        embed_dim=width,
        num_query_heads=heads,
        num_kv_heads=_number(fields, "num_key_value_heads", source, heads),
        head_dim=_number(fields, "head_dim", source, width // max(heads, 1)),
        ffn_dim=_number(fields, "intermediate_size", source),
        vocab_size=_number(fields, "vocab_size", source),
        rope_theta=theta,
        rope_scaling=scaling,
        max_seq_len=_number(fields, "max_position_embeddings", source),
        norm_eps=_number(fields, "rms_norm_eps", source, kind=float),
        init_std=_number(fields, "initializer_range", source, 0.02, kind=float),
        tie_word_embeddings=tied,
    )
    try:
        check_ranges(cfg)
        check(cfg)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    return cfg


def _rope(fields: dict[str, Any], source: str) -> tuple[float, RopeScaling]:
    """Base and scaling, of `rope_theta` and `rope_scaling` (transformers 4) or `rope_parameters` (5)."""
    nested, old = fields.get("rope_parameters") or {}, fields.get("rope_scaling") or {}
    for name, value in (("rope_parameters", nested), ("rope_scaling", old)):
        if not isinstance(value, dict):
            raise ValueError(f"{source}: {name}={value!r} is not an object")
    name, rope = ("rope_parameters", nested) if nested else ("rope_scaling", old)
    kinds = {(r.get("rope_type") or r.get("type") or "default") for r in (nested, old) if r}
    if len(kinds) > 1:
        raise ValueError(f"{source}: rope_parameters and rope_scaling differ; keep the right one")
    kind = kinds.pop() if kinds else "default"
    if kind not in ("default", "llama3"):
        raise ValueError(f"{source}: rope_type={kind!r} in {name}; only default and llama3 can be imported")
    theta = _number(rope if "rope_theta" in rope else fields, "rope_theta", source, 10_000.0, kind=float)
    extra = sorted(rope.keys() - {"rope_type", "type", "rope_theta", *(_LLAMA3 if kind == "llama3" else ())})
    extra = [k for k in extra if not (k == "partial_rotary_factor" and rope[k] in (None, 1))]
    if extra:
        raise ValueError(
            f"{source}: {name}.{extra[0]}={rope[extra[0]]!r}; a Llama of rope_type {kind} has no such field"
        )
    if kind == "default":
        return theta, RopeScaling()
    values: dict[str, Any] = {
        ours: _number(rope, theirs, f"{source}: {name}", kind=int if ours == "original_max_seq_len" else float)
        for theirs, ours in _LLAMA3.items()
    }
    return theta, RopeScaling(**values)


def _number(fields: dict[str, Any], field: str, source: str, default: Any = None, *, kind: type = int) -> Any:
    """A number of the file, or the default where it is absent or null."""
    value = fields.get(field)
    if value is None:
        value = default
    if value is None:
        raise ValueError(f"{source}: field {field} is missing")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != kind(value):
        raise ValueError(f"{source}: {field}={value!r} is not {'a whole number' if kind is int else 'a number'}")
    return kind(value)
