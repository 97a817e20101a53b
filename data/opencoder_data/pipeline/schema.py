"""Arrow schemas that the stages of a pipeline exchange, and its ledger.

A document is a row with the core columns and a pipeline's own. Text travels in `docs` Parquet files only; everything that is
grouped or joined across partitions travels in key tables of some 100 bytes a document.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

CORE = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),  # 32 hex digits of (source, path, index in the source)
        pa.field("source", pa.string(), nullable=False),  # where it was read: input item, archive, table file
        pa.field("path", pa.string(), nullable=False),
        pa.field("content", pa.large_string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),  # bytes as found
        pa.field("sha256", pa.string(), nullable=False),  # hex, of the bytes as found
    ]
)
"""Columns of every document, written by a pipeline's first stage."""

_VERDICT = [
    pa.field("status", pa.string(), nullable=False),  # kept or dropped
    pa.field("stage", pa.string()),  # of the drop
    pa.field("rule", pa.string()),  # one rule; several are joined with ';', the first to fire first
    pa.field("detail", pa.string()),
]


@dataclass(frozen=True)
class DocumentSchema:
    """What the documents of a pipeline hold. Raises ValueError where the parts do not fit."""

    documents: pa.Schema = CORE
    """The core columns and the pipeline's own, in the order in which they are written."""
    identity: tuple[str, ...] = ("doc_id", "source", "path", "size")
    """Columns that the ledger tells of every document, kept or dropped."""
    labels: tuple[str, ...] = ()
    """Those of `identity` that later stages may settle: rows of dropped documents carry them too."""
    summary_by: str = ""
    """The label by which the summary counts documents and bytes, if any; its plural (an s) is the key in the summary."""

    def __post_init__(self) -> None:
        wrong = [
            f.name for f in CORE if f.name not in self.documents.names or self.documents.field(f.name).type != f.type
        ]
        if wrong:
            raise ValueError(
                f"the documents of a pipeline have the core column {wrong[0]} ({CORE.field(wrong[0]).type})"
            )
        missing = [n for n in ("doc_id", "source", "path", "size") if n not in self.identity]
        missing += [n for n in self.identity if n not in self.documents.names]
        if missing:
            raise ValueError(f"identity of documents: {missing[0]} must be one of its columns and of the documents'")
        strange = {*self.labels, *([self.summary_by] if self.summary_by else [])} - set(self.identity)
        if strange:
            raise ValueError(f"label {min(strange)} is not a column of the identity")

    @property
    def ledger(self) -> pa.Schema:
        return pa.schema([*(self.documents.field(name) for name in self.identity), *_VERDICT])

    @property
    def drops(self) -> pa.Schema:
        """What a stage after the first writes about the documents it drops."""
        ledger = self.ledger
        return pa.schema([ledger.field(name) for name in ("doc_id", *self.labels, "rule", "detail")])


def doc_id(source: str, path: str, index: int) -> str:
    """Identity of one input document: a function of its place in the input, not of partition or order."""
    key = f"{source}\0{path}\0{index}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(key, digest_size=16).hexdigest()


def table_of(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table; absent keys are null."""
    columns = [pa.array([row.get(f.name) for row in rows], type=f.type) for f in schema]
    return pa.Table.from_arrays(columns, schema=schema)
