"""Trains a model: `python -m opencoder_jax.train --config=tiny --data.sources=PATH`.

Reads from top to bottom: configuration, mesh, data, state, loop. An existing run in `run_dir` is resumed, bit for bit
as if it had never stopped; `init_from` starts a new run from another's parameters and optimizer state (annealing).
SIGTERM and Ctrl-C save after the step in progress; a second Ctrl-C ends at once.
Exit codes: 0 done, 2 rejected (one line says why), 3 stopped by SIGTERM or Ctrl-C after saving, 4 too many non-finite
updates, 5 something that the run waits for (a loader, a writer, a device) did not answer, 130 second Ctrl-C.
"""

from __future__ import annotations

if __name__ == "__main__":
    from opencoder_jax import watch

    watch.before_imports()

import contextlib
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from opencoder_data import command, fields
from opencoder_data.command import EXIT_REJECTED, EXIT_SILENT
from opencoder_kernels import dispatch

from opencoder_jax import distributed, overrides, profiling
from opencoder_jax import input as data_input
from opencoder_jax import model as lm
from opencoder_jax.checkpoint import (
    PACKAGES,
    Checkpoints,
    Hangs,
    batches_so_far,
    run_record,
    silence_abandoned_writes,
    space_warning,
)
from opencoder_jax.compiled import write_hlo
from opencoder_jax.config import RunConfig, check, replace
from opencoder_jax.lock import RunLock
from opencoder_jax.metrics import MetricsWriter, Progress
from opencoder_jax.resume import check_same_run, warm_start
from opencoder_jax.sharding import make_mesh
from opencoder_jax.step import State, TrainStep, make_train_step
from opencoder_jax.validate import Evaluator
from opencoder_jax.watch import BEFORE_THE_LOOP, EXIT_NONFINITE, EXIT_SIGTERM, Stopped, Watch
from opencoder_jax.xla_flags import compile_lowered, set_memory_fraction


def main(arguments: list[str]) -> int:
    if {"--help", "-h"} & set(arguments):
        print(f"{__doc__}\n{overrides.describe_fields()}")
        return 0
    # Orbax logs a failed save with its whole stack; the trainer says it in one line.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    silence_abandoned_writes()
    command.escape_what_cannot_be_encoded()
    try:
        with Watch() as watch:
            config = overrides.parse(arguments)
            command.raise_file_limit()
            set_memory_fraction()
            distributed.initialize()
            watch.several_processes = jax.process_count() > 1
            return train(config, watch)
    except Stopped:
        line, code = BEFORE_THE_LOOP, EXIT_SIGTERM
    except Diverged as error:
        line, code = f"error: {error}", EXIT_NONFINITE
    except Hangs as error:
        line, code = f"error: {error}", EXIT_SILENT
    except (ValueError, OSError) as error:
        line, code = f"error: {command.one_line(error)}", EXIT_REJECTED
    command.say(line)
    return code


def train(config: RunConfig, watch: Watch | None = None) -> int:
    """Runs `config` to its last step; returns the exit code.

    Raises: ValueError or OSError for what the user must change, Diverged after `max_nonfinite` non-finite updates in a row
    or when all were, Hangs when a save takes too long.
    """
    watch = watch or Watch()
    watch.silence_seconds = 60 * config.max_silence_minutes

    # --- configuration ------------------------------------------------------------------------------------------------
    config = replace(config, run_dir=config.run_dir or f"runs/{config.name}")
    check(config)
    for name in ("run_dir", "init_from"):
        command.check_path(name, getattr(config, name))
    distributed.assert_equal_across_hosts(dict(overrides.leaves(config)), "the configuration")
    for name, value in overrides.leaves(config) if distributed.is_first() else ():
        print(f"config: {name}={fields.written(value)}")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", ".jax_cache")

    mesh = make_mesh(config.mesh)
    with jax.set_mesh(mesh):
        return run(config, mesh, watch)


@dataclass
class Run:
    """What the stages of `run` share. say: prints, in the first process alone."""

    config: RunConfig
    ts: TrainStep
    data: data_input.TrainingData
    evaluator: Evaluator
    checkpoints: Checkpoints
    lock: RunLock
    watch: Watch
    say: Callable[[str], object]
    kernels: dict[str, str] = field(default_factory=dict)  # operation -> backend
    options: dict[str, Any] = field(default_factory=dict)  # of the compiler

    @property
    def dir(self) -> Path:
        return Path(self.config.run_dir)

    def writing(self) -> contextlib.AbstractContextManager[None]:
        return self.watch.waiting("the checkpoint's writer", 60 * self.config.checkpoint.max_save_minutes)


