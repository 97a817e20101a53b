"""What every reader yields: one file of the input, read or rejected."""

import os
import re
from dataclasses import dataclass, field

_SURROGATES = re.compile("[\ud800-\udc7f\udd00-\udfff]")


@dataclass(slots=True)
class RawFile:
    """One input file. Exactly one of `data`, `text` and `rule` is set: bytes, decoded text, or why it is rejected.

    `key` is what its identity is made of, (source, path) before they were made printable: two names that are not UTF-8 may
    print alike. `stated_sha256` is what a table says, never believed. `odd` names the metadata that could not be converted and is null.
    """

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
    stated_sha256: str | None = None
    encoding: str = "utf-8"
    declared_encoding: str | None = None
    key: tuple[str, str] | None = None
    odd: list[str] = field(default_factory=list)


def path_key(path: str) -> str:
    """A path of the file system as text that no locale changes: UTF-8, other bytes as surrogate escapes."""
    try:
        return os.fsencode(path).decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # the locale has no such letter: it comes from a URL or the command line
        return path


def printable_path(path: str) -> str:
    """A path of the file system as valid text: bytes that are not UTF-8 are written as escapes."""
    return printable_text(path_key(path))


def printable_text(text: str | bytes) -> str:
    """A name out of an archive, table or repository likewise; surrogate escapes mean bytes."""
    if isinstance(text, str):
        if text.isascii():
            return text.replace("\0", "\\0")
        text = text.encode("utf-8", "surrogateescape" if _only_escapes(text) else "backslashreplace")
    return text.decode("utf-8", "backslashreplace").replace("\0", "\\0")


def _only_escapes(text: str) -> bool:
    """Whether all surrogates in the text mean single bytes."""
    return not _SURROGATES.search(text)


def one_line(error: BaseException, limit: int = 300) -> str:
    """The error's message on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:limit].encode("utf-8", "replace").decode()
