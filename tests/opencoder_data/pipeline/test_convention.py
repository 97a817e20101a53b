"""All stages follow one convention, which `pipeline/stage.py` states: seen in their classes, their modules and what a run leaves."""

import dataclasses
import inspect
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from opencoder_data.pipeline.run import Run, Steps
from opencoder_data.pipeline.source import ReadDocuments
from opencoder_data.refinecode.config import RefineConfig
from opencoder_data.refinecode.pipeline import pipeline_of

STAGES = pipeline_of(RefineConfig()).stages
COLUMNS = pipeline_of(RefineConfig()).schema.documents.names
NAMES = [stage.name for stage in STAGES]
# Steps that write tables of other names, as their stage's docstring says.
OTHER_TABLES = {"members": {"ranks", "shingles"}}


@pytest.mark.parametrize("stage", [*STAGES, ReadDocuments()], ids=lambda stage: stage.name)
def test_a_stage_is_a_frozen_dataclass_of_its_configuration(stage):
    kind = type(stage)
    assert dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen
    assert [f.name for f in dataclasses.fields(kind)] == ["config"] and dataclasses.is_dataclass(stage.config)
    assert isinstance(stage.version, int) and isinstance(stage.libraries, tuple)
    steps = [name for name in vars(kind) if name.startswith("write_")]
    assert steps[-1] == "write_docs"
    for name in steps:
        assert list(inspect.signature(getattr(kind, name)).parameters)[:2] == ["self", "run"]
    assert all(f"``{name.removeprefix('write_')}``" in (kind.__doc__ or "") for name in steps)


@pytest.mark.parametrize("stage", STAGES[1:], ids=NAMES[1:])
def test_a_stage_decides_in_a_pure_function_of_a_batch(stage):
    """`decide(batch, ...)` of the stage's module; fuzzy de-duplication takes those of exact de-duplication, repositories, chunks."""
    module = sys.modules[type(stage).__module__]
    deciding = [module.decide] if hasattr(module, "decide") else [module.exact_dedup.decide, module.repo_level.decide]
    for function in deciding:
        first = next(iter(inspect.signature(function).parameters))
        assert first == "batch" and "run" not in inspect.signature(function).parameters


def test_steps_are_named_after_what_they_write(finished_run):
    output = Path(finished_run[0])
    for number, stage in enumerate(STAGES, 1):
        directory = output / f"{number:02d}-{stage.name}"
        steps = {p.name for p in (directory / "done").iterdir()}
        assert steps and all(hasattr(stage, f"write_{step}") for step in steps)
        written = {p.name for p in directory.iterdir() if p.is_dir()}
        for step in steps:
            assert OTHER_TABLES.get(step, {step}) <= written
        docs, drops = (pq.read_table(directory / kind) for kind in ("docs", "drops"))
        assert len(list((directory / "done" / "docs").iterdir())) == len(list((directory / "docs").iterdir()))
        assert set(drops.column_names) >= {"doc_id", "language", "doc_type", "rule", "detail"}
        assert docs.schema.names == COLUMNS


def test_a_step_of_another_name_is_an_error(tmp_path):
    def apply(run, part):
        return {}

    run = Run(pipeline_of(RefineConfig()), (), str(tmp_path), tuple(NAMES))
    steps = Steps(run, None, "sample")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="a step is a method write_NAME, not apply"):
        steps.each(apply, [])


def test_map_documents_adds_counts_and_writes_tables(tmp_path):
    """Numbers and tables of numbers are summed; an empty partition has the names of its counts."""
    from opencoder_data.pipeline import storage
    from opencoder_data.pipeline.run import map_documents
    from opencoder_data.pipeline.schema import CORE, DocumentSchema, table_of
    from opencoder_data.pipeline.stage import Outcome, Pipeline

    pipeline = Pipeline("test", (ReadDocuments(), STAGES[1]), DocumentSchema(CORE))
    run = Run(pipeline, (), str(tmp_path), pipeline.names)
    lengths = pa.schema([("length", pa.int64())])

    def decide(batch):
        sizes = batch["size"].to_pylist()
        drops = [{"doc_id": i, "rule": "odd"} for i, n in zip(batch["doc_id"].to_pylist(), sizes, strict=True) if n % 2]
        table = pa.table({"length": pa.array(sizes, pa.int64())})
        kept = batch.filter(pa.array([n % 2 == 0 for n in sizes], pa.bool_()))
        return Outcome(kept, drops, {"lengths": table}, {"bytes": sum(sizes), "by": {f"n{n}": 1 for n in sizes[::-1]}})

    rows = [
        {"doc_id": f"{i}", "source": "s", "path": "p", "content": "x" * i, "size": i, "sha256": ""}
        for i in (3, 4, 9, 4)
    ]
    url = run.part("read", "docs", 0)
    with storage.replacing(url) as path:
        storage.ParquetAppender(path, CORE, 1e6).close()
    assert pq.ParquetFile(url).num_row_groups == 0
    empty = map_documents(run, "preprocess", 0, decide, {"lengths": lengths})
    assert empty == {"kept": 0, "dropped": 0, "bytes": 0, "by": {}}
    with storage.replacing(url) as path:
        pq.write_table(table_of(rows, CORE), path, row_group_size=3)
    counts = map_documents(run, "preprocess", 0, decide, {"lengths": lengths})
    assert counts == {"kept": 2, "dropped": 2, "bytes": 20, "by": {"n3": 1, "n4": 2, "n9": 1}}
    assert list(counts["by"]) == ["n3", "n4", "n9"]
    assert pq.read_table(run.part("preprocess", "lengths", 0))["length"].to_pylist() == [3, 4, 9, 4]
    assert pq.read_table(run.part("preprocess", "drops", 0))["doc_id"].to_pylist() == ["3", "9"]
    assert pq.read_table(run.part("preprocess", "docs", 0))["doc_id"].to_pylist() == ["4", "4"]
