"""One run on disk: directories, fingerprints, resumable steps.

A run is a chain of stages over the same numbered partitions. Each stage owns a directory::

    03-exact_dedup/
      stage.json          fingerprints of all that its rows depend on, input, configuration and program; written first
      docs/part-00000.parquet, drops/part-00000.parquet
      done/docs/00000.json   a partition is finished when this exists; holds its counts

A finished partition is never computed again; a changed configuration changes the fingerprint and is rejected.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from opencoder_data.refinecode import storage
from opencoder_data.refinecode.config import STAGES, RefineConfig, fingerprint, to_dict
from opencoder_data.refinecode.engine import Executor, run_tasks
from opencoder_data.refinecode.schema import DROPS, table_of

Step = Callable[["Run", int], dict[str, Any]]


@dataclass(frozen=True)
class Run:
    """Configuration and places of a run; cheap to send to a worker."""

    config: RefineConfig
    inputs: tuple[str, ...]
    output: str

    def directory(self, stage: str) -> str:
        return storage.join(self.output, f"{STAGES.index(stage) + 1:02d}-{stage}")

    def upstream(self, stage: str) -> str:
        """Name of the stage before this one in this run."""
        return self.config.stages[self.config.stages.index(stage) - 1]

    def part(self, stage: str, kind: str, part: int) -> str:
        return storage.join(self.directory(stage), kind, f"part-{part:05d}.parquet")

    def done(self, stage: str, step: str, part: int) -> str:
        return storage.join(self.directory(stage), "done", step, f"{part:05d}.json")

    def num_parts(self) -> int:
        return storage.read_json(storage.join(self.directory("ingest"), "plan.json"))["partitions"]

    def stage_config(self, stage: str) -> Any:
        return getattr(self.config, stage)

    def fingerprint(self, stage: str) -> str:
        """Of the stage's configuration and of all before it; layout counts since it decides file boundaries."""
        chain: list[Any] = [list(self.inputs), to_dict(self.config.layout)]
        for name in self.config.stages[: self.config.stages.index(stage) + 1]:
            chain.append([name, to_dict(self.stage_config(name))])
        return fingerprint(*chain)

    def documents(self, stage: str, part: int, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Row groups of a stage's output partition."""
        return storage.iter_row_groups(self.part(stage, "docs", part), columns)

    def counts(self, stage: str, step: str = "docs") -> list[dict[str, Any]]:
        """What each partition's step reported."""
        return [storage.read_json(self.done(stage, step, p)) for p in range(self.num_parts())]


def _finish(step: Step, name: str, stage: str, run: Run, part: int) -> dict[str, Any]:
    start, cpu = time.perf_counter(), time.process_time()
    counts = step(run, part)
    timing = {"wall_s": round(time.perf_counter() - start, 3), "cpu_s": round(time.process_time() - cpu, 3)}
    storage.write_json(run.done(stage, name, part), counts)
    return {**counts, **timing}


def run_step(
    run: Run, executor: Executor, stage: str, name: str, step: Step, parts: Iterable[int], label: str = ""
) -> dict[str, float]:
    """Run `step(run, part)` for all parts not finished before; returns summed timings of what ran now."""
    finished = set(storage.listdir(storage.join(run.directory(stage), "done", name)))
    parts = list(parts)
    todo = [p for p in parts if f"{p:05d}.json" not in finished]
    results = run_tasks(
        executor,
        _finish,
        [(step, name, stage, run, p) for p in todo],
        label=label or f"{stage}: {name}",
        progress=run.config.engine.progress,
        done=len(parts) - len(todo),
    )
    return {key: sum(r[key] for r in results) for key in ("wall_s", "cpu_s")}


@dataclass
class Writers:
    """Output of one partition: documents kept, documents dropped."""

    docs: storage.ParquetAppender
    drops: storage.ParquetAppender

    def keep(self, table: pa.Table) -> None:
        self.docs.append(table)

    def drop(self, rows: list[dict[str, Any]]) -> None:
        """`rows` with keys doc_id, rule, detail and, where known, language and doc_type."""
        if rows:
            self.drops.append(table_of(rows, DROPS))

    def counts(self) -> dict[str, int]:
        return {"kept": self.docs.rows, "dropped": self.drops.rows}


@contextmanager
def partition_writers(
    run: Run, stage: str, part: int, schema: pa.Schema, drops: pa.Schema = DROPS
) -> Iterator[Writers]:
    """Both files of a partition appear together with the end of the block, or not at all."""
    layout = run.config.layout
    with ExitStack() as stack:
        paths = [stack.enter_context(storage.replacing(run.part(stage, kind, part))) for kind in ("docs", "drops")]
        writers = Writers(
            storage.ParquetAppender(paths[0], schema, layout.batch_mb * 1e6, layout.compression_level),
            storage.ParquetAppender(paths[1], drops, layout.batch_mb * 1e6, layout.compression_level),
        )
        yield writers
        writers.docs.close()
        writers.drops.close()


def map_documents(
    run: Run, stage: str, part: int, process: Callable[[pa.Table], tuple[pa.Table, list[dict[str, Any]]]]
) -> dict[str, Any]:
    """A whole map stage's partition: `process(batch) -> (kept, dropped rows)` for each row group of the stage before."""
    upstream = run.upstream(stage)
    with storage.open_read(run.part(upstream, "docs", part)) as handle:
        parquet = pq.ParquetFile(handle)
        with partition_writers(run, stage, part, parquet.schema_arrow) as writers:
            for group in range(parquet.num_row_groups):
                kept, dropped = process(parquet.read_row_group(group))
                writers.keep(kept)
                writers.drop(dropped)
            return writers.counts()
