"""Stage 5: copyright headers removed, personal data and secrets replaced by placeholders. Idempotent."""

from collections import Counter
from typing import Any

import pyarrow as pa

from opencoder_data.refinecode.config import TransformConfig
from opencoder_data.refinecode.engine import Executor
from opencoder_data.refinecode.run import Run, map_documents, run_step
from opencoder_data.refinecode.transform.header import remove_header
from opencoder_data.refinecode.transform.personal import remove_personal
from opencoder_data.refinecode.transform.tree_parser import tree_parser

STAGE = "transform"


def run(run: Run, executor: Executor) -> dict[str, float]:
    return run_step(run, executor, STAGE, "docs", transform_partition, range(run.num_parts()), "transform")


def transform_partition(run: Run, part: int) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    try:
        written = map_documents(run, STAGE, part, lambda batch: transform(batch, run.config.transform, counts))
    finally:
        tree_parser().close()  # its process and grammars are of no use to other stages
    return {**written, "changes": dict(sorted(counts.items()))}


def transform_text(text: str, language: str | None, path: str, config: TransformConfig) -> tuple[str, dict[str, int]]:
    """Cleaned text and what was done to it: `header_files`, `header_chars` and placeholders by name."""
    counts: dict[str, int] = {}
    if config.headers:
        cleaned = remove_header(text, language)
        if cleaned != text:
            counts = {"header_files": 1, "header_chars": len(text) - len(cleaned)}
        text = cleaned
    if config.personal:
        text, found = remove_personal(text, path, language)
        counts.update(found)
    return text, counts


def transform(batch: pa.Table, config: TransformConfig, counts: Counter[str]) -> tuple[pa.Table, list[dict[str, Any]]]:
    """(documents kept, rows dropped) of a batch; `counts` is added to. A file that was only a notice is dropped."""
    contents: list[str] = []
    keep: list[bool] = []
    drops: list[dict[str, Any]] = []
    column = batch.column("content")
    names = ("doc_id", "path", "language", "doc_type")
    for row, (doc_id, path, language, doc_type) in enumerate(
        zip(*(batch.column(name).to_pylist() for name in names), strict=True)
    ):
        text, found = transform_text(column[row].as_py(), language, path, config)
        counts.update(found)
        empty = not text.strip()
        if empty:
            drops.append({"doc_id": doc_id, "language": language, "doc_type": doc_type, "rule": "only_a_notice"})
        keep.append(not empty)
        contents.append(text)
    index = batch.schema.get_field_index("content")
    batch = batch.set_column(index, batch.schema.field(index), pa.array(contents, pa.large_string()))
    return batch.filter(pa.array(keep, pa.bool_())), drops
