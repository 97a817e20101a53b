"""Parquet and JSONL files in the column conventions of The Stack, The Stack v2, RefineCode and this pipeline."""

import bz2
import gzip
import io
import json
import lzma
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from opencoder_data.refinecode import storage
from opencoder_data.refinecode.ingest.raw_file import RawFile, one_line, printable_path

# First present wins.
ALIASES: dict[str, tuple[str, ...]] = {
    "content": ("content", "text", "code"),
    "repo": ("repo", "repo_name", "max_stars_repo_name", "repository", "repository_name"),
    "path": ("path", "file_path", "max_stars_repo_path", "filename", "file_name", "url"),
    "stars": ("stars", "star_events_count", "max_stars_count", "stargazers_count"),
    "commit_time": ("commit_time", "committer_date", "revision_date", "max_stars_repo_stars_event_max_datetime"),
    "licence": ("licence", "license", "detected_licenses", "max_stars_repo_licenses", "gha_license_id", "licenses"),
}
OWN_TYPES: dict[str, Any] = {
    **dict.fromkeys(("doc_id", "source", "sha256", "encoding"), str),
    **dict.fromkeys(("language", "doc_type", "time_source"), str | None),
    "size": int,
}
PARQUET_SUFFIXES = (".parquet",)
JSONL_SUFFIXES = tuple(s + c for s in (".jsonl", ".ndjson") for c in ("", ".gz", ".zst", ".bz2", ".xz"))


def _resolve(columns: Any) -> dict[str, str]:
    found = {}
    for name, aliases in ALIASES.items():
        column = next((a for a in aliases if a in columns), None)
        if column:
            found[name] = column
    if "content" not in found:
        raise ValueError(f"no column content (or {', '.join(ALIASES['content'][1:])}); it has {', '.join(columns)}")
    if all(name in columns for name in OWN_TYPES):
        found.update({name: name for name in OWN_TYPES})
    return found


def row_groups(url: str) -> list[tuple[int, int]]:
    """(rows, uncompressed bytes) of each row group."""
    with storage.open_read(url) as handle:
        meta = pq.ParquetFile(handle).metadata
    return [(meta.row_group(g).num_rows, meta.row_group(g).total_byte_size) for g in range(meta.num_row_groups)]


def read_parquet(url: str, source: str, groups: tuple[int, int] | None, start: int) -> Iterator[RawFile]:
    """Rows of row groups [first, last); `start` is the index of the first row in the file. A damaged row group is refused
    by itself."""
    try:
        with storage.open_read(url) as handle:
            parquet = pq.ParquetFile(handle)
            columns = _resolve(parquet.schema_arrow.names)
            wanted = sorted(set(columns.values()))
            index = start
            for group in range(*groups) if groups else range(parquet.num_row_groups):
                after = index + parquet.metadata.row_group(group).num_rows
                try:
                    for batch in parquet.iter_batches(batch_size=512, row_groups=[group], columns=wanted):
                        for row in batch.to_pylist():
                            yield _row(row, columns, source, index)
                            index += 1
                except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                    detail = f"{after - index} rows from row {index}: {one_line(error)}"
                    yield RawFile(source, "", "", rule="unreadable_table", detail=detail, index=-1 - index)
                index = after
    except (pa.ArrowException, OSError, ValueError) as error:
        yield RawFile(source, "", "", rule="unreadable_table", detail=one_line(error), index=-1 - start)


def read_jsonl(url: str, source: str) -> Iterator[RawFile]:
    """One JSON object a line, plain or compressed (gz, zst, bz2, xz); a bad line is refused by itself."""
    try:
        with storage.open_read(url) as handle, _decompressed(handle, url) as stream:
            for index, line in enumerate(stream):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise ValueError("not an object")
                    columns = _resolve(row.keys())
                except (ValueError, RecursionError) as error:
                    yield RawFile(source, "", f"line {index + 1}", size=len(line), rule="unreadable_row",
                                  detail=one_line(error), index=index)  # fmt: skip
                    continue
                yield _row(row, columns, source, index)
    except (OSError, EOFError, lzma.LZMAError, zstandard.ZstdError, ValueError) as error:
        yield RawFile(source, "", "", rule="unreadable_table", detail=one_line(error), index=-1)


def _decompressed(handle: Any, url: str) -> Any:
    if url.endswith(".gz"):
        return gzip.open(handle)
    if url.endswith(".bz2"):
        return bz2.open(handle)
    if url.endswith(".xz"):
        return lzma.open(handle)
    if url.endswith(".zst"):
        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(handle))  # pyright: ignore[reportArgumentType]
    return io.BufferedReader(handle)


def _row(row: Mapping[str, Any], columns: Mapping[str, str], source: str, index: int) -> RawFile:
    values: dict[str, Any] = {name: row.get(column) for name, column in columns.items()}
    repo, path = str(values.get("repo") or ""), str(values.get("path") or f"row {index}")
    raw = RawFile(source, printable_path(_valid(repo)), printable_path(_valid(path)), index=index)
    content = values["content"]
    if isinstance(content, bytes):
        raw.data, raw.size = content, len(content)
    elif isinstance(content, str):
        raw.text = content
        try:
            raw.size = len(content.encode("utf-8"))
        except UnicodeEncodeError:
            raw.text, raw.rule, raw.detail = None, "undecodable", "lone surrogates"
    else:
        raw.rule, raw.detail = "unreadable_row", f"content is {type(content).__name__}, not text"
    raw.stars = _integer(values.get("stars"))
    raw.commit_time = _seconds(values.get("commit_time"))
    raw.time_source = "column" if raw.commit_time is not None else None
    licence = values.get("licence")
    if isinstance(licence, list | tuple):
        licence = ";".join(str(x) for x in licence)
    raw.licence = _valid(str(licence)) if licence else None
    if "doc_id" in columns and all(isinstance(values[name], kind) for name, kind in OWN_TYPES.items()):
        own = {name: _valid(values[name]) if isinstance(values[name], str) else values[name] for name in OWN_TYPES}
        raw.source, raw.doc_id, raw.sha256, raw.encoding = (own[k] for k in ("source", "doc_id", "sha256", "encoding"))
        raw.language, raw.doc_type = own["language"], own["doc_type"]
        raw.time_source = own["time_source"] or raw.time_source
        raw.size = _integer(own["size"]) or 0
    return raw


def _valid(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _integer(value: Any) -> int | None:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if -(2**63) <= number < 2**63 else None


def _seconds(value: Any) -> int | None:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return _integer(value)
    if isinstance(value, datetime):
        return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
    if isinstance(value, date):
        return int(datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp())
    return _integer(value)