def run(config: RunConfig, mesh: jax.sharding.Mesh, watch: Watch) -> int:
    """`train` with the configuration checked and the mesh set."""
    say = print if distributed.is_first() else lambda *_: None

    # --- step ---------------------------------------------------------------------------------------------------------
    ts = make_train_step(config, mesh)
    sizes = ", ".join(f"{name} {size}" for name, size in mesh.shape.items())
    say(f"mesh: {sizes}; {mesh.size} x {mesh.local_devices[0].device_kind}, {jax.process_count()} process(es)")
    say(f"model: {lm.num_params(config.model):,} parameters")

    # --- data ---------------------------------------------------------------------------------------------------------
    data = data_input.TrainingData(config.data, vocab_size=config.model.vocab_size, seed=config.seed)
    say_plan(data, config, say)
    distributed.assert_equal_across_hosts(data.fingerprint, "the data")
    evaluator = Evaluator(config, mesh, tokenizer_hash=data.tokenizer_hash, watch=watch)

    # --- state, step and loop, the run directory being ours --------------------------------------------------------------
    lock = RunLock(Path(config.run_dir))
    distributed.on_first(lambda: lock.acquire(say))
    try:
        checkpoints = Checkpoints(config.run_dir, config.checkpoint)
        r = Run(config, ts, data, evaluator, checkpoints, lock, watch, say)
        state, start = initial_state(r)
        step_fn = compile_step(r, start)
        with Log(r, start) as log, watch.waiting("the training loop"):
            watch.looping()
            state, done = loop(r, step_fn, state, start, log)
        with r.writing():
            checkpoints.close()
        if done < config.num_steps:
            say(f"stopped by {watch.reason} at step {done:,}, saved; the same command resumes {r.dir}")
            return EXIT_SIGTERM
        if int(jax.device_get(state["skipped"])) >= done:
            raise Diverged(f"all of the {done} updates were non-finite and skipped: nothing was learned; {ADVICE}")
    finally:
        lock.release()
    say(f"done: {r.dir}")
    return 0


def initial_state(r: Run) -> tuple[State, int]:
    """State and the step to go on with: resumed, warm-started or fresh. Raises: ValueError for what does not fit the run."""
    config = r.config
    state, record, warnings = r.checkpoints.restore(r.ts.abstract_state)
    for warning in warnings:
        r.say(f"warning: {warning}; " + ("using the checkpoint before" if record else "starting from the beginning"))
    start = int(record.get("step", 0))
    if state is not None:
        check_same_run(config, r.data.fingerprint, record, r.say)
        r.say(f"resumed {r.dir} at step {start:,}")
        batches = batches_so_far(record).changed(start, config.data)
        if batches != r.data.batches:
            r.data = r.data.continued(batches)
            say_plan(r.data, config, r.say)
    elif config.init_from:
        state = warm_start(config, r.ts, r.data.tokenizer_hash, r.say)
    else:
        state = r.ts.init(jax.random.key(config.seed))
    if distributed.is_first():
        (r.dir / "config.json").write_text(overrides.to_json(config), encoding="utf-8")
        state_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(r.ts.abstract_state))
        if warning := space_warning(r.checkpoints.directory, config, start, state_bytes):
            r.say(f"warning: {warning}")
    return state, start


def compile_step(r: Run, start: int) -> Any:
    """The compiled step: once, before the first one. Says and records what it was compiled to."""
    began, device = time.monotonic(), r.ts.mesh.local_devices[0]
    lowered = r.ts.step.lower(r.ts.abstract_state, r.ts.abstract_batch)
    r.kernels = dispatch.chosen()
    step_fn, r.options = compile_lowered(lowered, device.platform, r.config.xla_flags)
    r.say(f"kernels: {', '.join(f'{operation} {backend}' for operation, backend in r.kernels.items())}")
    r.say(f"compiler options: {', '.join(f'{k}={v}' for k, v in r.options.items()) or 'none'}")
    r.say(f"compiled in {time.monotonic() - began:.1f} s")
    for line in profiling.memory_table(step_fn, r.ts.abstract_state, device):
        r.say(line)
    if distributed.is_first():
        if r.config.dump_hlo:
            files = write_hlo(r.dir / "hlo", step_fn.as_text() or "", lowered.as_text())
            r.say(f"hlo: {', '.join(map(str, files))}")
        write_start(r, start)
    return step_fn


