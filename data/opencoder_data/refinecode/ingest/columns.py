"""Columns of tables under the names that published corpora give them, and their values as ours.

A value that does not convert is null and its name goes into `RawFile.odd`: odd metadata never costs the row its content.
"""

import codecs
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from opencoder_data.refinecode.ingest.bounds import MAX_NAME_BYTES
from opencoder_data.refinecode.ingest.raw_file import RawFile, printable_text
from opencoder_data.refinecode.schema import doc_id

# First present wins.
ALIASES: dict[str, tuple[str, ...]] = {
    "content": ("content", "text", "code"),
    "repo": ("repo", "repo_name", "max_stars_repo_name", "repository", "repository_name"),
    "path": ("path", "file_path", "max_stars_repo_path", "filename", "file_name", "url"),
    "stars": ("stars", "star_events_count", "max_stars_count", "stargazers_count"),
    "commit_time": ("commit_time", "committer_date", "revision_date", "max_stars_repo_stars_event_max_datetime"),
    "licence": ("licence", "license", "detected_licenses", "max_stars_repo_licenses", "gha_license_id", "licenses"),
    "language": ("language", "lang", "programming_language"),
    "declared_encoding": ("src_encoding", "encoding"),
}
OWN_TYPES: dict[str, Any] = {
    **dict.fromkeys(("doc_id", "source", "sha256", "encoding"), str),
    **dict.fromkeys(("language", "doc_type", "time_source"), str | None),
    "size": int,
}
# Spellings of corpora that are not Linguist's; languages.py knows c++ and c#.
_LANGUAGES = {
    "c-sharp": "csharp", "c_sharp": "csharp", "cs": "csharp", "c plus plus": "cpp", "cplusplus": "cpp", "f-sharp": "f#",
    "fsharp": "f#", "golang": "go", "js": "javascript", "ts": "typescript", "py": "python", "python3": "python",
    "rb": "ruby", "rs": "rust", "bash": "shell", "sh": "shell", "objective-c": "objective-c",
}  # fmt: skip
# 2100-01-01; milliseconds since 1970 begin where seconds would be in the year 5138.
_LAST_SECOND = 4_102_444_800
_UNITS = ((10**11, 1), (10**14, 10**3), (10**17, 10**6), (2**63, 10**9))


def resolve(columns: Sequence[str], usable: Mapping[str, bool] | None = None) -> dict[str, str]:
    """Our names to the table's. `usable`: which columns can be text at all; one that cannot is not the content.

    Raises ValueError when there is no content.
    """
    found = {}
    for name, aliases in ALIASES.items():
        present = [a for a in aliases if a in columns]
        if name == "content" and usable is not None:
            present = [a for a in present if usable[a]] or present
        if present:
            found[name] = present[0]
    if "content" not in found:
        raise ValueError(
            f"no column content (or {', '.join(ALIASES['content'][1:])}); it has {', '.join(columns)[:300]}"
        )
    if all(name in columns for name in OWN_TYPES):
        found.update({name: name for name in OWN_TYPES})
    return found


def row_file(values: dict[str, Any], source: str, key: str, index: int, *, own_ids: bool = False) -> RawFile:
    """A row as a file. `values` by our names: `content` bytes, text or null.

    Args:
      source: printable name of the table.
      key: what the table is called before that, for the identity of its rows.
      own_ids: keep `doc_id`, which the caller found unique.
    """
    odd: list[str] = []
    repo = _text(values, "repo", odd) or ""
    path = _text(values, "path", odd) or f"row {index}"
    raw = RawFile(source, printable_text(repo), printable_text(path), index=index, key=(key, path), odd=odd)
    _content(raw, values.get("content"))
    raw.stars = _number(values, "stars", odd)
    raw.commit_time = seconds(values, odd)
    raw.time_source = "column" if raw.commit_time is not None else None
    raw.licence = _licence(values, odd)
    if "doc_id" in values and all(isinstance(values.get(name), kind) for name, kind in OWN_TYPES.items()):
        _own(raw, values, own_ids)
        return raw
    if values.get("language"):
        language = _valid(_text(values, "language", odd) or "")
        raw.language = _LANGUAGES.get(language.lower(), language.lower()) if language else None
    if values.get("declared_encoding"):
        raw.declared_encoding = _encoding(values, odd)
    return raw


def _content(raw: RawFile, content: Any) -> None:
    if isinstance(content, bytes):
        raw.data, raw.size = content, len(content)
    elif isinstance(content, str):
        raw.text = content
        try:
            raw.size = len(content) if content.isascii() else len(content.encode("utf-8"))
        except UnicodeEncodeError:
            raw.text, raw.rule, raw.detail = None, "undecodable", "lone surrogates"
    else:
        raw.rule, raw.detail = "unreadable_row", f"content is {type(content).__name__}, not text"


def _own(raw: RawFile, values: Mapping[str, Any], own_ids: bool) -> None:
    """Columns that this pipeline wrote."""
    own = {name: _valid(values[name]) if isinstance(values[name], str) else values[name] for name in OWN_TYPES}
    # Identity comes from the table it is in: the same source, path and doc_id may occur twice.
    assert raw.key is not None
    raw.doc_id = own["doc_id"] if own_ids else doc_id(*raw.key, raw.index)
    raw.source, raw.stated_sha256, raw.encoding = own["source"], own["sha256"], own["encoding"]
    raw.language, raw.doc_type = own["language"], own["doc_type"]
    raw.time_source = own["time_source"] or raw.time_source
    size = integer(own["size"]) or 0
    raw.size = max(size, 0)


