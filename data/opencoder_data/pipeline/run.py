"""One run on disk: directories, digests, resumable steps.

A run is a chain of stages over the same numbered partitions. Each stage owns a directory::

    03-exact_dedup/
      stage.json          digests of all that its rows depend on: input, configuration, versions; written first
      docs/part-00000.parquet, drops/part-00000.parquet
      done/docs/00000.json   a partition is finished when this exists; holds its counts

A finished partition is never computed again; a changed configuration changes the fingerprint, and the engine then stops.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from opencoder_data.pipeline import storage
from opencoder_data.pipeline.config import EngineConfig, LayoutConfig, fingerprint, to_dict
from opencoder_data.pipeline.executors import Executor, run_tasks
from opencoder_data.pipeline.schema import table_of
from opencoder_data.pipeline.stage import Outcome, Pipeline, Stage, behavior


class Step(Protocol):
    """A step of a stage over one partition or bucket; returns its counts."""

    __name__: str

    def __call__(self, run: "Run", part: int, /) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Run:
    """Pipeline, options and places of a run; cheap to send to a worker."""

    pipeline: Pipeline
    inputs: tuple[str, ...]
    output: str
    stages: tuple[str, ...]
    """Names of the stages of this run, in order; the first reads the input."""
    engine: EngineConfig = field(default_factory=EngineConfig)
    layout: LayoutConfig = field(default_factory=LayoutConfig)

    def stage(self, name: str) -> Stage:
        return next(s for s in self.pipeline.stages if s.name == name)

    def directory(self, stage: str) -> str:
        """The stage's directory; its number is that among all stages of the pipeline."""
        return storage.join(self.output, f"{self.pipeline.names.index(stage) + 1:02d}-{stage}")

    def upstream(self, stage: str) -> str:
        """Name of the stage before this one in this run."""
        return self.stages[self.stages.index(stage) - 1]

    def part(self, stage: str, kind: str, part: int) -> str:
        return storage.join(self.directory(stage), kind, f"part-{part:05d}.parquet")

    def done(self, stage: str, step: str, part: int) -> str:
        return storage.join(self.directory(stage), "done", step, f"{part:05d}.json")

    def num_parts(self) -> int:
        return storage.read_json(storage.join(self.directory(self.stages[0]), PLAN))["partitions"]

    def fingerprint(self, stage: str) -> str:
        """Of the stage's configuration and of all before it; layout counts since it decides file boundaries."""
        chain: list[Any] = [list(self.inputs), to_dict(self.layout)]
        for name in self._until(stage):
            chain.append([name, to_dict(self.stage(name).config)])
        return fingerprint(*chain)

    def behavior(self, stage: str) -> list[dict[str, Any]]:
        """Versions of the stage and of all before it, and of their libraries."""
        return [behavior(self.stage(name)) for name in self._until(stage)]

    def _until(self, stage: str) -> tuple[str, ...]:
        return self.stages[: self.stages.index(stage) + 1]

    def documents(self, stage: str, part: int, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Row groups of a stage's output partition."""
        return storage.iter_row_groups(self.part(stage, "docs", part), columns)

    def counts(self, stage: str, step: str = "docs") -> list[dict[str, Any]]:
        """What each partition's step reported."""
        return [storage.read_json(self.done(stage, step, p)) for p in range(self.num_parts())]

    def num_documents(self, stage: str) -> int:
        """Documents that a finished stage kept."""
        return sum(count["kept"] for count in self.counts(stage))


PLAN = "plan.json"
"""What the first stage writes: ``{"partitions": N}``."""


class Steps:
    """With this a stage does its work: each step is resumed where it was stopped."""

    def __init__(self, run: Run, executor: Executor, stage: str):
        self.run, self.stage = run, stage
        self._executor = executor
        self.cpu_s = 0.0
        """Processor seconds of the tasks that ran now."""

    @property
    def parts(self) -> range:
        """The partitions of the run, once the first stage has planned them."""
        return range(self.run.num_parts())

    def each(self, step: Step, parts: Iterable[int] | None = None) -> None:
        """Runs ``step(run, part)`` for all `parts` (default: the partitions) that are not finished.

        step: a method ``write_NAME`` of the stage; NAME is the step's. Raises ValueError for another.
        """
        run, name = self.run, step.__name__.removeprefix("write_")
        if not step.__name__.startswith("write_"):
            raise ValueError(f"stage {self.stage}: a step is a method write_NAME, not {step.__name__}")
        finished = set(storage.listdir(storage.join(run.directory(self.stage), "done", name)))
        parts = list(self.parts if parts is None else parts)
        todo = [p for p in parts if f"{p:05d}.json" not in finished]
        self.cpu_s += sum(
            run_tasks(
                self._executor,
                _finish,
                [(step, name, self.stage, run, p) for p in todo],
                label=f"{self.stage}: {name}",
                progress=run.engine.progress,
                done=len(parts) - len(todo),
            )
        )

    def once(self, name: str, compute: Callable[[Run], Any]) -> Any:
        """The value of the JSON file `name` below the stage's directory, by ``compute(run)`` where it is not there yet."""
        url = storage.join(self.run.directory(self.stage), name)
        if not storage.exists(url):
            storage.write_json(url, compute(self.run))
        return storage.read_json(url)


def _finish(step: Step, name: str, stage: str, run: Run, part: int) -> float:
    """Runs a step, marks the partition as finished; returns its processor seconds."""
    begin = time.process_time()
    counts = step(run, part)
    seconds = time.process_time() - begin
    storage.write_json(run.done(stage, name, part), counts)
    return seconds


@dataclass
class Writers:
    """Output of one partition: documents kept, documents dropped."""

    docs: storage.ParquetAppender
    drops: storage.ParquetAppender

    def keep(self, table: pa.Table) -> None:
        self.docs.append(table)

    def drop(self, rows: list[dict[str, Any]]) -> None:
        """`rows` with keys doc_id, rule, detail and, where known, the labels of the pipeline."""
        if rows:
            self.drops.append(table_of(rows, self.drops.schema))

    def counts(self) -> dict[str, int]:
        return {"kept": self.docs.rows, "dropped": self.drops.rows}


@contextmanager
def partition_writers(
    run: Run, stage: str, part: int, schema: pa.Schema, drops: pa.Schema | None = None
) -> Iterator[Writers]:
    """Both files of a partition appear together with the end of the block, or not at all."""
    with ExitStack() as stack:
        writers = Writers(
            _appender(run, stage, "docs", part, schema, stack),
            _appender(run, stage, "drops", part, drops or run.pipeline.schema.drops, stack),
        )
        yield writers
        writers.docs.close()
        writers.drops.close()


def _appender(
    run: Run, stage: str, kind: str, part: int, schema: pa.Schema, stack: ExitStack
) -> storage.ParquetAppender:
    path = stack.enter_context(storage.replacing(run.part(stage, kind, part)))
    return storage.ParquetAppender(path, schema, run.layout.batch_mb * 1e6, run.layout.compression_level)


def map_documents(
    run: Run,
    stage: str,
    part: int,
    decide: Callable[[pa.Table], Outcome],
    tables: Mapping[str, pa.Schema] | None = None,
) -> dict[str, Any]:
    """Step ``docs`` of a stage: ``decide(batch)`` for each row group of the stage before, its outcome in files.

    Args:
      tables: name -> schema of the further tables that `decide` gives.

    Returns: the numbers of documents kept and dropped, and the sums of the outcomes' counts (of one empty batch where there
    is none).
    """
    counts: dict[str, Any] = {}
    with ExitStack() as stack:
        handle = stack.enter_context(storage.open_read(run.part(run.upstream(stage), "docs", part)))
        parquet = pq.ParquetFile(handle)
        schema = parquet.schema_arrow
        more = {name: _appender(run, stage, name, part, kind, stack) for name, kind in (tables or {}).items()}
        with partition_writers(run, stage, part, schema) as writers:
            groups = range(parquet.num_row_groups)
            for batch in map(parquet.read_row_group, groups) if groups else [schema.empty_table()]:
                outcome = decide(batch)
                writers.keep(outcome.kept)
                writers.drop(outcome.drops)
                for name, table in outcome.tables.items():
                    more[name].append(table)
                _add(counts, outcome.counts)
            for appender in more.values():
                appender.close()
            return {**writers.counts(), **counts}


def _add(total: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Adds numbers, and tables of numbers, which stay sorted by name."""
    for name, value in more.items():
        if isinstance(value, Mapping):
            table = total.setdefault(name, {})
            _add(table, value)
            total[name] = dict(sorted(table.items()))
        else:
            total[name] = total.get(name, 0) + value
