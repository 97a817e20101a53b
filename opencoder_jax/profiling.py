"""What XLA made of the step, and where its time goes: memory table, HLO text, xprof traces."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax

from opencoder_jax.config import RunConfig, profile_steps


class Tracer:
    """Writes an xprof trace of `profile.steps` to RUN/profile, where TensorBoard's profile plugin finds it."""

    def __init__(self, config: RunConfig, run_dir: Path, start: int):
        self._steps, self._directory, self._on = profile_steps(config), run_dir / "profile", False
        if self._steps and not start <= self._steps.start < config.num_steps:
            print(
                f"warning: profile.steps={config.profile.steps} is outside steps {start}..{config.num_steps - 1}: no trace"
            )
            self._steps = range(0)

    def before(self, step: int) -> None:
        if self._steps and step == self._steps.start:
            jax.profiler.start_trace(str(self._directory))
            self._on = True

    def after(self, step: int, results: Any) -> None:
        """results: arrays of the step, waited for before a trace ends so that it holds the whole step."""
        if self._on and step == self._steps.stop - 1:
            jax.block_until_ready(results)
            self.close()

    def close(self) -> None:
        if self._on:
            jax.profiler.stop_trace()
            self._on = False
            print(f"trace: {self._directory} (tensorboard --logdir {self._directory})")


def memory_table(compiled: jax.stages.Compiled, abstract_state: Any, device: Any) -> list[str]:
    """Bytes per device of a compiled step, as lines: what stays, what the step needs on top, and what the device has."""

    def size(tree) -> int:
        shards = (x.sharding.shard_shape(x.shape) for x in jax.tree.leaves(tree))
        items = zip(jax.tree.leaves(tree), shards, strict=True)
        return sum(x.dtype.itemsize * math.prod(shape) for x, shape in items)

    rows = {"parameters": size(abstract_state["params"]), "optimizer state": size(abstract_state["opt_state"])}
    m = compiled.memory_analysis()
    if m is not None:
        rows["batch and scalars"] = max(0, m.argument_size_in_bytes - sum(rows.values()))
        rows["results not in place"] = max(0, m.output_size_in_bytes - m.alias_size_in_bytes)
        rows["temporaries"] = m.temp_size_in_bytes
        rows["code"] = m.generated_code_size_in_bytes
    rows["sum"] = sum(rows.values())
    if limit := (device.memory_stats() or {}).get("bytes_limit"):
        rows["available"] = limit
    return [f"memory per device: {name:<22}{value / 2**20:>12,.1f} MiB" for name, value in rows.items()]


def dump_hlo(lowered: jax.stages.Lowered, compiled: jax.stages.Compiled, run_dir: Path) -> list[Path]:
    """Writes the step before (StableHLO) and after optimisation (HLO); returns the files."""
    directory = run_dir / "hlo"
    directory.mkdir(parents=True, exist_ok=True)
    files = {
        directory / "train_step.stablehlo.mlir": lowered.as_text(),
        directory / "train_step.optimized.hlo": compiled.as_text(),
    }
    for path, text in files.items():
        path.write_text(text or "")
    return list(files)
