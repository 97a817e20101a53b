"""Documents out of Parquet files, JSON lines or a directory of text files, cut into units of work in a fixed order.

The order of documents is a pure function of the input: files by relative path, rows as they stand. A unit is what one
process reads in one go and the grain of a restart; which documents it holds does not depend on the number of processes.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

TEXT_COLUMNS = ("content", "text")
FORMATS = ("auto", "parquet", "jsonl", "files")
_PACKINGS = (".gz", ".zst", ".bz2", ".xz")
_JSONL_SUFFIXES = (
    *(lines + packing for lines in (".jsonl", ".ndjson") for packing in ("", *_PACKINGS)),
    *(".json" + packing for packing in _PACKINGS),
)
_ROWS_PER_READ = 512
_READ_BYTES = 16_000_000
_LONGEST_LINE = 1 << 28
"""A longer line of JSON is rejected before it is held."""
_READ_ERRORS = (OSError, EOFError, pa.ArrowException, zstandard.ZstdError, zlib.error, lzma.LZMAError)


@dataclass(frozen=True)
class Columns:
    """Names of the columns of tables; `text` empty: `content`, else `text`."""

    text: str = ""
    language: str = "language"
    path: str = "path"


@dataclass(frozen=True)
class Part:
    """Rows of one file: row groups [start, stop) of Parquet, bytes of JSON lines, all of a text file."""

    path: str
    start: int
    stop: int


@dataclass(frozen=True)
class Unit:
    parts: tuple[Part, ...]
    num_bytes: int


@dataclass
class Document:
    text: str
    language: str = ""
    path: str = ""


@dataclass(frozen=True)
class Corpus:
    """Input files of one format with the units they are cut into."""

    format: str
    columns: Columns
    units: tuple[Unit, ...]
    # Path, size and modification time of every file: what a restart compares.
    files: tuple[tuple[str, int, int], ...]

    @property
    def num_bytes(self) -> int:
        return sum(unit.num_bytes for unit in self.units)

    def read(self, unit: Unit, skipped: Skipped | None = None) -> Iterator[Document]:
        """Documents of a unit in order. Raises: ValueError naming the file that cannot be read or lacks a column."""
        skipped = Skipped() if skipped is None else skipped
        reader = {"parquet": _read_parquet, "jsonl": _read_jsonl, "files": _read_file}[self.format]
        for part in unit.parts:
            try:
                yield from reader(part, self.columns, skipped)
            except _READ_ERRORS as error:
                if isinstance(error, pa.ArrowCancelled):
                    raise KeyboardInterrupt from None
                raise ValueError(f"{part.path}: cannot be read ({error})") from None

    def documents(self, skipped: Skipped | None = None) -> Iterator[Document]:
        for unit in self.units:
            yield from self.read(unit, skipped)


@dataclass
class Skipped:
    """Documents that were left out, by reason."""

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1


def open_corpus(
    inputs: Sequence[str | os.PathLike[str]],
    *,
    format: str = "auto",
    columns: Columns | None = None,
    unit_bytes: int = 64 << 20,
) -> Corpus:
    """Finds the files of `inputs` (files or directories) and cuts them into units of about `unit_bytes`.

    `auto`: a directory (or list) whose files, JSON and names with a leading `_` or `.` aside, all are Parquet or all JSON
    lines is a table; anything else is a directory of text files.

    Raises: ValueError for a missing or empty input, an unknown format, or a table without the text column.
    """
    if format not in FORMATS:
        raise ValueError(f"format={format!r}: choose one of {', '.join(FORMATS)}")
    columns = columns or Columns()
    files = [file for item in inputs for file in _walk(Path(item))]
    if format == "auto":
        format = _guess_format(files)
    if format != "files":
        suffixes = (".parquet",) if format == "parquet" else _JSONL_SUFFIXES
        files = [file for file in files if file.name.lower().endswith(suffixes)]
    if not files:
        raise ValueError(f"{', '.join(map(str, inputs))}: no {format if format != 'files' else 'text'} files found")
    if format == "parquet":
        columns = _check_columns(files[0], columns)
        parts = [part for file in files for part in _parquet_parts(file, columns)]
    else:
        parts = [part for file in files for part in _byte_parts(file, format, unit_bytes)]
    stats = [(str(file), *_stat(file)) for file in files]
    return Corpus(format, columns, tuple(_group(parts, unit_bytes)), tuple(stats))


def _walk(root: Path) -> Iterator[Path]:
    """Regular files under `root`, by path; links to directories are not followed."""
    if root.is_file():
        yield root
        return
    if not root.is_dir():
        raise ValueError(f"{root}: no such file or directory")

    def fail(error: OSError) -> None:
        raise ValueError(f"{error.filename}: {error.strerror}")

    found = []
    for directory, subdirectories, names in os.walk(root, onerror=fail):
        subdirectories[:] = [name for name in subdirectories if not name.startswith(".")]
        found += [Path(directory, name) for name in names if not name.startswith(".")]
    yield from sorted(path for path in found if path.is_file())


def _guess_format(files: list[Path]) -> str:
    data = [file for file in files if not file.name.startswith("_") and file.suffix != ".json"]
    if data and all(file.name.lower().endswith(".parquet") for file in data):
        return "parquet"
    if data and all(file.name.lower().endswith(_JSONL_SUFFIXES) for file in data):
        return "jsonl"
    return "files"


def _is_plain(path: str) -> bool:
    return not path.lower().endswith(_PACKINGS)


def _stat(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _check_columns(path: Path, columns: Columns) -> Columns:
    """The columns to read, those that the first file lacks left empty."""
    names = _open_parquet(path).schema_arrow.names
    text = columns.text or next((name for name in TEXT_COLUMNS if name in names), "")
    if not text or text not in names:
        wanted = repr(columns.text) if columns.text else " or ".join(map(repr, TEXT_COLUMNS))
        raise ValueError(f"{path}: no column {wanted}; it has {', '.join(names)}. Name the text column")
    present = lambda name: name if name in names else ""  # noqa: E731
    return Columns(text, present(columns.language), present(columns.path))


def _open_parquet(path: Path | str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, memory_map=True)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: cannot be read as Parquet ({error})") from None


def _parquet_parts(path: Path, columns: Columns) -> Iterator[tuple[Part, int]]:
    file = _open_parquet(path)
    names = file.schema_arrow.names
    if columns.text not in names:
        raise ValueError(f"{path}: no column {columns.text!r}, which the first file has; it has {', '.join(names)}")
    column = names.index(columns.text)
    for group in range(file.metadata.num_row_groups):
        yield Part(str(path), group, group + 1), file.metadata.row_group(group).column(column).total_uncompressed_size


def _byte_parts(path: Path, format: str, unit_bytes: int) -> Iterator[tuple[Part, int]]:
    size = path.stat().st_size
    # Compressed lines and text files are read whole.
    step = unit_bytes if _is_plain(path.name) and format == "jsonl" else max(size, 1)
    for start in range(0, max(size, 1), step):
        stop = min(start + step, size)
        yield Part(str(path), start, stop), stop - start


def _group(parts: Sequence[tuple[Part, int]], unit_bytes: int) -> Iterator[Unit]:
    group: list[Part] = []
    total = 0
    for part, size in parts:
        if group and total + size > unit_bytes:
            yield Unit(tuple(group), total)
            group, total = [], 0
        group.append(part)
        total += size
    if group:
        yield Unit(tuple(group), total)


def _read_parquet(part: Part, columns: Columns, skipped: Skipped) -> Iterator[Document]:
    file = _open_parquet(part.path)
    for group in range(part.start, part.stop):
        meta = file.metadata.row_group(group)
        rows = max(1, min(_ROWS_PER_READ, _READ_BYTES * max(meta.num_rows, 1) // max(meta.total_byte_size, 1)))
        names = (columns.text, columns.language, columns.path)
        # Each column by itself, of two of the same name the first; strings stay dictionaries: 2 kB may unfold to 20 GB.
        texts, languages, paths = (_cells(part.path, file, group, name, rows) for name in names)
        for text in texts:
            yield from _document(text, next(languages), next(paths), skipped)


def _cells(path: str, file: pq.ParquetFile, group: int, name: str, rows: int) -> Iterator[Any]:
    """Cells of a column of one row group as text; undecodable bytes stay bytes. Without a name, None for ever."""
    if not name:
        while True:
            yield None
    kind = file.schema_arrow.types[file.schema_arrow.names.index(name)]
    folded = [name] if _is_text(kind.value_type if pa.types.is_dictionary(kind) else kind) else None
    reader = pq.ParquetFile(path, metadata=file.metadata, memory_map=True, read_dictionary=folded)
    for batch in reader.iter_batches(rows, row_groups=[group], columns=[name], use_threads=False):
        column = batch.column(0)
        if folded:
            values = column.dictionary if isinstance(column, pa.DictionaryArray) else column
            wide = pa.types.is_large_string(values.type) or pa.types.is_large_binary(values.type)
            values = values.cast(pa.large_binary() if wide else pa.binary())
            at = column.indices.to_pylist() if isinstance(column, pa.DictionaryArray) else range(len(column))
            yield from (None if i is None else _as_text(values[i].as_py()) for i in at)
            continue
        for cell in column:
            try:
                yield cell.as_py()
            except (ValueError, OverflowError):  # a time out of range, a string inside a list that is not UTF-8
                yield b""


def _is_text(kind: pa.DataType) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary,
             pa.types.is_large_binary, pa.types.is_binary_view)  # fmt: skip
    return any(test(kind) for test in tests)


def _as_text(value: bytes | None) -> Any:
    """Text of a cell; undecodable bytes stay bytes."""
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return b""


def _read_jsonl(part: Part, columns: Columns, skipped: Skipped) -> Iterator[Document]:
    with _open_lines(part) as file:
        if part.start:  # the line that is in progress belongs to the part before
            file.seek(part.start - 1)
            _skip_line(file)
        at = file.tell()
        while at < part.stop or not _is_plain(part.path):
            line = file.readline(_LONGEST_LINE + 1)
            if not line:
                break
            if len(line) > _LONGEST_LINE:
                raise ValueError(f"{part.path}: the line at byte {at} is longer than {_LONGEST_LINE} bytes")
            if line.strip():
                yield from _line(line, at, part, columns, skipped)
            at += len(line)


def _skip_line(file: IO[bytes]) -> None:
    """To the beginning of the next line, however long this one is."""
    while (piece := file.readline(1 << 20)) and not piece.endswith(b"\n"):
        pass


def _line(line: bytes, at: int, part: Part, columns: Columns, skipped: Skipped) -> Iterator[Document]:
    try:
        row = json.loads(line)
    except UnicodeDecodeError:
        skipped.add("not valid UTF-8")
        return
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{part.path}: line at byte {at} is not JSON ({error})") from None
    if not isinstance(row, dict):
        raise ValueError(f"{part.path}: line at byte {at} is not a JSON object")
    name = columns.text or next((n for n in TEXT_COLUMNS if n in row), "")
    if name not in row:
        wanted = repr(columns.text) if columns.text else " or ".join(map(repr, TEXT_COLUMNS))
        raise ValueError(f"{part.path}: line at byte {at} has no field {wanted}; it has {', '.join(row)}")
    yield from _document(row[name], row.get(columns.language), row.get(columns.path), skipped)


def _open_lines(part: Part) -> IO[bytes]:
    lower = part.path.lower()
    if lower.endswith(".gz"):
        return gzip.open(part.path, "rb")  # type: ignore[return-value]
    if lower.endswith(".bz2"):
        return bz2.open(part.path, "rb")  # type: ignore[return-value]
    if lower.endswith(".xz"):
        return lzma.open(part.path, "rb")  # type: ignore[return-value]
    if lower.endswith(".zst"):
        # All frames: compressors that work in parallel write several.
        file = open(part.path, "rb")  # noqa: SIM115  closed with the reader
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True, closefd=True)
        return io.BufferedReader(reader)  # type: ignore[arg-type]
    return open(part.path, "rb")


def _read_file(part: Part, columns: Columns, skipped: Skipped) -> Iterator[Document]:
    del columns
    data = Path(part.path).read_bytes()
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = b""
    yield from _document(text, "", part.path, skipped)


def _document(text: Any, language: Any, path: Any, skipped: Skipped) -> Iterator[Document]:
    if text is None or text == "":
        skipped.add("empty")
    elif not isinstance(text, str) or not _is_unicode(text):
        skipped.add("not valid UTF-8")
    else:
        yield Document(text, _label(language), _label(path))


def _label(value: Any) -> str:
    """Language or path as text; what is none is left out."""
    return value if isinstance(value, str) and _is_unicode(value) else ""


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
