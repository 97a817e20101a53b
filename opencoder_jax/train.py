"""Trains a model: `python -m opencoder_jax.train --config=tiny --data.sources=PATH`.

Reads from top to bottom: configuration, mesh, data, state, loop. An existing run in `run_dir` is resumed, bit for bit
as if it had never stopped; `init_from` starts a new run from another's parameters and optimizer state (annealing).
Exit codes: 0 done, 2 refused (one line says why), 3 stopped by SIGTERM after saving, 4 too many non-finite updates.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import jax

from opencoder_jax import distributed, overrides, profiling
from opencoder_jax import input as data_input
from opencoder_jax import model as lm
from opencoder_jax.checkpoint import Checkpoints, load_state, resolve, run_record, silence_abandoned_writes
from opencoder_jax.config import RunConfig, check, replace
from opencoder_jax.evaluate import Evaluator
from opencoder_jax.metrics import MetricsWriter, Progress
from opencoder_jax.sharding import make_mesh
from opencoder_jax.step import State, TrainStep, make_train_step
from opencoder_jax.xla_flags import compile_lowered, set_memory_fraction

EXIT_REFUSED, EXIT_SIGTERM, EXIT_NONFINITE = 2, 3, 4


def main(arguments: list[str]) -> int:
    # Orbax logs a failed save with its whole stack; the trainer says it in one line.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    silence_abandoned_writes()
    try:
        config = overrides.parse(arguments)
        set_memory_fraction()
        distributed.initialize()
        return train(config)
    except Diverged as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_NONFINITE
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_REFUSED
    except OSError as error:
        print(f"error: {error.filename or 'files of the run'}: {error.strerror or error}", file=sys.stderr)
        return EXIT_REFUSED


def train(config: RunConfig) -> int:
    """Runs `config` to its last step; returns the exit code.

    Raises: ValueError for what the user must change, Diverged after `max_nonfinite` non-finite updates in a row.
    """
    stop = StopSignal()

    # --- configuration ------------------------------------------------------------------------------------------------
    config = replace(config, run_dir=config.run_dir or f"runs/{config.name}")
    check(config)
    distributed.same_everywhere(config, "the configuration")
    for name, value in overrides.leaves(config) if distributed.is_first() else ():
        print(f"config: {name}={value}")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", ".jax_cache")

    mesh = make_mesh(config.mesh)
    with jax.set_mesh(mesh):
        return run(config, mesh, stop)


def run(config: RunConfig, mesh: jax.sharding.Mesh, stop: StopSignal) -> int:
    """`train` with the configuration checked and the mesh set."""
    run_dir, first = Path(config.run_dir), distributed.is_first()
    say = print if first else lambda *_, **__: None

    # --- step ---------------------------------------------------------------------------------------------------------
    ts = make_train_step(config, mesh)
    device = mesh.local_devices[0]
    sizes = ", ".join(f"{name} {size}" for name, size in mesh.shape.items())
    say(f"mesh: {sizes}; {mesh.size} x {device.device_kind}, {jax.process_count()} process(es)")
    say(f"model: {lm.num_params(config.model):,} parameters, back end of the kernels: {config.model.implementation}")

    # --- data ---------------------------------------------------------------------------------------------------------
    data = data_input.TrainingData(config.data, vocab_size=config.model.vocab_size, seed=config.seed)
    for plan in data.plan(config.num_steps):
        say(f"data: {plan.path}: {plan.share:.1%} of the mixture, {plan.tokens:,} tokens, {plan.epochs:.2f} epochs")
    data.check_enough(config.num_steps)
    distributed.same_everywhere(data.fingerprint, "the data")
    evaluator = Evaluator(config, mesh, tokenizer_hash=data.tokenizer_hash)

    # --- state: resumed, taken over, or fresh -------------------------------------------------------------------------
    if first:
        run_dir.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(run_dir, config.checkpoint)
    state, record, complaints = checkpoints.restore(ts.abstract_state)
    for complaint in complaints:
        say(f"warning: {complaint}; " + ("using the checkpoint before" if record else "starting from the beginning"))
    if state is not None:
        check_same_run(config, data.fingerprint, record, say)
        say(f"resumed {run_dir} at step {record['step']:,}")
    elif config.init_from:
        state = take_over(config, ts, say)
    else:
        state = ts.init(jax.random.key(config.seed))
    start = int(record.get("step", 0))
    if first:
        (run_dir / "config.json").write_text(overrides.to_json(config))

    # --- compile: once, before the first step -------------------------------------------------------------------------
    began = time.monotonic()
    lowered = ts.step.lower(ts.abstract_state, ts.abstract_batch)
    step_fn, options = compile_lowered(lowered, device.platform, config.xla_flags)
    say(f"compiler options: {', '.join(f'{k}={v}' for k, v in options.items()) or 'none'}")
    say(f"compiled in {time.monotonic() - began:.1f} s")
    for line in profiling.memory_table(step_fn, ts.abstract_state, device):
        say(line)
    if config.dump_hlo and first:
        say("hlo: " + ", ".join(map(str, profiling.dump_hlo(lowered, step_fn, run_dir))))

    # --- loop ---------------------------------------------------------------------------------------------------------
    rows = distributed.local_rows(ts.abstract_batch)
    batches = data_input.iterate(data.steps(grad_accum=config.grad_accum, rows=rows), start, config.num_steps)
    log = Log(config, run_dir, device, start, first)
    tracer = profiling.Tracer(config, run_dir, start)
    saved_at, pending, stopping = time.monotonic(), None, False
    try:
        for step in range(start, config.num_steps):
            tracer.before(step)
            # The host only queues work: nothing may move between it and the device unasked.
            with jax.profiler.StepTraceAnnotation("train", step_num=step), jax.transfer_guard("disallow"):
                batch = distributed.to_devices(next(batches), ts.abstract_batch, rows)
                state, metrics = step_fn(state, batch)
            tracer.after(step, metrics)
            # Metrics are read one step late: while the host waits for step - 1, the device has step to do.
            if pending is not None:
                log.step(*pending)
            pending, done = (step + 1, metrics), step + 1

            stopping = distributed.preempted(done, stop.received)
            last = done == config.num_steps
            evaluate = config.data.eval_sources and (last or (config.eval_every and done % config.eval_every == 0))
            permanent = config.checkpoint.keep_every and done % config.checkpoint.keep_every == 0
            save = last or stopping or permanent or due(config, done, saved_at)
            if evaluate or save:  # what is on record never lags behind a checkpoint
                log.step(*pending)
                pending = None
            if evaluate:
                log.held_out(done, evaluator(state["params"]))
            if save:
                checkpoints.save(done, state, run_record(config, done, data.fingerprint, options))
                saved_at = time.monotonic()
            checkpoints.check()
            if stopping:
                break
        checkpoints.wait()
    finally:
        tracer.close()
        log.close()
    checkpoints.close()
    if stopping:
        say(f"stopped by SIGTERM at step {done:,}, saved; the same command resumes {run_dir}")
        return EXIT_SIGTERM
    say(f"done: {run_dir}")
    return 0


class Diverged(Exception):
    """Too many non-finite updates in a row."""


class StopSignal:
    """SIGTERM sets `received`: the loop saves after the step at hand.

    With several processes the signal belongs to JAX's preemption service, which all of them ask (`distributed.preempted`).
    """

    def __init__(self):
        self.received = False
        if jax.process_count() == 1:
            signal.signal(signal.SIGTERM, self._set)

    def _set(self, *_):
        self.received = True


class Log:
    """Console, metrics.jsonl, eval.jsonl and TensorBoard of the first process; the non-finite count of every process."""

    def __init__(self, config: RunConfig, run_dir: Path, device: Any, start: int, first: bool):
        self._config, self._start = config, start
        self._progress = Progress(config, device, jax.device_count(), start)
        self._writer = MetricsWriter(run_dir, start) if first else None

    def step(self, done: int, metrics: dict[str, jax.Array]) -> None:
        """Waits for the step that made `metrics`, the done-th. Raises: Diverged."""
        row = self._progress.row(done, {name: value.item() for name, value in jax.device_get(metrics).items()})
        if self._writer:
            self._writer.write(done, row)
            if done % self._config.log_every == 0 or done in (self._start + 1, self._config.num_steps):
                print(self._progress.line(done, row), flush=True)
        if row["nonfinite"] >= self._config.max_nonfinite:  # type: ignore[operator]
            raise Diverged(
                f"{row['nonfinite']} non-finite updates in a row up to step {done}; lower schedule.peak or look at the data "
                f"of these steps, then resume from the last checkpoint in {self._config.run_dir}"
            )

    def held_out(self, done: int, results: list) -> None:
        for r in results if self._writer else []:
            values = {"loss": r.loss, "bits_per_byte": r.bits_per_byte, "tokens": r.tokens, "text_bytes": r.text_bytes}
            self._writer.write_eval(done, r.name, values)  # type: ignore[union-attr]
            print(f"eval {done:>7,}  {r.name}: loss {r.loss:.4f}, {r.bits_per_byte:.4f} bits per byte", flush=True)

    def close(self) -> None:
        if self._writer:
            self._writer.close()


def due(config: RunConfig, done: int, saved_at: float) -> bool:
    """Whether save_minutes have passed; with several processes the first one's clock counts, asked every log_every steps."""
    if jax.process_count() > 1 and done % config.log_every:
        return False
    return distributed.from_first(time.monotonic() - saved_at >= 60 * config.checkpoint.save_minutes)


