"""RefineCode as a pipeline: the seven stages of a configuration."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from opencoder_data.pipeline import engine
from opencoder_data.pipeline.finished import finished_run
from opencoder_data.pipeline.run import Run
from opencoder_data.pipeline.stage import Pipeline
from opencoder_data.refinecode.config import RefineConfig, from_dict
from opencoder_data.refinecode.exact_dedup import ExactDedup
from opencoder_data.refinecode.filter_stage import Filter
from opencoder_data.refinecode.fuzzy_dedup.stage import FuzzyDedup
from opencoder_data.refinecode.ingest import Ingest
from opencoder_data.refinecode.preprocess import Preprocess
from opencoder_data.refinecode.sample import Sample
from opencoder_data.refinecode.schema import SCHEMA
from opencoder_data.refinecode.transform import Transform

NAME = "refinecode"


def pipeline_of(config: RefineConfig) -> Pipeline:
    """All stages, each with its part of the configuration."""
    # Where no stage drops files by name, ingest reads them all.
    skip_unread = config.ingest.skip_unread and "preprocess" in config.stages
    return Pipeline(
        NAME,
        (
            Ingest(dataclasses.replace(config.ingest, skip_unread=skip_unread)),
            Preprocess(config.preprocess),
            ExactDedup(config.exact_dedup),
            FuzzyDedup(config.fuzzy_dedup),
            Transform(config.transform),
            Filter(config.filter),
            Sample(config.sample),
        ),
        SCHEMA,
    )


def run_of(config: RefineConfig, inputs: Sequence[str], output: str) -> Run:
    """Places and options of a run, without running anything."""
    return Run(pipeline_of(config), tuple(inputs), output, config.stages, config.engine, config.layout)


def open_run(output: str) -> Run:
    """The finished run that wrote `output`; ValueError when it is none of RefineCode or is not finished."""
    saved = finished_run(output)
    if saved.pipeline != NAME:
        raise ValueError(f"{output} is the output of the pipeline {saved.pipeline}, not of {NAME}")
    return run_of(from_dict(saved.config), saved.inputs, output)


def run_pipeline(
    config: RefineConfig, inputs: Sequence[str], output: str, *, overwrite: bool = False, keep: bool = False
) -> dict[str, Any]:
    """`engine.run_pipeline` as a configuration says."""
    return engine.run_pipeline(
        pipeline_of(config),
        inputs,
        output,
        stages=config.stages,
        engine=config.engine,
        layout=config.layout,
        overwrite=overwrite,
        keep=keep,
    )
