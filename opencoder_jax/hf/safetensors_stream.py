"""Safetensors directories read and written tensor by tensor, in any order, with one tensor in memory at a time.

The `safetensors` library writes a file from tensors that are all in memory; here a file is laid out first (an 8-byte
length, a JSON header, the data) and each tensor is then written to its place.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

DTYPES = {"F32": np.dtype(np.float32), "BF16": np.dtype(ml_dtypes.bfloat16), "F16": np.dtype(np.float16)}
CODES = {dtype: code for code, dtype in DTYPES.items()}
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


@dataclass(frozen=True)
class _Place:
    file: str
    offset: int  # in the file
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def num_bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


class Writer:
    """Lays out a model's files in `directory` and fills them. Use as a context: leaving it without all tensors is a bug.

    Args:
      shapes: every tensor's shape, in the order of the files.
      max_file_bytes: a new file begins before this is exceeded.
    """

    def __init__(self, directory: Path, shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype, max_file_bytes: int):
        self._directory, self._left, self._files = directory, set(shapes), {}
        groups: list[list[str]] = [[]]
        size = {name: int(np.prod(shape, dtype=np.int64)) * dtype.itemsize for name, shape in shapes.items()}
        for name in shapes:
            if groups[-1] and sum(size[n] for n in groups[-1]) + size[name] > max_file_bytes:
                groups.append([])
            groups[-1].append(name)
        count = len(groups)
        names = [SINGLE] if count == 1 else [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
        self._places: dict[str, _Place] = {}
        for file, group in zip(names, groups, strict=True):
            start = 0
            header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
            for name in group:
                end = start + size[name]
                header[name] = {"dtype": CODES[dtype], "shape": list(shapes[name]), "data_offsets": [start, end]}
                start = end
            text = json.dumps(header, separators=(",", ":")).encode()
            text += b" " * (-len(text) % 8)
            for name in group:
                offset = 8 + len(text) + header[name]["data_offsets"][0]
                self._places[name] = _Place(file, offset, tuple(shapes[name]), dtype)
            handle = (directory / file).open("wb")
            self._files[file] = handle
            handle.write(struct.pack("<Q", len(text)) + text)
        if count > 1:
            index = {
                "metadata": {"total_size": sum(size.values())},
                "weight_map": {name: place.file for name, place in self._places.items()},
            }
            (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n")

    def write(self, name: str, array: np.ndarray) -> None:
        """Converts to the directory's dtype (round to nearest even) and writes."""
        place = self._places[name]
        assert array.shape == place.shape, (name, array.shape, place.shape)
        handle = self._files[place.file]
        handle.seek(place.offset)
        handle.write(np.ascontiguousarray(array, place.dtype).view(np.uint8).data)
        self._left.discard(name)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind, *_) -> None:
        for handle in self._files.values():
            handle.flush()
            if kind is None:
                os.fsync(handle.fileno())
            handle.close()
        assert kind is not None or not self._left, f"not written: {sorted(self._left)}"


class Reader:
    """Tensors of a directory, as memory maps.

    Raises (constructor): ValueError naming the file that is missing, cut short or no safetensors file.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self._places: dict[str, _Place] = {}
        for file in _files(directory):
            self._places |= _header(directory / file)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: place.shape for name, place in self._places.items()}

    def read(self, name: str) -> np.ndarray:
        """[shape] in the file's dtype; pages are read on access."""
        place = self._places[name]
        raw = np.memmap(self.directory / place.file, np.uint8, "r", place.offset, (place.num_bytes,))
        return np.asarray(raw).view(place.dtype).reshape(place.shape)


def _files(directory: Path) -> list[str]:
    if (directory / INDEX).is_file():
        try:
            weight_map = json.loads((directory / INDEX).read_text())["weight_map"]
            return sorted(set(weight_map.values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise ValueError(f"{directory / INDEX}: corrupt ({error}); download the model again") from None
    if (directory / SINGLE).is_file():
        return [SINGLE]
    raise ValueError(f"{directory}: neither {SINGLE} nor {INDEX}; give the directory of a Hugging Face model")


def _header(path: Path) -> dict[str, _Place]:
    try:
        total = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > total:
                raise ValueError("no safetensors header")
            header = json.loads(file.read(length))
    except FileNotFoundError:
        raise ValueError(f"{path}: missing; download the model again") from None
    except (struct.error, ValueError) as error:
        raise ValueError(f"{path}: no safetensors file, or cut short ({error})") from None
    places, end = {}, 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in DTYPES:
            raise ValueError(f"{path}: {name} is {entry['dtype']}; only {', '.join(DTYPES)} can be imported")
        start, stop = entry["data_offsets"]
        place = _Place(path.name, 8 + length + start, tuple(entry["shape"]), DTYPES[entry["dtype"]])
        if place.num_bytes != stop - start:
            raise ValueError(f"{path}: {name} has {stop - start} bytes, its shape makes {place.num_bytes}")
        places[name], end = place, max(end, stop)
    if 8 + length + end != total:
        raise ValueError(f"{path}: {total} bytes where the header says {8 + length + end}; download it again")
    return places
