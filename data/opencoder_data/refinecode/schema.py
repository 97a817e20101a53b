"""What RefineCode's documents hold: one document is one file."""

import pyarrow as pa

from opencoder_data.pipeline.schema import DocumentSchema

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
        pa.field("size", pa.int64(), nullable=False),  # bytes of the raw file, not what an archive declares
        pa.field("sha256", pa.string(), nullable=False),  # hex, of the raw file, or of the text where that is not known
        pa.field("stars", pa.int64()),
        pa.field("commit_time", pa.int64()),  # seconds since 1970, UTC
        pa.field("time_source", pa.string()),  # commit, archive (entry's mtime) or column
        pa.field("licence", pa.string()),
        pa.field("encoding", pa.string(), nullable=False),
    ]
)

SCHEMA = DocumentSchema(
    DOCUMENTS,
    identity=("doc_id", "source", "repo", "path", "size", "language", "doc_type"),
    labels=("language", "doc_type"),
    summary_by="language",
)
LEDGER = SCHEMA.ledger
