"""Arrow schemas that the stages exchange, and the ledger.

A document is one file. Text travels in `DOCUMENTS` Parquet files only; everything that is grouped or joined across
partitions travels in key tables of some 100 bytes a file.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

DOCUMENTS = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),  # 32 hex digits of (source, path, index in the source)
        pa.field("source", pa.string(), nullable=False),  # input item: directory, archive, repository or table file
        pa.field("repo", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field(
            "language", pa.string()
        ),  # lower-case Linguist name, `cpp` and `csharp` as in the release; null before stage 2
        pa.field("doc_type", pa.string()),  # code, data or text; null before stage 2
        pa.field("content", pa.large_string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),  # bytes of the raw file
        pa.field("sha256", pa.string(), nullable=False),  # hex, of the raw file, or of the text where that is not known
        pa.field("stars", pa.int64()),
        pa.field("commit_time", pa.int64()),  # seconds since 1970, UTC
        pa.field("time_source", pa.string()),  # commit, archive (entry's mtime) or column
        pa.field("licence", pa.string()),
        pa.field("encoding", pa.string(), nullable=False),
    ]
)

LEDGER = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("repo", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),  # bytes found, not what an archive declares
        pa.field("language", pa.string()),
        pa.field("doc_type", pa.string()),
        pa.field("status", pa.string(), nullable=False),  # kept or dropped
        pa.field("stage", pa.string()),  # of the drop
        pa.field("rule", pa.string()),  # one rule; several are joined with ';', the first to fire first
        pa.field("detail", pa.string()),
    ]
)

DROPS = pa.schema([LEDGER.field(name) for name in ("doc_id", "language", "doc_type", "rule", "detail")])
"""What a stage after ingest writes about the documents it drops."""


def doc_id(source: str, path: str, index: int) -> str:
    """Identity of one input file: a function of where it is in the input, not of partition or order."""
    key = f"{source}\0{path}\0{index}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(key, digest_size=16).hexdigest()


def table_of(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table; absent keys are null."""
    columns = [pa.array([row.get(f.name) for row in rows], type=f.type) for f in schema]
    return pa.Table.from_arrays(columns, schema=schema)
