"""A checkpoint as something that answers: weights, configuration, tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh
from opencoder_data import command
from opencoder_data.tokenizer import TextTokenizer, load_tokenizer
from opencoder_data.tokenizer.interface import FILES

from opencoder_jax.checkpoint import load_params, resolve
from opencoder_jax.config import MeshConfig, ModelConfig, replace
from opencoder_jax.hf import mapping as hf
from opencoder_jax.hf.importer import open_source
from opencoder_jax.inference.engine import Engine
from opencoder_jax.inference.text import Text
from opencoder_jax.sharding import MESH_AXES, make_mesh


@dataclass(frozen=True)
class LoadedModel:
    """name: of the run's directory. params: on the host."""

    name: str
    config: ModelConfig
    params: nnx.State
    text: Text

    def engine(self, **options: Any) -> Engine:
        """An engine whose rows end with the tokenizer's end tokens. Args: as of `Engine`."""
        return Engine(self.config, self.params, end_ids=self.text.tokenizer.end_ids, **options)


def load(checkpoint: str | Path, tokenizer: str | Path | None = None, *, dtype: str | None = None) -> LoadedModel:
    """Args: checkpoint: run directory, RUN/checkpoints/STEP, a Hugging Face directory or a GGUF file. tokenizer: default
    that beside it, or in it. dtype: of the computation.

    Raises: ValueError for what is missing, corrupt, or not made for each other.
    """
    if _is_released(Path(checkpoint)):
        return _load_released(Path(checkpoint), tokenizer, dtype)
    path = resolve(checkpoint)
    tokens = load_tokenizer(tokenizer or path.parent.parent)
    params, config, record = load_params(path)
    expected = record["data"].get("tokenizer")
    if (expected and tokens.hash != expected) or tokens.vocab_size > config.model.vocab_size:
        raise ValueError(f"{tokens.path}: not the tokenizer of {path}; give that one by --tokenizer")
    cfg = replace(config.model, compute_dtype=dtype or config.model.compute_dtype)
    return LoadedModel(path.parent.parent.name, cfg, params, Text(tokens, cfg.vocab_size))


def _is_released(path: Path) -> bool:
    """Whether it is a model file, or a directory with weights that is not a run's."""
    return path.is_file() or (
        path.is_dir() and not (path / "checkpoints").is_dir() and any(path.glob("*.safetensors*"))
    )


def _load_released(path: Path, tokenizer: str | Path | None, dtype: str | None) -> LoadedModel:
    """In memory, without a run on disk."""
    source = open_source(path)
    names = {row.name for row in hf.table(source.config)}
    tensors = {name: source.read(name) for name in source.shapes if name in names}
    params = hf.from_hf(source.config, tensors, str(path))
    tokens = load_tokenizer(tokenizer) if tokenizer else _tokenizer_of(source, path)
    if tokens.vocab_size > source.config.vocab_size:
        raise ValueError(f"{tokens.path}: not the tokenizer of {path}; give that one by --tokenizer")
    cfg = replace(source.config, compute_dtype=dtype or source.config.compute_dtype)
    return LoadedModel(path.absolute().name.removesuffix(".gguf"), cfg, params, Text(tokens, cfg.vocab_size))


def _tokenizer_of(source: Any, path: Path) -> TextTokenizer:
    with command.temporary_directory() as directory:
        source.write_tokenizer(directory)
        if not any((directory / name).is_file() for name in FILES):
            raise ValueError(f"{path}: no tokenizer beside the model; give one by --tokenizer")
        return load_tokenizer(directory)


def mesh_of(text: str) -> Mesh | None:
    """A mesh of "tensor=2,data=4", over as many of the devices; None for one device. Raises: ValueError."""
    if not text:
        return None
    sizes = dict.fromkeys(MESH_AXES, 1)
    for part in text.split(","):
        name, _, size = part.strip().partition("=")
        if name not in ("data", "fsdp", "tensor") or not size.isdigit() or int(size) < 1:
            raise ValueError(f"mesh={text!r}: write data, fsdp or tensor with a size, such as tensor=2,data=4")
        sizes[name] = int(size)
    count = sizes["data"] * sizes["fsdp"] * sizes["tensor"]
    if count > jax.device_count():
        raise ValueError(f"mesh={text!r}: {count} devices, there are {jax.device_count()}")
    return make_mesh(MeshConfig(**sizes), jax.devices()[:count])
