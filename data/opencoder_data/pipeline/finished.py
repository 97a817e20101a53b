"""What a finished run left, for those who read it without knowing its stages."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from opencoder_data.pipeline import storage
from opencoder_data.pipeline.config import EngineConfig, LayoutConfig


@dataclass(frozen=True)
class FinishedRun:
    """Documents of a finished run, and how it was made; cheap to send to a worker."""

    output: str
    pipeline: str
    inputs: tuple[str, ...]
    config: Mapping[str, Any]
    """As saved: the names of the stages, `engine`, `layout`, and a table for each stage."""
    parts: tuple[str, ...]
    """Parquet files of the documents."""

    @property
    def engine(self) -> EngineConfig:
        return EngineConfig(**self.config["engine"])

    @property
    def layout(self) -> LayoutConfig:
        return LayoutConfig(**self.config["layout"])

    def schema(self) -> pa.Schema:
        """Of the documents."""
        with storage.open_read(self.parts[0]) as handle:
            return pq.ParquetFile(handle).schema_arrow

    def documents(self, part: int, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Row groups of a file of documents."""
        return storage.iter_row_groups(self.parts[part], columns)

    def written_by(self) -> Any:
        """`stage.json` of the last stage: digests of all that the documents depend on."""
        last = self.config["stages"][-1]
        names = [n for n in storage.listdir(self.output) if n[:2].isdigit() and n[2:] == f"-{last}"]
        if not names:
            raise ValueError(f"{self.output} has lost the directory of its last stage, {last}")
        return storage.read_json(storage.join(self.output, names[0], "stage.json"))


def finished_run(output: str) -> FinishedRun:
    """The run that wrote `output`; ValueError when there is none or it is not finished."""
    marker = storage.join(output, "run.json")
    if not storage.exists(marker):
        raise ValueError(f"{output} is not the output of a pipeline run (run.json is missing)")
    if not storage.exists(storage.join(output, "summary.json")):
        raise ValueError(f"the run in {output} is not finished; run the same command again to finish it")
    saved = storage.read_json(marker)
    directory = storage.join(output, "documents")
    parts = tuple(storage.join(directory, n) for n in storage.listdir(directory) if n.endswith(".parquet"))
    if not parts:
        raise ValueError(f"{output} has lost its documents; run the same command again to write them")
    # Runs from before there was another pipeline do not name theirs.
    return FinishedRun(output, saved.get("pipeline", "refinecode"), tuple(saved["inputs"]), saved["config"], parts)