def loop(r: Run, step_fn: Any, state: State, start: int, log: Log) -> tuple[State, int]:
    """Trains from step `start` to the last or to a signal; returns the state and the steps done."""
    config, watch, first_step, done = r.config, r.watch, r.data.first_step, start
    rows = distributed.local_rows(r.ts.abstract_batch)
    steps = r.data.steps(grad_accum=config.grad_accum, rows=rows)
    batches = data_input.iterate(steps, start - first_step, config.num_steps - first_step)
    tracer = profiling.Tracer(config, r.dir, start)
    saved_at, pending = time.monotonic(), None
    try:
        for step in range(start, config.num_steps):
            tracer.before(step)
            # The host only queues work: nothing may move between it and the device unasked.
            with jax.profiler.StepTraceAnnotation("train", step_num=step), jax.transfer_guard("disallow"):
                with watch.waiting("the data loader"):
                    host = next(batches)
                batch = distributed.to_devices(host, r.ts.abstract_batch, rows)
                state, metrics = step_fn(state, batch)
            tracer.after(step, metrics)
            # Metrics are read one step late: while the host waits for step - 1, the device has step to do.
            if pending is not None:
                log.step(*pending)
            pending, done = (step + 1, metrics), step + 1

            stopping = distributed.preempted(done, watch.received)
            last = done == config.num_steps
            evaluate = config.data.eval_sources and (last or (config.eval_every and done % config.eval_every == 0))
            permanent = config.checkpoint.keep_every and done % config.checkpoint.keep_every == 0
            save = last or stopping or permanent or due(config, done, saved_at)
            if evaluate or save:  # what is on record never lags behind a checkpoint
                log.step(*pending)
                pending = None
            if evaluate:
                log.held_out(done, r.evaluator(state["params"]))
            if save:
                record = run_record(
                    config, done, r.data.fingerprint, r.options, batches=r.data.batches, kernels=r.kernels
                )
                with r.writing():
                    r.checkpoints.save(done, state, record)
                saved_at = time.monotonic()
            r.checkpoints.check()
            r.lock.check()
            if stopping:
                break
    except Exception:
        with contextlib.suppress(Exception), r.writing():  # a save in progress is worth its time
            r.checkpoints.wait()
        raise
    finally:
        tracer.close()
    with r.writing():
        r.checkpoints.wait()
    return state, done


class Diverged(Exception):
    """Too many non-finite updates in a row."""


ADVICE = "lower schedule.peak or look at the data of these steps"


class Log:
    """Console, metrics.jsonl, eval.jsonl and TensorBoard of the first process; the non-finite count of every process."""

    def __init__(self, r: Run, start: int):
        self._config, self._start, self._watch = r.config, start, r.watch
        device = r.ts.mesh.local_devices[0]
        self._progress = Progress(r.config, device, jax.device_count(), start, r.data.batches)
        self._writer = MetricsWriter(r.dir, start) if distributed.is_first() else None

    def __enter__(self) -> Log:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # After an error the same disk fails once more.
        with contextlib.suppress(*([OSError] if kind else [])), self._watch.waiting("the files of the metrics"):
            if self._writer:
                self._writer.close()

    def step(self, done: int, metrics: dict[str, jax.Array]) -> None:
        """Waits for the step that made `metrics`, the done-th. Raises: Diverged."""
        with self._watch.waiting("the device"):
            values = {name: value.item() for name, value in jax.device_get(metrics).items()}
        row = self._progress.row(done, values)
        if self._writer:
            with self._watch.waiting("the files of the metrics"):
                self._writer.write(done, row)
            if done % self._config.log_every == 0 or done in (self._start + 1, self._config.num_steps):
                self._print(self._progress.line(done, row))
        if row["nonfinite"] >= self._config.max_nonfinite:  # type: ignore[operator]
            raise Diverged(
                f"{row['nonfinite']} non-finite updates in a row up to step {done}; {ADVICE}, then resume from the last "
                f"checkpoint in {self._config.run_dir}"
            )

    def held_out(self, done: int, results: list) -> None:
        for r in results if self._writer else []:
            values = {"loss": r.loss, "bits_per_byte": r.bits_per_byte, "tokens": r.tokens, "text_bytes": r.text_bytes}
            with self._watch.waiting("the files of the metrics"):
                self._writer.write_eval(done, r.name, values)  # type: ignore[union-attr]
            self._print(f"eval {done:>7,}  {r.name}: loss {r.loss:.4f}, {r.bits_per_byte:.4f} bits per byte")

    def _print(self, line: str) -> None:
        with self._watch.waiting("standard output"):
            print(line, flush=True)


def due(config: RunConfig, done: int, saved_at: float) -> bool:
    """Whether save_minutes have passed; with several processes the first one's clock counts, asked every log_every steps."""
    if jax.process_count() > 1 and done % config.log_every:
        return False
    return distributed.from_first(time.monotonic() - saved_at >= 60 * config.checkpoint.save_minutes)


def say_plan(data: data_input.TrainingData, config: RunConfig, say: Callable[[str], object]) -> None:
    """What the run takes from each source. Raises: ValueError when one has too little."""
    for plan in data.plan(config.num_steps):
        say(f"data: {plan.path}: {plan.share:.1%} of the mixture, {plan.tokens:,} tokens, {plan.epochs:.2f} epochs")
    data.check_enough(config.num_steps)


def write_start(r: Run, start: int) -> None:
    """A row of starts.jsonl: on what the run goes on from here, and what was chosen for it."""
    row = {
        "step": start,
        "time": round(time.time(), 3),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "device_kind": r.ts.mesh.local_devices[0].device_kind,
        "devices": r.ts.mesh.size,
        "processes": jax.process_count(),
        "mesh": dict(r.ts.mesh.shape),
        "kernels": r.kernels,
        "compiler_options": r.options,
        "versions": {name: version(name) for name in PACKAGES},
    }
    with (r.dir / "starts.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    watch.end(main(sys.argv[1:]))
