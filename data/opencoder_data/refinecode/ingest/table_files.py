"""Parquet, Arrow and JSONL files in the column conventions of The Stack, The Stack v2, RefineCode and this pipeline."""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq

from opencoder_data.pipeline import storage
from opencoder_data.refinecode.config import IngestConfig
from opencoder_data.refinecode.ingest.bounds import PIECE, Budget, LimitError
from opencoder_data.refinecode.ingest.columns import OWN_TYPES, resolve, row_file
from opencoder_data.refinecode.ingest.raw_file import RawFile, one_line
from opencoder_data.refinecode.ingest.streams import ERRORS, decompressed
from opencoder_data.refinecode.ingest.table_cells import (
    UNFOLDED_BYTES,
    Invalid,
    TooLong,
    as_binary,
    can_be_text,
    cells_or_odd,
    stop_if_cancelled,
    text_cells,
)

PARQUET_SUFFIXES = (".parquet",)
ARROW_SUFFIXES = (".arrow", ".feather", ".ipc", ".arrows")
JSONL_SUFFIXES = (
    *(s + c for s in (".jsonl", ".ndjson") for c in ("", ".gz", ".zst", ".bz2", ".xz")),
    *(".json" + c for c in (".gz", ".zst", ".bz2", ".xz")),
)
SUFFIXES = PARQUET_SUFFIXES + ARROW_SUFFIXES + JSONL_SUFFIXES
_ROWS = 512
_READ_BYTES = 16_000_000
_FOLDED_ROWS = 32
"""A column stays folded where so few rows may be too large."""
_LISTED_ROWS = 1_000_000
"""A rejected table has one row in the ledger for each of its rows, up to this many: a corrupt footer may say 2^60."""


class _Rejected(Exception):
    """The rest of a table or row group cannot be read."""


@contextmanager
def _open(url: str) -> Iterator[pq.ParquetFile]:
    with storage.open_read(url) as handle:
        # No thread pool and no read-ahead: memory stays with one page of each column.
        yield pq.ParquetFile(handle, pre_buffer=False)


def row_groups(url: str) -> list[tuple[int, int]]:
    """(rows, uncompressed bytes) of each row group."""
    with _open(url) as parquet:
        meta = parquet.metadata
        return [(meta.row_group(g).num_rows, meta.row_group(g).total_byte_size) for g in range(meta.num_row_groups)]


