"""What XLA made of the step, and where its time goes: memory table, xprof traces."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax

from opencoder_jax.compiled import step_memory
from opencoder_jax.config import RunConfig


class Tracer:
    """Writes an xprof trace of `profile.steps` to RUN/profile, where TensorBoard's profile plugin finds it."""

    def __init__(self, config: RunConfig, run_dir: Path, start: int):
        asked = config.profile.steps
        self._steps, self._directory, self._on = asked.steps() if asked else range(0), run_dir / "profile", False
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
    if (m := step_memory(compiled)) is not None:
        rows["batch and scalars"] = max(0, m.arguments - sum(rows.values()))
        rows["results not in place"] = m.results
        rows["temporaries"] = m.temporaries
        rows["peak"] = m.peak
        rows["code"] = m.code
    if limit := (device.memory_stats() or {}).get("bytes_limit"):
        rows["available"] = limit
    return [f"memory per device: {name:<22}{value / 2**20:>12,.1f} MiB" for name, value in rows.items()]
