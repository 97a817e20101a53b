"""Stage 2: size limit, language and document type, notebooks as structured cells."""

from typing import Any

import pyarrow as pa

from opencoder_data.refinecode.config import PreprocessConfig
from opencoder_data.refinecode.engine import Executor
from opencoder_data.refinecode.languages import NOTEBOOK, detect
from opencoder_data.refinecode.notebook import NotebookError, structured_cells
from opencoder_data.refinecode.run import Run, map_documents, run_step

STAGE = "preprocess"


def run(run: Run, executor: Executor) -> dict[str, float]:
    return run_step(run, executor, STAGE, "docs", preprocess_partition, range(run.num_parts()), "pre-process")


def preprocess_partition(run: Run, part: int) -> dict[str, Any]:
    return map_documents(run, STAGE, part, lambda batch: preprocess(batch, run.config.preprocess))


def preprocess(batch: pa.Table, config: PreprocessConfig) -> tuple[pa.Table, list[dict[str, Any]]]:
    """(documents kept, rows dropped) of a batch with the columns of `schema.DOCUMENTS`."""
    keep: list[int] = []
    languages: list[str] = []
    types: list[str] = []
    contents: list[Any] = []
    drops: list[dict[str, Any]] = []
    columns = [batch.column(name).to_pylist() for name in ("doc_id", "path", "size", "language")]
    content_column = batch.column("content")
    for row, (doc_id, path, size, hint) in enumerate(zip(*columns, strict=True)):
        if size > config.max_file_bytes:
            drops.append({"doc_id": doc_id, "rule": "size_limit", "detail": f"{size} bytes > {config.max_file_bytes}"})
            continue
        content: str = content_column[row].as_py()
        found = detect(path, content, heuristics=config.heuristics, notebooks=config.notebooks, hint=hint)
        drop = {"doc_id": doc_id, "language": found.name, "doc_type": found.doc_type}
        if found.rule:
            drops.append({**drop, "rule": found.rule})
            continue
        if config.languages and found.name not in config.languages:
            drops.append({**drop, "rule": "language_not_selected"})
            continue
        if found.doc_type not in config.doc_types:
            drops.append({**drop, "rule": "type_not_selected"})
            continue
        if found.name == NOTEBOOK:
            try:
                content = structured_cells(content)
            except NotebookError as error:
                drops.append({**drop, "rule": "unreadable_notebook", "detail": str(error)})
                continue
        assert found.name is not None and found.doc_type is not None
        keep.append(row)
        languages.append(found.name)
        types.append(found.doc_type)
        contents.append(content)
    kept = batch.take(pa.array(keep, pa.int64()))
    for name, values in (("language", languages), ("doc_type", types), ("content", contents)):
        index = kept.schema.get_field_index(name)
        kept = kept.set_column(index, kept.schema.field(index), pa.array(values, kept.schema.field(index).type))
    return kept, drops
