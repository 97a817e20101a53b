"""Files of a run: whole or absent, on local disks and on any fsspec URL (``s3://``, ``gs://``).

A writer fills a temporary file and commits it by rename (local) or by one upload (object stores), so a process killed
at any moment leaves no half-written file under a final name.
"""

import contextlib
import json
import os
import posixpath
import tempfile
from collections.abc import Iterator
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

_TEMPORARY = ".tmp-"


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """File system and path within it; ValueError when the protocol is unknown or its package is missing."""
    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ValueError(f"cannot open {url}: {error}") from None


def join(*parts: str) -> str:
    return posixpath.join(*parts)


def exists(url: str) -> bool:
    fs, path = filesystem(url)
    return fs.exists(path)


def size(url: str) -> int:
    """Bytes of a file; 0 where the file system does not say."""
    fs, path = filesystem(url)
    return int(fs.size(path) or 0)


def is_below(url: str, directory: str) -> bool:
    """Whether `url` is the directory or is in it."""
    (fs, path), (directory_fs, directory_path) = filesystem(url), filesystem(directory)
    if isinstance(fs, LocalFileSystem) and isinstance(directory_fs, LocalFileSystem):
        path, directory_path = os.path.realpath(path), os.path.realpath(directory_path)
    return fs == directory_fs and f"{path}/".startswith(f"{directory_path.rstrip('/')}/")


def listdir(url: str) -> list[str]:
    """Names in a directory, sorted; empty when there is none."""
    fs, path = filesystem(url)
    try:
        names = [posixpath.basename(str(p).rstrip("/")) for p in fs.ls(path, detail=False)]
    except FileNotFoundError:
        return []
    return sorted(n for n in names if n)


def remove(url: str) -> None:
    """Delete a file or a whole directory, if present."""
    fs, path = filesystem(url)
    if fs.exists(path):
        fs.rm(path, recursive=True)


@contextlib.contextmanager
def open_read(url: str) -> Iterator[Any]:
    fs, path = filesystem(url)
    with fs.open(path, "rb") as handle:
        yield handle


@contextlib.contextmanager
def replacing(url: str) -> Iterator[str]:
    """A local path to fill; it takes the place of `url` when the block ends without an exception."""
    fs, path = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        directory, name = os.path.split(path)
        os.makedirs(directory, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f"{_TEMPORARY}{name}-", dir=directory)
    else:
        handle, temporary = tempfile.mkstemp(prefix="refinecode-")
    os.close(handle)
    try:
        yield temporary
        if isinstance(fs, LocalFileSystem):
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        else:
            fs.makedirs(posixpath.dirname(path), exist_ok=True)
            fs.put_file(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def remove_temporaries(url: str) -> None:
    """Delete what killed processes left under temporary names in this directory and below it."""
    fs, path = filesystem(url)
    if not isinstance(fs, LocalFileSystem):
        return  # written to the machine's own temporary directory
    for directory, _, names in os.walk(path):
        for name in names:
            if name.startswith(_TEMPORARY):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(directory, name))


def write_text(url: str, text: str) -> None:
    with replacing(url) as path, open(path, "w", encoding="utf-8") as handle:
        handle.write(text)


def write_json(url: str, value: Any) -> None:
    write_text(url, json.dumps(value, indent=1, sort_keys=False) + "\n")


def read_json(url: str) -> Any:
    with open_read(url) as handle:
        return json.loads(handle.read())


def write_table(url: str, table: pa.Table, level: int = 1) -> None:
    # An open file, not its name: Arrow takes names in UTF-8 alone.
    with replacing(url) as path, open(path, "wb") as file:
        pq.write_table(table, file, compression="zstd", compression_level=level)


def read_table(url: str, columns: list[str] | None = None) -> pa.Table:
    with open_read(url) as handle:
        return pq.ParquetFile(handle).read(columns=columns)


class ParquetAppender:
    """Parquet file written in row groups of about `group_bytes` (of the column `measure`, or of the whole table)."""

    def __init__(self, path: str, schema: pa.Schema, group_bytes: float, level: int = 1):
        self.schema, self.group_bytes = schema, group_bytes
        self._file = open(path, "wb")  # noqa: SIM115  Arrow takes names in UTF-8 alone
        self._writer = pq.ParquetWriter(self._file, schema, compression="zstd", compression_level=level)
        self._pending: list[pa.Table] = []
        self._bytes = 0
        self.rows = 0

    def append(self, table: pa.Table) -> None:
        if table.num_rows:
            self._pending.append(table.cast(self.schema))
            self._bytes += table.nbytes
            self.rows += table.num_rows
        if self._bytes >= self.group_bytes:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            table = pa.concat_tables(self._pending)
            self._writer.write_table(table, row_group_size=max(table.num_rows, 1))
            self._pending, self._bytes = [], 0

    def close(self) -> None:
        self._flush()
        self._writer.close()
        self._file.close()


def iter_row_groups(url: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The file's row groups, one in memory at a time."""
    with open_read(url) as handle:
        parquet = pq.ParquetFile(handle)
        for group in range(parquet.num_row_groups):
            yield parquet.read_row_group(group, columns=columns)