def take_over(config: RunConfig, ts: TrainStep, say) -> State:
    """Parameters and optimizer state of another run's last checkpoint, counters from 0: annealing and tuning start so.

    Raises: ValueError when there is none, or it is of another architecture.
    """
    checkpoint = resolve(config.init_from)
    state, record = load_state(checkpoint, ts.abstract_state)
    say(
        f"parameters and optimizer state taken over from {checkpoint} (step {record['step']:,} of {record['config']['name']})"
    )
    counters = {name: state[name] for name in ("step", "nonfinite", "skipped")}
    return state | jax.tree.map(jax.numpy.zeros_like, counters)


def check_same_run(config: RunConfig, fingerprint: dict[str, str], record: dict[str, Any], say) -> None:
    """Says which fields changed since the checkpoint. Raises: ValueError when data or seed did, unless allowed."""
    for line in overrides.changes(overrides.from_dict(record["config"]), config):
        say(f"warning: changed since the checkpoint: {line}")
    changed = [name for name, value in fingerprint.items() if record["data"].get(name) != value]
    changed += ["seed"] if record["random"]["seed"] != config.seed else []
    if changed and not config.checkpoint.allow_data_change:
        raise ValueError(
            f"{config.run_dir}: {', '.join(changed)} changed since this run was saved: the steps to come would see other "
            "data. Restore it, use a new run_dir (with init_from), or pass --checkpoint.allow_data_change"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
