"""Stage 5: copyright headers removed, personal data and secrets replaced by placeholders. Idempotent."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from opencoder_data.pipeline.run import Run, Steps, map_documents
from opencoder_data.pipeline.stage import Outcome
from opencoder_data.refinecode.config import TransformConfig
from opencoder_data.refinecode.transform.header import remove_header
from opencoder_data.refinecode.transform.personal import remove_personal
from opencoder_data.refinecode.transform.tree_parser import tree_parser


@dataclass(frozen=True)
class Transform:
    """The only step is ``docs``."""

    config: TransformConfig = field(default_factory=TransformConfig)
    name: ClassVar[str] = "transform"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("google-re2", "regex", "tree-sitter", "tree-sitter-language-pack")

    def validate(self) -> None:
        """Any configuration will do."""

    def run(self, steps: Steps) -> None:
        steps.each(self.write_docs)

    def write_docs(self, run: Run, part: int) -> dict[str, Any]:
        try:
            return map_documents(run, self.name, part, lambda batch: decide(batch, self.config))
        finally:
            tree_parser().close()  # its process and grammars are of no use to other stages


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


def decide(batch: pa.Table, config: TransformConfig) -> Outcome:
    """A batch with cleaned texts, and counts of what was done to them. A file that was only a notice is dropped."""
    changes: Counter[str] = Counter()
    contents: list[str] = []
    keep: list[bool] = []
    drops: list[dict[str, Any]] = []
    column = batch.column("content")
    names = ("doc_id", "path", "language", "doc_type")
    for row, (doc_id, path, language, doc_type) in enumerate(
        zip(*(batch.column(name).to_pylist() for name in names), strict=True)
    ):
        text, found = transform_text(column[row].as_py(), language, path, config)
        changes.update(found)
        empty = not text.strip()
        if empty:
            drops.append({"doc_id": doc_id, "language": language, "doc_type": doc_type, "rule": "only_a_notice"})
        keep.append(not empty)
        contents.append(text)
    index = batch.schema.get_field_index("content")
    batch = batch.set_column(index, batch.schema.field(index), pa.array(contents, pa.large_string()))
    return Outcome(batch.filter(pa.array(keep, pa.bool_())), drops, counts={"changes": dict(changes)})