def _valid(text: str) -> str:
    """Text without surrogates; those that mean bytes become escapes of these, as in paths."""
    return printable_text(text) if not text.isascii() else text


def _text(values: Mapping[str, Any], name: str, odd: list[str]) -> str | None:
    """Text of at most MAX_NAME_BYTES; bytes that are not UTF-8 become escapes."""
    value = values.get(name)
    if value is None or value == "":
        return None
    if type(value) is str and len(value) <= MAX_NAME_BYTES:
        return value
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError:
            odd.append(name)
            value = value.decode("utf-8", "surrogateescape")
    elif isinstance(value, Odd) or not isinstance(value, str | int | float):
        odd.append(name)
        if isinstance(value, Odd) or name not in ("repo", "path"):
            return None
        value = _dump(value)
    text = str(value)
    if len(text) > MAX_NAME_BYTES:
        odd.append(name)
        text = text[:MAX_NAME_BYTES]
    return text


def _dump(value: Any) -> str:
    try:
        return json.dumps(value, default=str)[: MAX_NAME_BYTES + 1]
    except (ValueError, RecursionError):
        return ""


class Odd:
    """A cell that could not be read."""


class Seconds(int):
    """A time that is in seconds by its type, never to be taken for milliseconds."""


def _number(values: Mapping[str, Any], name: str, odd: list[str]) -> int | None:
    """An integer of 64 bits."""
    value = values.get(name)
    if value is None:
        return None
    number = integer(value)
    if number is None and value != "" and value == value:
        odd.append(name)
    return number


def integer(value: Any) -> int | None:
    """`value` as an integer of 64 bits, or None."""
    if type(value) is int:
        return value if -(2**63) <= value < 2**63 else None
    if isinstance(value, bool) or (isinstance(value, str | bytes) and len(value) > 40):
        return None
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError, ArithmeticError):
        return None
    return number if -(2**63) <= number < 2**63 else None


def seconds(values: Mapping[str, Any], odd: list[str]) -> int | None:
    """`commit_time` in seconds since 1970 where it can be one: 1970 to 2100. Milliseconds and finer are recognized."""
    value = values.get("commit_time")
    if type(value) is Seconds and 0 <= value < _LAST_SECOND:
        return int(value)
    if type(value) is int and 0 <= value < _LAST_SECOND:
        return value
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    when = _seconds(value)
    if when is None or not 0 <= when < _LAST_SECOND:
        odd.append("commit_time")
        return None
    return when


def _seconds(value: Any) -> int | None:
    if isinstance(value, Seconds):
        return int(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        text = value.strip()
        if (number := integer(text)) is not None and len(text) != 8:  # of eight digits: a day
            return _scaled(number)
        try:
            value = datetime.fromisoformat(f"{text[:-4]}+00:00" if text.endswith(" UTC") else text)
        except ValueError:
            try:
                return _scaled(int(float(text)))
            except (ValueError, OverflowError):
                return None
    if isinstance(value, datetime):
        value = value if value.tzinfo else value.replace(tzinfo=UTC)
        return (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    if isinstance(value, date):
        return (value - date(1970, 1, 1)).days * 86_400
    number = integer(value)
    return None if number is None else _scaled(number)


def _scaled(number: int) -> int:
    """Seconds of a count of seconds, milliseconds, microseconds or nanoseconds, told apart by size."""
    return next((number // per for below, per in _UNITS if number < below), number)


def _licence(values: Mapping[str, Any], odd: list[str]) -> str | None:
    value = values.get("licence")
    if value is None:
        return None
    if isinstance(value, Odd):
        odd.append("licence")
        return None
    if isinstance(value, list | tuple):
        value = ";".join(v if isinstance(v, str) else _plain(v) for v in value[:MAX_NAME_BYTES])
    if not value:
        return None
    text = value if isinstance(value, str) else _plain(value)
    if len(text) > MAX_NAME_BYTES:
        odd.append("licence")
        text = text[:MAX_NAME_BYTES]
    return _valid(text)


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    try:
        return str(value)[: MAX_NAME_BYTES + 1]
    except RecursionError:
        return ""


def _encoding(values: Mapping[str, Any], odd: list[str]) -> str | None:
    """The encoding that the source declares, where Python knows it as one of text."""
    name = _text(values, "declared_encoding", odd)
    if not name:
        return None
    try:
        known = codecs.lookup(name)
        "x".encode(known.name)
    except (LookupError, ValueError, UnicodeError):
        odd.append("declared_encoding")
        return None
    if known.name in _NOT_OF_FILES:
        odd.append("declared_encoding")
        return None
    return known.name


# Encodings of Python that are none of files; `undefined` fails by itself.
_NOT_OF_FILES = frozenset(
    {"idna", "punycode", "unicode-escape", "raw-unicode-escape", "unicode_escape", "raw_unicode_escape"}
)
