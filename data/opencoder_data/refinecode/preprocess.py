"""Stage 2: size limit, language and document type, notebooks as structured cells."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from opencoder_data.pipeline.run import Run, Steps, map_documents
from opencoder_data.pipeline.stage import Outcome
from opencoder_data.refinecode.config import PreprocessConfig
from opencoder_data.refinecode.languages import NOTEBOOK, detect
from opencoder_data.refinecode.notebook import NotebookError, structured_cells


@dataclass(frozen=True)
class Preprocess:
    """The only step is ``docs``."""

    config: PreprocessConfig = field(default_factory=PreprocessConfig)
    name: ClassVar[str] = "preprocess"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("regex",)

    def validate(self) -> None:
        """Any configuration will do."""

    def run(self, steps: Steps) -> None:
        steps.each(self.write_docs)

    def write_docs(self, run: Run, part: int) -> dict[str, Any]:
        return map_documents(run, self.name, part, lambda batch: decide(batch, self.config))


def decide(batch: pa.Table, config: PreprocessConfig) -> Outcome:
    """Language and type of each document of a batch with the columns of `schema.DOCUMENTS`; notebooks become cells."""
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
    return Outcome(kept, drops)
