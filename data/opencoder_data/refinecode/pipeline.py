"""Runs the stages of a configuration over an input, resuming what an earlier run left."""

import sys
import time
from collections.abc import Sequence
from typing import Any

from opencoder_data.refinecode import lock, storage
from opencoder_data.refinecode.code_version import code_version
from opencoder_data.refinecode.config import STAGES, RefineConfig, fingerprint, to_dict
from opencoder_data.refinecode.engine import Executor, make_executor
from opencoder_data.refinecode.ledger import write_ledger
from opencoder_data.refinecode.run import Run
from opencoder_data.refinecode.stages import RUN, check


def run_pipeline(
    config: RefineConfig, inputs: Sequence[str], output: str, *, overwrite: bool = False, keep: bool = False
) -> dict[str, Any]:
    """From raw files to documents, ledger and summary under `output`; returns the summary.

    Finished partitions of an earlier run with the same configuration and program are kept. Stages for which either
    changed are rejected, or redone with `overwrite`; with `keep`, what another version of the program finished stays.

    Raises ValueError for what the caller can put right.
    """
    run = Run(config, tuple(i.rstrip("/") or "/" for i in inputs), output.rstrip("/"))
    check(config)
    for url in run.inputs:
        if not storage.exists(url):
            raise ValueError(f"input {url} does not exist")
        if run.inputs.count(url) > 1:
            raise ValueError(f"input {url} is given twice")
        if storage.is_below(run.output, url):
            raise ValueError(f"output directory {run.output} is in the input {url}; give another one")
    executor = make_executor(config.engine, config.layout)
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


def _run_stages(run: Run, executor: Executor, overwrite: bool, keep: bool) -> dict[str, Any]:
    stale = _check_output(run, overwrite, keep)
    # The result goes first: what is in progress must not look finished, nor mix with documents of the run before.
    for name in ("summary.json", "documents", "ledger") if stale else ():
        storage.remove(storage.join(run.output, name))
    for stage in stale:
        storage.remove(run.directory(stage))
    timings: dict[str, Any] = {}
    for stage in run.config.stages:
        start = time.perf_counter()
        _open_stage(run, stage)
        cost = RUN[stage](run, executor)
        timings[stage] = {"wall_s": round(time.perf_counter() - start, 3), "task_cpu_s": round(cost["cpu_s"], 3)}
    start = time.perf_counter()
    summary = write_ledger(run, executor)
    timings["ledger"] = {"wall_s": round(time.perf_counter() - start, 3)}
    # Apart from the summary: times differ between runs, rows do not.
    storage.write_json(storage.join(run.output, "timings.json"), timings)
    return {**summary, "timings": timings}


def _check_output(run: Run, overwrite: bool, keep: bool) -> list[str]:
    """Stages to remove: those of another input, configuration or program, and all after them."""
    names = storage.listdir(run.output)
    marker = storage.join(run.output, "run.json")
    if names and not storage.exists(marker) and any(not n.startswith(".") for n in names):
        raise ValueError(f"output directory {run.output} holds other files; give an empty or new directory")
    storage.remove_temporaries(run.output)
    reason = ""
    removed: list[str] = []
    for stage in STAGES:
        state = storage.join(run.directory(stage), "stage.json")
        # Killed at its beginning, a stage leaves an empty directory or one with nothing but its state.
        present = bool(set(storage.listdir(run.directory(stage))) - {"stage.json"})
        if stage in run.config.stages and storage.exists(state):
            found = storage.read_json(state)
            if found["fingerprint"] != run.fingerprint(stage):
                reason = reason or "a run with another input or configuration"
            elif found.get("program") != program(run, stage) and not keep:
                reason = reason or "another version of the program or of its libraries"
        elif present:
            reason = reason or "a run with another input or configuration"
        if present and reason:
            removed.append(stage)
    if removed and not overwrite:
        remedy = "--overwrite to redo that stage and the later ones"
        if reason.startswith("another version"):
            remedy += ", or --keep to go on from what it finished"
        raise ValueError(
            f"output directory {run.output} holds stage {removed[0]} of {reason}; give another directory, or {remedy}"
        )
    storage.write_json(marker, {"inputs": list(run.inputs), "config": to_dict(run.config)})
    return removed


def program(run: Run, stage: str) -> str:
    """Digest of the source of the stage and of all before it."""
    stages = run.config.stages[: run.config.stages.index(stage) + 1]
    return fingerprint([code_version(RUN[name].__module__) for name in stages])


def _open_stage(run: Run, stage: str) -> None:
    directory = run.directory(stage)
    state = {"stage": stage, "fingerprint": run.fingerprint(stage), "program": program(run, stage)}
    url = storage.join(directory, "stage.json")
    if not storage.exists(url) or storage.read_json(url) != state:
        storage.write_json(url, state)


def print_summary(summary: dict[str, Any], file: Any = None) -> None:
    """Files in, kept and dropped by stage and rule, and the largest languages."""
    file = file or sys.stdout
    print(f"files in    {summary['files_in']:>10,}  {summary['bytes_in'] / 1e6:>10,.1f} MB", file=file)
    for entry in summary["files_dropped"]:
        print(f"  dropped   {entry['files']:>10,}  {entry['stage']}: {entry['rule']}", file=file)
    for name, rows in summary.get("odd_metadata", {}).items():
        print(f"  unknown   {rows:>10,}  {name}: not readable, left empty", file=file)
    print(f"files kept  {summary['files_kept']:>10,}  {summary['bytes_kept'] / 1e6:>10,.1f} MB", file=file)
    for language, values in list(summary["languages"].items())[:12]:
        kept = values.get("files_kept", 0)
        if kept:
            print(f"  {language:<24}{kept:>8,} files {values['bytes_kept'] / 1e6:>10,.1f} MB", file=file)
