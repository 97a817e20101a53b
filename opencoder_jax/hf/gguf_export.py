"""A checkpoint as a GGUF file, for llama.cpp and what is built on it: weights, tokenizer, template, ends, FIM tokens.

Laid out first and then written tensor by tensor, by the package `gguf`; one parameter is in memory at a time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from opencoder_jax import model as lm
from opencoder_jax.checkpoint import read_record, resolve
from opencoder_jax.config import ModelConfig
from opencoder_jax.hf import mapping as hf
from opencoder_jax.hf.gguf_names import (
    ARCHITECTURE,
    ROPE_FREQUENCIES,
    SCALING,
    heads_of,
    interleave,
    rope_factors,
    to_gguf,
)
from opencoder_jax.hf.stored import read_parameter, run_tokenizer
from opencoder_jax.overrides import from_dict

_Type = gguf.GGMLQuantizationType
_File = gguf.LlamaFileType
DTYPES = {
    "f16": (_Type.F16, _File.MOSTLY_F16),
    "q8_0": (_Type.Q8_0, _File.MOSTLY_Q8_0),
    "f32": (_Type.F32, _File.ALL_F32),
}


def export_gguf(
    checkpoint: str | Path, to: str | Path, *, dtype: str = "f16", tokenizer: str | Path | None = None
) -> str:
    """Writes a checkpoint as one GGUF file.

    Args:
      checkpoint: RUN (its newest valid checkpoint) or RUN/checkpoints/STEP.
      to: a file that does not exist yet.
      dtype: of matrices: f16, q8_0 (8 bits, a scale for every 32 values) or f32; norms are always f32.
      tokenizer: tokenizer.model, tokenizer.json or their directory; default that of RUN.

    Returns: what was written, with the measured rate of documents that get the tokenizer's own ids.
    Raises: ValueError in one line for what the user can change; nothing is left behind then.
    """
    from opencoder_data.tokenizer.export_gguf import gguf_fields, sample_rate

    if dtype not in DTYPES:
        raise ValueError(f"--dtype={dtype}: choose {', '.join(DTYPES)}")
    source = resolve(checkpoint)
    record = read_record(source)
    config = from_dict(record["config"])
    cfg = config.model
    kind, file_type = DTYPES[dtype]
    if kind == _Type.Q8_0:
        _check_blocks(cfg)
    spelled = run_tokenizer(tokenizer, source, record, cfg.vocab_size)
    if spelled is None:
        raise ValueError(
            f"{source.parent.parent}: has no tokenizer, without which llama.cpp loads no model; give --tokenizer"
        )
    fields = gguf_fields(spelled, cfg.vocab_size)
    measured = sample_rate(spelled, cfg.vocab_size)
    with _complete_file(Path(to), lm.num_params(cfg) * 4) as part:
        writer = gguf.GGUFWriter(part, ARCHITECTURE)
        writer.add_file_type(file_type)
        writer.add_name(config.name)
        writer.add_string("opencoder.tokenizer.hash", spelled.hash)
        writer.add_string("opencoder.tokenizer.rate", str(measured))
        _add_shape(writer, cfg)
        for name, value in fields.items():
            add_field(writer, name, value)
        _write_tensors(writer, source, cfg, kind)
    size = Path(to).stat().st_size
    return f"{to}: {size:,} bytes, {dtype}\ntokenizer as {fields['tokenizer.ggml.pre']}: {measured}"


def _add_shape(writer: gguf.GGUFWriter, cfg: ModelConfig) -> None:
    writer.add_vocab_size(cfg.vocab_size)
    writer.add_block_count(cfg.num_layers)
    writer.add_context_length(cfg.max_seq_len)
    writer.add_embedding_length(cfg.embed_dim)
    writer.add_feed_forward_length(cfg.ffn_dim)
    writer.add_head_count(cfg.num_query_heads)
    writer.add_head_count_kv(cfg.num_kv_heads)
    writer.add_key_length(cfg.head_dim)
    writer.add_value_length(cfg.head_dim)
    writer.add_rope_dimension_count(cfg.head_dim)
    writer.add_rope_freq_base(cfg.rope_theta)
    writer.add_layer_norm_rms_eps(cfg.norm_eps)
    if cfg.rope_scaling.factor != 1:
        # The format has the factors alone; a field llama.rope.scaling.factor would scale once more. For `opencoder import`.
        scaling = cfg.rope_scaling
        writer.add_float32(f"{SCALING}factor", scaling.factor)
        writer.add_float32(f"{SCALING}low_freq_factor", scaling.low_freq_factor)
        writer.add_float32(f"{SCALING}high_freq_factor", scaling.high_freq_factor)
        writer.add_uint32(f"{SCALING}original_max_seq_len", scaling.original_max_seq_len)


def add_field(writer: gguf.GGUFWriter, name: str, value: Any) -> None:
    """A metadata field by the type of its value: bool, float (fp32), int (uint32), str, or an array of one of these."""
    if isinstance(value, bool):
        writer.add_bool(name, value)
    elif isinstance(value, float):
        writer.add_float32(name, value)
    elif isinstance(value, int):
        writer.add_uint32(name, value)
    elif isinstance(value, str):
        writer.add_string(name, value)
    else:
        writer.add_array(name, value)


def _write_tensors(writer: gguf.GGUFWriter, source: Path, cfg: ModelConfig, kind: gguf.GGMLQuantizationType) -> None:
    rows = hf.table(cfg)

    def of(row: hf.Tensor) -> gguf.GGMLQuantizationType:
        return kind if len(row.shape) > 1 else _Type.F32

    groups = hf.grouped(rows)
    for row in (row for group in groups.values() for row in group):  # in the order in which they are written
        shape, matrix = row.shape, of(row)
        if matrix == _Type.Q8_0:
            bytes_shape = gguf.quants.quant_shape_to_byte_shape(shape, matrix)
            num_bytes = int(np.prod(bytes_shape))
            writer.add_tensor_info(to_gguf(row.name), bytes_shape, np.dtype(np.uint8), num_bytes, raw_dtype=matrix)
        else:
            stored = np.dtype(np.float16 if matrix == _Type.F16 else np.float32)
            writer.add_tensor_info(to_gguf(row.name), shape, stored, int(np.prod(shape)) * stored.itemsize)
    if cfg.rope_scaling.factor != 1:
        factors = rope_factors(cfg)
        writer.add_tensor_info(ROPE_FREQUENCIES, factors.shape, factors.dtype, factors.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for path, group in groups.items():
        whole = read_parameter(source, path)
        for row in group:
            tensor = row.to_hf(whole if row.layer is None else whole[row.layer])
            heads = heads_of(row.name, cfg)
            writer.write_tensor_data(_stored(row.name, tensor if heads is None else interleave(tensor, heads), of(row)))
        del whole
    if cfg.rope_scaling.factor != 1:
        writer.write_tensor_data(rope_factors(cfg))
    writer.close()


def _stored(name: str, tensor: np.ndarray, kind: gguf.GGMLQuantizationType) -> np.ndarray:
    if not np.isfinite(tensor).all():
        raise ValueError(f"{name} has values that are not finite; take an earlier checkpoint")
    if kind == _Type.F16 and np.abs(tensor).max() > np.finfo(np.float16).max:
        raise ValueError(f"{name} has values above f16's largest, 65504; take --dtype=f32")
    tensor = np.ascontiguousarray(tensor, np.float32)
    return gguf.quants.quantize(tensor, kind)


def _check_blocks(cfg: ModelConfig) -> None:
    block = gguf.GGML_QUANT_SIZES[_Type.Q8_0][0]
    sizes = {
        "embed_dim": cfg.embed_dim,
        "ffn_dim": cfg.ffn_dim,
        "num_query_heads x head_dim": cfg.num_query_heads * cfg.head_dim,
    }
    for name, size in sizes.items():
        if size % block:
            raise ValueError(f"--dtype=q8_0: model.{name}={size} is not a multiple of {block}; take f16")


@contextlib.contextmanager
def _complete_file(final: Path, num_bytes: int) -> Iterator[Path]:
    """A file under another name that becomes `final` when the block ends well and vanishes when it does not."""
    final = final.absolute()
    if final.exists():
        raise ValueError(f"{final}: exists already; remove it or give another file")
    if not final.parent.is_dir():
        raise ValueError(f"{final.parent}: not a directory; make it first")
    free = shutil.disk_usage(final.parent).free
    if free < num_bytes:
        raise ValueError(
            f"{final.parent}: {num_bytes / 2**30:.1f} GiB needed, {free / 2**30:.1f} GiB free; free some space"
        )
    part = final.with_name(f".{final.name}.part-{os.getpid()}")
    try:
        yield part
        part.rename(final)
    except OSError as error:
        raise ValueError(f"{final}: {error.strerror or error}; nothing was written") from error
    finally:
        part.unlink(missing_ok=True)
