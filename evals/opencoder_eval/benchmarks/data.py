"""Finds and reads benchmark data on this machine. Data is never part of the project.

A benchmark's directory is looked for, in this order: the environment variable OPENCODER_BENCHMARKS, `../shared/benchmarks`
and `benchmarks` beside the working directory. Files may be gzipped or not.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VARIABLE = "OPENCODER_BENCHMARKS"
DEFAULT_PLACES = ("../shared/benchmarks", "benchmarks")

# Files that were measured (docs/experiments/2026-11-25-evaluation.md): SHA-256 of the text, decompressed.
CHECKSUMS: dict[str, str] = {}


class MissingData(ValueError):
    """The data of a benchmark is not on this machine."""


def root() -> Path | None:
    """The directory that holds one directory per benchmark family, or None."""
    if place := os.environ.get(VARIABLE):
        return Path(place)
    return next((p for place in DEFAULT_PLACES if (p := Path(place)).is_dir()), None)


def find(relative: str, *, source: str) -> Path:
    """The file `relative` (with or without `.gz`) under the data directory.

    Args:
      source: where a user can get the file, for the message.

    Raises: MissingData.
    """
    base = root()
    tried = base if base is not None else Path(DEFAULT_PLACES[0])
    for name in (relative, f"{relative}.gz", relative.removesuffix(".gz")):
        if base is not None and (base / name).is_file():
            return base / name
    where = f"{VARIABLE}={os.environ[VARIABLE]}" if VARIABLE in os.environ else f"no {VARIABLE} is set"
    raise MissingData(
        f"{tried / relative}: no such file ({where}); get it from {source} and set {VARIABLE} to its root"
    )


def read_text(path: Path) -> str:
    """The file's text, decompressed when it is gzipped. Raises: ValueError for a file that is cut or not UTF-8."""
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}; get the file again") from error


def rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file, or of a JSON array. Raises: ValueError that names the line."""
    text = read_text(path)
    if text.lstrip().startswith("["):
        try:
            return list(json.loads(text))
        except ValueError as error:
            raise ValueError(f"{path}: {error}; get the file again") from error
    return list(_lines(text, path))


def known(path: Path, relative: str) -> bool | None:
    """Whether the file is the one that was measured; None where no checksum is recorded."""
    expected = CHECKSUMS.get(relative.removesuffix(".gz"))
    return None if expected is None else hashlib.sha256(read_text(path).encode()).hexdigest() == expected


def _lines(text: str, path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}; get the file again") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}:{number}: a {type(row).__name__}, not an object; get the file again")
        yield row


def require(row: dict[str, Any], fields: tuple[str, ...], path: Path) -> None:
    """Raises: ValueError when the row lacks a field."""
    if missing := [f for f in fields if f not in row]:
        raise ValueError(f"{path}: row {row.get('task_id', row.get('name', '?'))!r} lacks {', '.join(missing)}")
