"""The stages by name."""

from collections.abc import Callable

from opencoder_data.refinecode import exact_dedup, filter_stage, fuzzy_dedup, ingest, preprocess, sample, transform
from opencoder_data.refinecode.config import RefineConfig
from opencoder_data.refinecode.engine import Executor
from opencoder_data.refinecode.fuzzy_dedup.settings import banding
from opencoder_data.refinecode.run import Run

RUN: dict[str, Callable[[Run, Executor], dict[str, float]]] = {
    "ingest": ingest.run,
    "preprocess": preprocess.run,
    "exact_dedup": exact_dedup.run,
    "fuzzy_dedup": fuzzy_dedup.run,
    "transform": transform.run,
    "filter": filter_stage.run,
    "sample": sample.run,
}


def check(config: RefineConfig) -> None:
    """Everything about a configuration that only the stages can judge, before any of them runs. Raises ValueError."""
    if "fuzzy_dedup" in config.stages:
        banding(config.fuzzy_dedup)
    if "filter" in config.stages:
        filter_stage.thresholds_of(config.filter)
    if "sample" in config.stages:
        sample.check(config.sample)
    known = ("auto", "tree", "git", "archive", "parquet", "arrow", "jsonl")
    if config.ingest.kind not in known:
        raise ValueError(f"ingest.kind is one of {', '.join(known)}, not {config.ingest.kind!r}")
    for name in ("partition_mb", "batch_mb", "shuffle_rows"):
        if not getattr(config.layout, name) > 0:
            raise ValueError(f"layout.{name} must be positive, not {getattr(config.layout, name)}")
