"""A first stage for any pipeline: documents out of Parquet files, JSON lines or directories of text files on local disks."""

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from opencoder_data.documents import Columns, Corpus, Part, Unit, file_state, open_corpus
from opencoder_data.pipeline import storage
from opencoder_data.pipeline.run import PLAN, Run, Steps, partition_writers
from opencoder_data.pipeline.schema import doc_id, table_of


@dataclass(frozen=True)
class ReadConfig:
    format: str = "auto"
    """``auto``, ``parquet``, ``jsonl`` or ``files``."""
    text_column: str = ""
    """Empty: ``content``, else ``text``."""
    path_column: str = "path"
    language_column: str = "language"
    """Kept where the pipeline's documents have a column `language`."""


@dataclass(frozen=True)
class ReadDocuments:
    """`plan.json` and plan/NNNNN.json, on the driver: one partition for each unit of `documents.open_corpus`. The only step is ``docs``; its ``drops``
    hold a ledger row for every document, kept or dropped (rules ``empty`` and ``not_valid_UTF-8``)."""

    config: ReadConfig = field(default_factory=ReadConfig)
    name: ClassVar[str] = "read"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("zstandard",)

    def validate(self) -> None:
        """The format and the columns are judged with the input, by `plan`."""

    def run(self, steps: Steps) -> None:
        steps.once(PLAN, self.plan)
        steps.each(self.write_docs)

    def plan(self, run: Run) -> dict[str, int]:
        """The number of partitions; what each reads, and the state of its files, is in plan/NNNNN.json.

        Raises ValueError for input that is missing, empty or without the text column.
        """
        columns = Columns(self.config.text_column, self.config.language_column, self.config.path_column)
        unit_bytes = int(run.layout.partition_mb * 1e6)
        corpus = open_corpus(run.inputs, format=self.config.format, columns=columns, unit_bytes=unit_bytes)
        state = {path: [path, *stat] for path, *stat in corpus.files}
        for number, unit in enumerate(corpus.units):
            plan = {
                "format": corpus.format,
                "columns": dataclasses.asdict(corpus.columns),
                "parts": [dataclasses.astuple(piece) for piece in unit.parts],
                "files": [state[path] for path in sorted({piece.path for piece in unit.parts})],
            }
            storage.write_json(self._plan_of(run, number), plan)
        return {"partitions": len(corpus.units)}

    def _plan_of(self, run: Run, part: int) -> str:
        return storage.join(run.directory(self.name), "plan", f"{part:05d}.json")

    def write_docs(self, run: Run, part: int) -> dict[str, Any]:
        plan = storage.read_json(self._plan_of(run, part))
        for path, size, modified in plan["files"]:
            if file_state(path) != (size, modified):
                raise ValueError(f"{path} changed since the run in {run.output} began; give another output directory")
        unit = Unit(tuple(Part(*piece) for piece in plan["parts"]), 0)
        corpus = Corpus(plan["format"], Columns(**plan["columns"]), (unit,), ())
        schema, total, dropped = run.pipeline.schema, 0, 0
        with partition_writers(run, self.name, part, schema.documents, schema.ledger) as writers:
            for documents, seen in self._batches(run, corpus):
                writers.keep(table_of(documents, schema.documents))
                writers.drops.append(table_of(seen, schema.ledger))
                total += sum(row["size"] for row in seen)
                dropped += len(seen) - len(documents)
            return {"files": writers.drops.rows, "bytes": total, "kept": writers.docs.rows, "dropped": dropped}

    def _batches(self, run: Run, corpus: Corpus) -> Iterator[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
        """(documents, ledger rows of them and of those that cannot be used) of a partition, some at a time."""
        documents: list[dict[str, Any]] = []
        seen: list[dict[str, Any]] = []
        held = 0
        for piece in corpus.units[0].parts:
            text_file = corpus.format == "files"
            source, below = _place(piece.path, run.inputs, text_file)
            for document in corpus.read_part(piece):
                data = document.text.encode()
                path = below if text_file else document.path
                row = {
                    "doc_id": doc_id(source, path, document.index), "source": source, "path": path,
                    "size": len(data), "language": document.language or None,
                }  # fmt: skip
                if document.skipped:
                    rule = document.skipped.replace(" ", "_")
                    seen.append({**row, "status": "dropped", "stage": self.name, "rule": rule})
                    continue
                seen.append({**row, "status": "kept"})
                documents.append({**row, "content": document.text, "sha256": hashlib.sha256(data).hexdigest()})
                held += len(data)
                if held > run.layout.batch_mb * 1e6 / 2 or len(seen) > _ROWS:
                    yield documents, seen
                    documents, seen, held = [], [], 0
        yield documents, seen


_ROWS = 20_000


def _place(file: str, inputs: tuple[str, ...], text_file: bool) -> tuple[str, str]:
    """(source, path within its input) of a file: a text file's source is its input, that of rows the file.

    They do not depend on where the input is stored, unless two inputs have the same name.
    """
    root = max((i for i in inputs if storage.is_below(file, i)), key=len)
    names = [os.path.basename(i) for i in inputs]
    name = os.path.basename(root) if names.count(os.path.basename(root)) == 1 else root
    path = os.path.relpath(file, root)
    if path == ".":
        source, path = name, name
    else:
        source = name if text_file else storage.join(name, path)
    source, path = (text.encode("utf-8", "backslashreplace").decode() for text in (source, path))
    return source, path
