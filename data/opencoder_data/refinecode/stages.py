"""The stages by name."""

from collections.abc import Callable

from opencoder_data.refinecode import exact_dedup, filter_stage, fuzzy_dedup, ingest, preprocess, sample, transform
from opencoder_data.refinecode.engine import Executor
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
