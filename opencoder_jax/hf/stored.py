"""Single parameters of a checkpoint on disk."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore


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
