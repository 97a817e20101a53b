"""Runs the stages of a pipeline over an input, resuming what an earlier run left."""

import time
from collections.abc import Sequence
from typing import Any

from opencoder_data.pipeline import lock, storage
from opencoder_data.pipeline.config import EngineConfig, LayoutConfig, to_dict
from opencoder_data.pipeline.executors import Executor, make_executor
from opencoder_data.pipeline.ledger import write_ledger
from opencoder_data.pipeline.run import Run, Steps
from opencoder_data.pipeline.stage import Pipeline


def run_pipeline(
    pipeline: Pipeline,
    inputs: Sequence[str],
    output: str,
    *,
    stages: Sequence[str] = (),
    engine: EngineConfig | None = None,
    layout: LayoutConfig | None = None,
    overwrite: bool = False,
    keep: bool = False,
) -> dict[str, Any]:
    """From the input to documents, ledger and summary under `output`; returns the summary.

    Finished partitions of an earlier run with the same configuration and versions are kept. Stages for which either changed
    are an error, or redone with `overwrite`; with `keep`, what other versions of stages or libraries finished stays.

    Args:
      stages: names of those to run, besides the first; default all.

    Raises ValueError for what the caller can put right.
    """
    selected = pipeline.select(tuple(stages))
    run = Run(
        pipeline,
        tuple(i.rstrip("/") or "/" for i in inputs),
        output.rstrip("/"),
        selected,
        engine or EngineConfig(),
        layout or LayoutConfig(),
    )
    _check(run)
    executor = make_executor(run.engine, run.layout, sorted({type(run.stage(s)).__module__ for s in selected}))
    try:
        with lock.held(run.output):
            try:
                return _run_stages(run, executor, overwrite, keep)
            except BaseException:
                executor.stop()
                # Nobody writes any more, and the lock says that nobody else does.
                storage.remove_temporaries(run.output)
                raise
    finally:
        executor.close()


def _check(run: Run) -> None:
    """Everything that can be wrong before any stage runs. Raises ValueError."""
    for name in run.stages:
        run.stage(name).validate()
    run.layout.validate()
    for url in run.inputs:
        if not storage.exists(url):
            raise ValueError(f"input {url} does not exist")
        if run.inputs.count(url) > 1:
            raise ValueError(f"input {url} is given twice")
        if storage.is_below(run.output, url):
            raise ValueError(f"output directory {run.output} is in the input {url}; give another one")


def _run_stages(run: Run, executor: Executor, overwrite: bool, keep: bool) -> dict[str, Any]:
    stale = _check_output(run, overwrite, keep)
    # The result goes first: what is in progress must not look finished, nor mix with documents of the run before.
    for name in ("summary.json", "documents", "ledger") if stale else ():
        storage.remove(storage.join(run.output, name))
    for stage in stale:
        storage.remove(run.directory(stage))
    timings: dict[str, Any] = {}
    for stage in run.stages:
        start = time.perf_counter()
        _open_stage(run, stage)
        steps = Steps(run, executor, stage)
        run.stage(stage).run(steps)
        timings[stage] = {"wall_s": round(time.perf_counter() - start, 3), "task_cpu_s": round(steps.cpu_s, 3)}
    start = time.perf_counter()
    summary = write_ledger(run, executor)
    timings["ledger"] = {"wall_s": round(time.perf_counter() - start, 3)}
    # Apart from the summary: times differ between runs, rows do not.
    storage.write_json(storage.join(run.output, "timings.json"), timings)
    return {**summary, "timings": timings}


_OTHER_RUN = "a run with another input or configuration"


def _check_output(run: Run, overwrite: bool, keep: bool) -> list[str]:
    """Stages to remove: those of another input, configuration or version, and all after them."""
    names = storage.listdir(run.output)
    marker = storage.join(run.output, "run.json")
    if names and not storage.exists(marker) and any(not n.startswith(".") for n in names):
        raise ValueError(f"output directory {run.output} holds other files; give an empty or new directory")
    storage.remove_temporaries(run.output)
    reason = ""
    removed: list[str] = []
    for stage in run.pipeline.names:
        state = storage.join(run.directory(stage), "stage.json")
        # Killed at its beginning, a stage leaves an empty directory or one with nothing but its state.
        present = bool(set(storage.listdir(run.directory(stage))) - {"stage.json"})
        if stage in run.stages and storage.exists(state):
            found = storage.read_json(state)
            if found["fingerprint"] != run.fingerprint(stage):
                reason = reason or _OTHER_RUN
            elif not keep and (change := _other_version(found.get("behavior"), run.behavior(stage))):
                reason = reason or change
        elif present:
            reason = reason or _OTHER_RUN
        if present and reason:
            removed.append(stage)
    if removed and not overwrite:
        remedy = "--overwrite to redo that stage and the later ones"
        if reason != _OTHER_RUN:
            remedy += ", or --keep to go on from what it finished"
        raise ValueError(
            f"output directory {run.output} holds stage {removed[0]} of {reason}; give another directory, or {remedy}"
        )
    storage.write_json(marker, _description(run))
    return removed


def _other_version(found: list[dict[str, Any]] | None, now: list[dict[str, Any]]) -> str:
    """What differs between two lists of `stage.behavior`, the first difference in words; empty where nothing does."""
    if found == now:
        return ""
    before = {entry["stage"]: entry for entry in found or []}
    for entry in now:
        old = before.get(entry["stage"], {"version": "unknown", "libraries": {}})
        if old["version"] != entry["version"]:
            return f"another version of the program (stage {entry['stage']}: {old['version']}, now {entry['version']})"
        for name in sorted({*old["libraries"], *entry["libraries"]}):
            was, is_now = old["libraries"].get(name, "not used"), entry["libraries"].get(name, "not used")
            if was != is_now:
                return f"another version of the program's libraries ({name}: {was}, now {is_now})"
    return "another version of the program"


def _description(run: Run) -> dict[str, Any]:
    """What `run.json` holds: enough to know the run again."""
    config: dict[str, Any] = {"stages": list(run.stages), "engine": to_dict(run.engine), "layout": to_dict(run.layout)}
    config.update((stage.name, to_dict(stage.config)) for stage in run.pipeline.stages)
    return {"pipeline": run.pipeline.name, "inputs": list(run.inputs), "config": config}


def _open_stage(run: Run, stage: str) -> None:
    state = {"stage": stage, "fingerprint": run.fingerprint(stage), "behavior": run.behavior(stage)}
    url = storage.join(run.directory(stage), "stage.json")
    if not storage.exists(url) or storage.read_json(url) != state:
        storage.write_json(url, state)