def own_ids(urls: Sequence[str], rows_at_once: int = 8_000_000) -> bool:
    """Whether these Parquet files are documents of this pipeline whose ids differ in all of them together.

    Ids are compared by 64-bit hash, `rows_at_once` at a time; a collision merely gives the rows new ids.
    """
    import numpy as np
    import xxhash

    total = 0
    try:
        for url in urls:
            with _open(url) as parquet:
                names = parquet.schema_arrow.names
                if not all(names.count(name) == 1 for name in OWN_TYPES):
                    return False
                total += parquet.metadata.num_rows
        passes = max(1, -(-total // rows_at_once))
        for number in range(passes):
            seen = [np.empty(0, np.uint64)]
            for url in urls:
                with _open(url) as parquet:
                    for batch in parquet.iter_batches(65_536, columns=["doc_id"], use_threads=False):
                        hashes = [
                            xxhash.xxh3_64_intdigest(str(v).encode("utf-8", "replace"))
                            for v in batch.column(0).to_pylist()
                        ]
                        found = np.array(hashes, np.uint64)
                        seen.append(found[found % passes == number])
            hashes = np.concatenate(seen)
            if len(np.unique(hashes)) != len(hashes):
                return False
    except (pa.ArrowException, OSError, ValueError, OverflowError):
        return False  # what is wrong with a file is told when it is read
    return True


def _columns(schema: pa.Schema) -> dict[str, str]:
    usable: dict[str, bool] = {}
    for column in schema:
        usable.setdefault(column.name, can_be_text(column.type))
    return resolve(schema.names, usable)


def read_parquet(
    url: str, source: str, key: str, groups: tuple[int, int] | None, start: int, config: IngestConfig, own: bool = False
) -> Iterator[RawFile]:
    """Rows of row groups [first, last); `start` is the index of the first row in the file.

    Content is read apart from the other columns, and each of those apart: what one of them cannot give is null. Where the
    content of a row group ends in corruption, the rows left are rejected one by one.
    """
    budget = Budget(config, storage.size(url))
    index = start
    try:
        table = _Table(url)
    except (*ERRORS, pa.ArrowException) as error:
        stop_if_cancelled(error)
        yield _rejection(source, one_line(error), -1 - start)
        return
    with table:
        yield from _groups(table, source, key, groups, index, budget, own)


class _Table:
    """A Parquet file with one reader for each column, so that corruption in one does not touch another."""

    def __init__(self, url: str):
        self.url, self._stack = url, ExitStack()
        self._readers: dict[tuple[str, bool], pq.ParquetFile] = {}
        with _open(url) as parquet:
            self.metadata, self.schema = parquet.metadata, parquet.schema_arrow
        self.rows = [self.metadata.row_group(g).num_rows for g in range(self.metadata.num_row_groups)]

    def __enter__(self) -> "_Table":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def arrays(self, group: int, column: str, rows: int, most: int) -> Iterator[pa.Array]:
        """One column of a row group in pieces of at most `rows` rows and `most` bytes unfolded from a dictionary."""
        place = self.schema.names.index(column)
        folded = False
        if can_be_text(self.schema.types[place]) and self._has_dictionary(group, place):
            longest = self._longest_entry(group, column)
            folded = longest * _FOLDED_ROWS > most
            if not folded:
                rows = max(1, min(rows, most // max(longest, 1)))
        yield from self._read(group, column, rows, folded)

    def _has_dictionary(self, group: int, place: int) -> bool:
        """Whether strings may be stored as references into a dictionary: 2 kB of these may unfold to 20 GB."""
        if self.metadata.num_columns != len(self.schema):
            return True  # nested columns: places differ
        return bool(self.metadata.row_group(group).column(place).has_dictionary_page)

    def _longest_entry(self, group: int, column: str) -> int:
        """Bytes of the longest text in the dictionary of a column, of which there is one in a row group."""
        first = next(self._read(group, column, 1, True), None)
        entries: pa.Array | None = getattr(first, "dictionary", None)
        if entries is None or not len(entries):
            return 0
        lengths = pc.call_function("binary_length", [as_binary(entries)])
        return pc.call_function("max", [lengths]).as_py() or 0

    def _read(self, group: int, column: str, rows: int, folded: bool) -> Iterator[pa.Array]:
        """`folded`: strings stay dictionaries where they are stored so, and every piece brings the whole dictionary."""
        if (column, folded) not in self._readers:
            handle = self._stack.enter_context(storage.open_read(self.url))
            self._readers[column, folded] = pq.ParquetFile(
                handle,
                metadata=self.metadata,
                pre_buffer=False,
                buffer_size=PIECE,
                read_dictionary=[column] if folded else None,
            )
        reader = self._readers[column, folded]
        for batch in reader.iter_batches(rows, row_groups=[group], columns=[column], use_threads=False):
            yield batch.column(0)


def _groups(
    table: _Table, source: str, key: str, groups: tuple[int, int] | None, index: int, budget: Budget, own: bool
) -> Iterator[RawFile]:
    rows = table.rows
    numbers = range(*groups) if groups else range(len(rows))
    left = sum(rows[number] for number in numbers)
    try:
        for number in numbers:
            after = index + rows[number]
            try:
                for raw in _group(table, source, key, number, index, budget, own):
                    yield raw
                    index += 1
                    left -= 1
                if index < after:
                    raise _Rejected("the row group ends before its declared number of rows")
            except (_Rejected, pa.ArrowException, OSError, UnicodeDecodeError) as error:
                stop_if_cancelled(error)
                count = after - index
                yield from rejected_rows(source, key, index, count, f"{count} rows from row {index}: {one_line(error)}")
                left -= count
            index = after
    except (LimitError, MemoryError) as error:
        rule = "archive_limit" if isinstance(error, LimitError) else "memory_limit"
        detail = f"{left} rows from row {index}: {one_line(error)}"
        yield from rejected_rows(source, key, index, left, detail, rule)
    except (pa.ArrowException, OSError, ValueError) as error:
        stop_if_cancelled(error)
        yield from rejected_rows(source, key, index, left, one_line(error))


def _rejection(source: str, detail: str, index: int, rule: str = "unreadable_table") -> RawFile:
    return RawFile(source, "", "", rule=rule, detail=detail, index=index)


def rejected_rows(
    source: str, key: str, first: int, count: int, detail: str, rule: str = "unreadable_table"
) -> Iterator[RawFile]:
    """A rejection for each of `count` rows, one where there are none or too many to list."""
    if not 0 < count <= _LISTED_ROWS:
        yield _rejection(source, detail, -1 - first, rule)
        return
    for index in range(first, first + count):
        yield RawFile(source, "", f"row {index}", rule=rule, detail=detail, index=index, key=(key, f"row {index}"))


def _group(
    table: _Table, source: str, key: str, group: int, start: int, budget: Budget, own: bool
) -> Iterator[RawFile]:
    columns = _columns(table.schema)
    meta = table.metadata.row_group(group)
    # Rows at a time, so that texts of the usual size make a few MB.
    rows = max(1, min(_ROWS, _READ_BYTES * max(meta.num_rows, 1) // max(meta.total_byte_size, 1)))
    content = table.arrays(group, columns.pop("content"), rows, UNFOLDED_BYTES)
    others = {
        name: cells_or_odd(table.arrays(group, column, rows, UNFOLDED_BYTES // 8)) for name, column in columns.items()
    }
    cells = (cell for array in content for cell in text_cells(array, budget))
    names = ("content", *others)
    for index, values in enumerate(zip(cells, *others.values(), strict=False), start):
        yield _row(dict(zip(names, values, strict=True)), source, key, index, own)


def _row(values: dict[str, Any], source: str, key: str, index: int, own: bool) -> RawFile:
    content = values["content"]
    if isinstance(content, TooLong | Invalid):
        values["content"] = ""
    raw = row_file(values, source, key, index, own_ids=own)
    if isinstance(content, TooLong):
        raw.text, raw.size, raw.rule = None, content.size, "size_limit"
        raw.detail = f"{content.size} bytes > {content.limit}"
    elif isinstance(content, Invalid):
        raw.text, raw.size, raw.rule, raw.detail = None, content.size, "undecodable", "a string that is not UTF-8"
    return raw


def read_arrow(url: str, source: str, key: str, config: IngestConfig) -> Iterator[RawFile]:
    """Rows of an Arrow file or stream (also Feather 2); corruption ends the table."""
    budget = Budget(config, storage.size(url))
    index = 0
    try:
        with storage.open_read(url) as handle:
            for batch in _batches(handle):
                columns = _columns(batch.schema)
                position = {name: batch.schema.names.index(column) for name, column in columns.items()}
                content = text_cells(batch.column(position.pop("content")), budget)
                cells = {name: cells_or_odd([batch.column(at)]) for name, at in position.items()}
                for value in content:
                    values = {name: next(one) for name, one in cells.items()}
                    yield _row({**values, "content": value}, source, key, index, False)
                    index += 1
    except LimitError as error:
        yield _rejection(source, f"from row {index}: {error}", -1 - index, "archive_limit")
    except (*ERRORS, pa.ArrowException) as error:
        stop_if_cancelled(error)
        yield _rejection(source, f"from row {index}: {one_line(error)}", -1 - index)


def _batches(handle: Any) -> Iterator[pa.RecordBatch]:
    magic = handle.read(6)
    handle.seek(0)
    if magic == b"ARROW1":
        reader = pyarrow.ipc.open_file(handle)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)
    else:
        if magic[:4] == b"FEA1":
            raise ValueError("Feather version 1; write it again as version 2")
        yield from pyarrow.ipc.open_stream(handle)


def read_jsonl(url: str, source: str, key: str, config: IngestConfig) -> Iterator[RawFile]:
    """One JSON object a line, plain or compressed (gz, zst, bz2, xz); a bad line is rejected by itself."""
    budget = Budget(config, storage.size(url))
    try:
        with storage.open_read(url) as handle:
            stream = decompressed(handle)
            for index, (line, size) in enumerate(_lines(stream, budget)):
                if line is None:
                    detail = f"line of {size} bytes > {budget.line}"
                    yield _bad_line(source, key, index, size, detail, "size_limit")
                elif line.strip():
                    budget.rows()
                    yield from _line(line, source, key, index)
    except LimitError as error:
        yield _rejection(source, str(error), -1, "archive_limit")
    except ERRORS as error:
        yield _rejection(source, one_line(error), -1)


def _lines(stream: io.BufferedReader, budget: Budget) -> Iterator[tuple[bytes | None, int]]:
    """(line, its bytes); None for one that is longer than a line may be."""
    while line := stream.readline(budget.line + 1):
        budget.unpacked(len(line))
        if len(line) <= budget.line:
            yield line, len(line)
            continue
        size, last = len(line), line[-1:]
        del line
        while last != b"\n" and (piece := stream.readline(PIECE)):
            budget.unpacked(len(piece))
            size, last = size + len(piece), piece[-1:]
        yield None, size


def _bad_line(source: str, key: str, index: int, size: int, detail: str, rule: str = "unreadable_row") -> RawFile:
    name = f"line {index + 1}"
    return RawFile(source, "", name, size=size, rule=rule, detail=detail, index=index, key=(key, name))


def _line(line: bytes, source: str, key: str, index: int) -> Iterator[RawFile]:
    try:
        yield _object(line, source, key, index)
    except (ValueError, RecursionError, MemoryError) as error:
        pieces = [piece for piece in line.split(b"\r") if piece.strip()]
        if len(pieces) < 2:
            yield _bad_line(source, key, index, len(line), one_line(error))
            return
        # Lines ended by CR alone: JSON has none inside. Each piece needs a key of its own.
        for number, piece in enumerate(pieces):
            inner = f"{key}\r{number}"
            try:
                yield _object(piece, source, inner, index)
            except (ValueError, RecursionError, MemoryError) as error:
                yield _bad_line(source, inner, index, len(piece), one_line(error))


def _object(line: bytes, source: str, key: str, index: int) -> RawFile:
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError("not an object")
    usable: Mapping[str, bool] = {name: isinstance(value, str) for name, value in row.items()}
    columns = resolve(list(row), usable)
    return row_file({name: row[column] for name, column in columns.items()}, source, key, index)


__all__ = [
    "ARROW_SUFFIXES", "JSONL_SUFFIXES", "PARQUET_SUFFIXES", "SUFFIXES", "own_ids", "read_arrow", "read_jsonl", "read_parquet",
    "rejected_rows", "row_groups",
]  # fmt: skip
