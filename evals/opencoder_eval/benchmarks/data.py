"""Finds and reads benchmark data on this machine. Data is never part of the project.

A benchmark's directory is looked for, in this order: the environment variable OPENCODER_BENCHMARKS, `../shared/benchmarks`
and `benchmarks` beside the working directory. Files may be gzipped or not.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VARIABLE = "OPENCODER_BENCHMARKS"
DEFAULT_PLACES = ("../shared/benchmarks", "benchmarks")

# Files that were measured (docs/experiments/2026-11-25-evaluation.md): SHA-256 of the text, decompressed.
CHECKSUMS = {
    "humaneval/HumanEval.jsonl": "1d49078ba3e2b196b9344535bef34a43021f038fad9561d6ee7c53450609a6a2",
    "humanevalplus/HumanEvalPlus-OriginFmt.jsonl": "04228b8a570ff7c346c740b91f0c6a0b323f86a26e903db8477c6f2d10f38819",
    "mbpp/mbpp.jsonl": "ccf64ceae9c5403bf50a044cb6d505bfd2a2963ee58338ba268fd65beab92a9f",
    "mbpp/mbpp_sanitized.jsonl": "502db01bcc1e911d691d5212bd3d9c60ee52bbc2bd29457a520ace424bb2709d",
    "mbppplus/MbppPlus-OriginFmt.jsonl": "132d01c96df6b4b0fe0cbb8414092fe62c51b873b160d1ec8fc2ded28484865a",
    "mbppplus/MbppPlus.jsonl": "b54e762755248ca411b523c917fa9f93c07b5ff2966bf60b3917b853926a3dad",
    "bigcodebench/BigCodeBench_v0.1.0_hf_data.jsonl": "33baf4f414eb34507f1a8fd55ef9bcd79c1f9b4c3e8e2544f023edac1b20afec",
    "bigcodebench/BigCodeBench_Hard.opencodeeval.jsonl": "6aecfe7a8791800a431d29f0d5da39f39d29782d1579c4cf68b662c0d6e2a480",
}
_told: set[Path] = set()


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


def find_any(*relatives: str, source: str) -> Path:
    """The first of several places that is there. Raises: MissingData, for the first."""
    for relative in relatives:
        with contextlib.suppress(MissingData):
            return find(relative, source=source)
    return find(relatives[0], source=source)


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
    _tell_if_other(path, text)
    if text.lstrip().startswith("["):
        try:
            return list(json.loads(text))
        except ValueError as error:
            raise ValueError(f"{path}: {error}; get the file again") from error
    return list(_lines(text, path))


def _tell_if_other(path: Path, text: str) -> None:
    """A line on standard error, once, for a file that is not the one that was measured: scores may differ."""
    relative = "/".join(path.parts[-2:]).removesuffix(".gz")
    expected = CHECKSUMS.get(relative)
    if expected is not None and path not in _told and hashlib.sha256(text.encode()).hexdigest() != expected:
        _told.add(path)
        print(f"{path}: not the published file that the canonical pass rates are known of", file=sys.stderr)


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
