"""What exports read of a run: single parameters, and the tokenizer."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore
from opencoder_data.tokenizer import TextTokenizer, load_tokenizer
from opencoder_data.tokenizer.interface import FILES


def read_parameter(checkpoint: Path, path: tuple[str, ...]) -> np.ndarray:
    """One parameter of a checkpoint, on the host: stored piece after stored piece, where Orbax holds all at once."""
    state = checkpoint / "state"
    layout = json.loads((state / "_METADATA").read_text())
    store = {"driver": "ocdbt", "base": f"file://{state}/", "path": ".".join(("params", *path)) + "/"}
    spec = {"driver": "zarr3" if layout.get("use_zarr3") else "zarr", "kvstore": store}
    array = tensorstore.open(spec, open=True, read=True).result()
    whole = np.empty(array.shape, array.dtype.numpy_dtype)
    pieces: Any = array.chunk_layout.read_chunk.shape
    steps = [range(0, n, size) for n, size in zip(array.shape, pieces, strict=True)]
    for corner in itertools.product(*steps):
        piece = tuple(slice(at, at + step.step) for at, step in zip(corner, steps, strict=True))
        piece = tuple(slice(s.start, min(s.stop, n)) for s, n in zip(piece, array.shape, strict=True))
        whole[piece] = array[piece].read().result()
    return whole


def run_tokenizer(
    given: str | Path | None, source: Path, record: dict[str, Any], vocab_size: int
) -> TextTokenizer | None:
    """The run's tokenizer. Raises: ValueError when it does not exist or is not the one of the run's shards."""
    run_dir = source.parent.parent
    if given is None and not any((run_dir / name).is_file() for name in FILES):
        return None
    tokenizer = load_tokenizer(given or run_dir)
    expected = record["data"].get("tokenizer")
    if expected and tokenizer.hash != expected:
        raise ValueError(
            f"{tokenizer.path}: its hash is {tokenizer.hash}, the run was trained with {expected}; give that tokenizer"
        )
    if tokenizer.vocab_size > vocab_size:
        raise ValueError(
            f"{tokenizer.path}: vocabulary of {tokenizer.vocab_size}, the model has {vocab_size}: another model's tokenizer"
        )
    return tokenizer
