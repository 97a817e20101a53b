"""A GGUF file as a released model: its shape, its tensors dequantized under Hugging Face's names, its tokenizer.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, read by the package `gguf`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np

from opencoder_jax.bounds import check_ranges
from opencoder_jax.config import ModelConfig, RopeScaling
from opencoder_jax.hf import mapping as hf
from opencoder_jax.hf.gguf_names import (
    ARCHITECTURE,
    ROPE_FREQUENCIES,
    SCALING,
    expected_shapes,
    heads_of,
    rope_factors,
    separate,
    to_gguf,
    to_hf,
)
from opencoder_jax.model import check

_Type = gguf.GGMLQuantizationType
TYPES = (_Type.F32, _Type.F16, _Type.BF16, _Type.Q8_0, _Type.Q4_0, _Type.Q4_1)
# Fields of relatives that also call themselves llama -> the values that mean that they are not used.
_UNUSED: dict[str, tuple[Any, ...]] = {
    "split.count": (0, 1),  # a file of several: llama-gguf-split --merge makes one
    "llama.expert_count": (0,),
    "llama.attention.sliding_window": (0,),
    "llama.attention.clamp_kqv": (0,),
    "llama.attention.max_alibi_bias": (0,),
    "llama.attention.scale": (0,),
    "llama.attention.causal": (True,),
    "llama.use_parallel_residual": (False,),
    "llama.logit_scale": (0, 1),
    "llama.embedding_scale": (0, 1),
    "llama.residual_scale": (0, 1),
    "llama.rope.scaling.type": ("none", "llama3"),
    "llama.rope.scaling.factor": (0, 1),
    "llama.rope.scale_linear": (0, 1),
}


class GgufFile:
    """A GGUF file of architecture llama.

    Raises: ValueError in one line: not such a file, cut short, a quantization that is not supported, a field that differs
    from a Llama's, a tensor that is missing, superfluous or of another shape.
    """

    def __init__(self, path: Path):
        self._path = path
        self._reader = _read(path)
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        for tensor in self._tensors.values():
            if tensor.tensor_type not in TYPES:
                names = ", ".join(t.name for t in TYPES)
                raise ValueError(f"{path}: {tensor.name} is {tensor.tensor_type.name}; only {names} can be imported")
        self.config = self._model_config()
        self.name = str(self.field("general.name", path.stem))
        self._check_tensors()
        self.shapes = {row.name: row.shape for row in hf.table(self.config)}

    def field(self, name: str, default: Any = None) -> Any:
        """Value of a metadata field."""
        field = self._reader.get_field(name)
        if field is None:
            return default
        try:
            return field.contents()
        except (UnicodeDecodeError, IndexError) as error:
            raise ValueError(f"{self._path}: field {name} cannot be read ({error}); download the file again") from None

    def read(self, name: str) -> np.ndarray:
        """A tensor by its Hugging Face name, in Hugging Face's layout; dequantized to fp32, F16 and BF16 as they are."""
        tensor = self._tensors[to_gguf(name)]
        shape = self.shapes[name]
        if tensor.tensor_type == _Type.BF16:
            array = tensor.data.view(ml_dtypes.bfloat16).reshape(shape)
        elif tensor.tensor_type in (_Type.F32, _Type.F16):
            array = tensor.data.reshape(shape)
        else:
            array = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape)
        heads = heads_of(name, self.config)
        return array if heads is None else separate(array, heads)

    def write_tokenizer(self, directory: Path) -> None:
        """tokenizer.json and its settings, of the metadata."""
        from opencoder_data.tokenizer.gguf_metadata import write_tokenizer

        write_tokenizer(self.field, directory, str(self._path))

    def _model_config(self) -> ModelConfig:
        path = self._path
        if (architecture := self.field("general.architecture")) != ARCHITECTURE:
            raise ValueError(f"{path}: general.architecture={architecture!r}, only {ARCHITECTURE} can be imported")
        for name, unused in _UNUSED.items():
            value = self.field(name)
            if value is not None and value not in unused:
                raise ValueError(f"{path}: {name}={value!r}; a Llama has it as {unused[-1]!r}")
        width, heads = self._number("embedding_length"), self._number("attention.head_count")
        embedding = self._tensors.get("token_embd.weight")
        if embedding is None:
            raise ValueError(f"{path}: token_embd.weight is missing; download the file again")
        head_dim = self._number("attention.key_length", width // max(heads, 1))
        for name in ("attention.value_length", "rope.dimension_count"):
            if (value := self._number(name, head_dim)) != head_dim:
                raise ValueError(f"{path}: llama.{name}={value}; a Llama has it as its head dim, {head_dim}")
        values: dict[str, Any] = {
            "num_layers": self._number("block_count"),
            "embed_dim": width,
            "num_query_heads": heads,
            "num_kv_heads": self._number("attention.head_count_kv", heads),
            "head_dim": head_dim,
            "ffn_dim": self._number("feed_forward_length"),
            "vocab_size": int(embedding.shape[-1]),
            "rope_theta": self._number("rope.freq_base", 10_000.0, kind=float),
            "max_seq_len": self._number("context_length"),
            "norm_eps": self._number("attention.layer_norm_rms_epsilon", kind=float),
            "tie_word_embeddings": "output.weight" not in self._tensors,
        }
        try:
            cfg = ModelConfig(**values)
            check_ranges(cfg)
            check(cfg)
            return self._scaled(cfg)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def _number(self, name: str, default: Any = None, *, kind: type = int) -> Any:
        value = self.field(f"llama.{name}", default)
        if value is None:
            raise ValueError(f"{self._path}: field llama.{name} is missing")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != kind(value):
            raise ValueError(f"{self._path}: llama.{name}={value!r} is not one {'whole ' if kind is int else ''}number")
        # A float32 in the file: 1e-5 and not 9.99999974e-06.
        return float(str(np.float32(value))) if kind is float else kind(value)

    def _scaled(self, cfg: ModelConfig) -> ModelConfig:
        """With llama3 scaling, which GGUF holds as one factor per rotary frequency: the fields are found again by trial."""
        from dataclasses import replace

        stored = self._tensors.get(ROPE_FREQUENCIES)
        if stored is None:
            if self.field("llama.rope.scaling.type") == "llama3":
                raise ValueError(f"rope.scaling.type=llama3 without {ROPE_FREQUENCIES}")
            return cfg
        factors = np.asarray(stored.data, np.float32).ravel()
        if factors.shape != (cfg.head_dim // 2,) or not (np.isfinite(factors) & (factors > 0)).all():
            raise ValueError(f"{ROPE_FREQUENCIES} is {factors.shape}, not {cfg.head_dim // 2} factors")
        if (factors == 1).all():
            return cfg
        given = self._llama3_fields()
        contexts = [given.original_max_seq_len] if given else [2**n for n in range(6, 21)]
        ranges = [(given.low_freq_factor, given.high_freq_factor)] if given else [(1.0, 4.0)]
        factor = given.factor if given else float(factors.max())
        for context in contexts:
            for low, high in ranges:
                scaling = RopeScaling(factor, low, high, context)
                check_ranges(scaling)
                found = replace(cfg, rope_scaling=scaling)
                if np.allclose(rope_factors(found), factors, rtol=1e-5):
                    return found
        raise ValueError(f"{ROPE_FREQUENCIES} holds other factors than llama3 scaling makes; only that can be imported")

    def _llama3_fields(self) -> RopeScaling | None:
        """The fields that our own export adds."""
        names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_seq_len")
        values = [self.field(f"{SCALING}{name}") for name in names]
        if any(v is None for v in values):
            return None
        return RopeScaling(*(float(str(np.float32(v))) for v in values[:3]), int(values[3]))

    def _check_tensors(self) -> None:
        expected = expected_shapes(self.config)
        found = {name: tuple(int(n) for n in reversed(t.shape)) for name, t in self._tensors.items()}
        found.pop(ROPE_FREQUENCIES, None)
        missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
        if missing:
            raise ValueError(
                f"{self._path}: {len(missing)} tensor(s) missing, first {missing[0]}; download the file again"
            )
        if extra:
            raise ValueError(
                f"{self._path}: {len(extra)} tensor(s) that no such model has, first {extra[0]}"
                + ("" if to_hf(extra[0]) is None else " (llama.block_count is below its layer)")
            )
        for name, shape in expected.items():
            if found[name] != shape:
                raise ValueError(f"{self._path}: {name} is {found[name]}, its metadata make it {shape}")


def _read(path: Path) -> gguf.GGUFReader:
    try:
        with path.open("rb") as file:
            start, size = file.read(64), path.stat().st_size
    except OSError as error:
        raise ValueError(
            f"{path}: {error.strerror or error}; give a GGUF file or the directory of a Hugging Face model"
        ) from None
    if not start.startswith(b"GGUF"):
        hint = (
            "a Git LFS pointer: fetch the file itself" if start.startswith(b"version https://git-lfs") else "no magic"
        )
        raise ValueError(f"{path}: not a GGUF file ({hint})")
    try:
        reader = gguf.GGUFReader(path)
        ends = [t.data_offset + math.prod(t.data.shape) * t.data.itemsize for t in reader.tensors]
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: cut short or corrupt ({said}, {size} bytes); download the file again") from None
    if ends and max(ends) > size:
        raise ValueError(f"{path}: {size} bytes where its tensors end at {max(ends)}; download the file again")
    return reader
