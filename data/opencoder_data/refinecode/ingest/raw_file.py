"""What every reader yields: one file of the input, read or refused."""

import os
from dataclasses import dataclass


@dataclass(slots=True)
class RawFile:
    """One input file. Exactly one of `data`, `text` and `rule` is set: bytes, decoded text, or why it is refused."""

    source: str
    repo: str
    path: str
    size: int = 0
    data: bytes | None = None
    text: str | None = None
    rule: str = ""
    detail: str = ""
    index: int = 0
    stars: int | None = None
    commit_time: int | None = None
    time_source: str | None = None
    licence: str | None = None
    language: str | None = None
    doc_type: str | None = None
    doc_id: str | None = None
    sha256: str | None = None
    encoding: str = "utf-8"


def printable_path(path: str | bytes) -> str:
    """A path as valid text: bytes that are no UTF-8 are written as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace").replace("\0", "\\0")


def one_line(error: BaseException, limit: int = 300) -> str:
    """The error's message on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:limit].encode("utf-8", "replace").decode()
