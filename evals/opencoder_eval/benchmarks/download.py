"""Benchmark files by name: pinned addresses and checksums. A file whose checksum differs is never put in place."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from pathlib import Path

import httpx

from opencoder_eval.benchmarks import data

_RAW = "https://raw.githubusercontent.com"
_OPENCODER = f"{_RAW}/OpenCoder-llm/OpenCoder-llm/6131c472c87dc832f3701f8ab4cc8baa7b9c688b/OpenCodeEval/src/data"
_HUMANEVALPLUS = f"{_RAW}/evalplus/humanevalplus_release/200defce9e3429d28ca215b6dd061c0f7f31c18b"
_MBPPPLUS = "https://github.com/evalplus/mbppplus_release/releases/download/v0.2.0"
# The file below the data directory: its address. Checksums are in data.CHECKSUMS.
ADDRESSES = {
    "humaneval/HumanEval.jsonl": f"{_RAW}/openai/human-eval/6d43fb980f9fee3c892a914eda09951f772ad10d/data/HumanEval.jsonl.gz",
    "humanevalplus/HumanEvalPlus-OriginFmt.jsonl": f"{_HUMANEVALPLUS}/HumanEvalPlus-OriginFmt.jsonl.gz",
    "mbpp/mbpp.jsonl": f"{_OPENCODER}/mbpp.jsonl",
    "mbpp/mbpp_sanitized.jsonl": f"{_OPENCODER}/mbpp_sanitized.jsonl",
    "mbppplus/MbppPlus-OriginFmt.jsonl": f"{_MBPPPLUS}/MbppPlus-OriginFmt.jsonl.gz",
    "mbppplus/MbppPlus.jsonl": f"{_MBPPPLUS}/MbppPlus.jsonl.gz",
    "bigcodebench/BigCodeBench_Hard.opencodeeval.jsonl": f"{_OPENCODER}/BigCodeBench_Hard.jsonl",
}


def download(name: str, to: Path) -> list[Path]:
    """The files of a family (`humaneval`, `mbpp`, ...) below `to`, each whole or not at all; those that are there stay.

    Raises: ValueError for a family without addresses, for a file that cannot be had, and for another content.
    """
    wanted = [relative for relative in ADDRESSES if relative.startswith(f"{name}/")]
    if not wanted:
        families = sorted({relative.split("/")[0] for relative in ADDRESSES})
        raise ValueError(f"{name!r} cannot be downloaded by name; there are {', '.join(families)}")
    made = []
    for relative in wanted:
        path = to / f"{relative}.gz"
        made.append(path)
        if not path.exists():
            _fetch(ADDRESSES[relative], data.CHECKSUMS[relative], path)
    return made


def _fetch(address: str, checksum: str, path: Path) -> None:
    try:
        reply = httpx.get(address, follow_redirects=True, timeout=60)
        reply.raise_for_status()
        content = gzip.decompress(reply.content) if reply.content[:2] == b"\x1f\x8b" else reply.content
    except (httpx.HTTPError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{address}: {error}; fetch it another way and put it at {path}") from error
    if (found := hashlib.sha256(content).hexdigest()) != checksum:
        raise ValueError(f"{address}: SHA-256 is {found}, not {checksum}: another version; nothing was written")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(gzip.compress(content, mtime=0))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
