"""Times the training step itself: synthetic batches, the compiled step of training, no input pipeline, no checkpoints."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from opencoder_data.shard_format import BATCH_FIELDS

from opencoder_jax import distributed
from opencoder_jax.compiled import step_memory, write_hlo
from opencoder_jax.config import RunConfig
from opencoder_jax.flops import mfu
from opencoder_jax.sharding import make_mesh
from opencoder_jax.step import make_train_step
from opencoder_jax.xla_flags import compile_lowered


@dataclass(frozen=True)
class Measurement:
    """Of the timed steps: seconds of each, losses of all steps from the first; sizes in bytes of one device."""

    device_kind: str
    num_devices: int
    mesh: dict[str, int]
    step_seconds: list[float]
    losses: list[float]
    compile_seconds: float
    compiled_bytes: int  # peak, as the compiler counts it (`compiled.StepMemory`)
    peak_bytes: int | None  # as the device counted it, None where it does not (CPU)
    tokens_per_step: int
    tokens_per_second: float
    mfu_causal: float | None
    mfu_full: float | None
    compiler_options: dict[str, Any]

    @property
    def median_seconds(self) -> float:
        return statistics.median(self.step_seconds)


def synthetic_batch(config: RunConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """[grad_accum, B, T] arrays in the form of a training batch: random tokens, two documents to a record."""
    A, T = config.grad_accum, config.data.seq_len
    B = config.data.global_batch_size // A
    tokens = np.random.default_rng(seed).integers(0, config.model.vocab_size, (A, B, T + 1), np.int32)
    segment = np.broadcast_to((np.arange(T) >= T // 2).astype(np.int32), (A, B, T))
    batch = {
        "tokens": tokens[..., :-1],
        "targets": tokens[..., 1:],
        "positions": np.arange(T, dtype=np.int32) - segment * (T // 2),
        "segment_ids": segment + 1,
        "loss_mask": np.ones((A, B, T), bool),
    }
    assert set(batch) == set(BATCH_FIELDS)
    return {
        name: np.ascontiguousarray(value, np.bool_ if name == "loss_mask" else np.int32)
        for name, value in batch.items()
    }


def measure(
    config: RunConfig,
    *,
    steps: int,
    warmup: int = 2,
    traced: int = 0,
    trace_dir: Path | None = None,
    hlo_dir: Path | None = None,
    devices: Sequence[Any] | None = None,
) -> Measurement:
    """Compiles the step and runs it `warmup` + `steps` + `traced` times on batches 0, 1, ... of a fixed stream.

    Args: steps: timed ones. traced: further ones, under the profiler and not timed; the xprof trace goes to trace_dir.
    hlo_dir: HLO before and after optimisation go there. devices: all of them unless given.
    Raises: ValueError when config and devices do not fit; JaxRuntimeError when memory does not suffice.
    """
    mesh = make_mesh(config.mesh, devices)
    with jax.set_mesh(mesh):
        built = make_train_step(config, mesh)
        began = time.monotonic()
        lowered = built.step.lower(built.abstract_state, built.abstract_batch)
        step, options = compile_lowered(lowered, mesh.devices.flat[0].platform, config.xla_flags)
        compile_seconds = time.monotonic() - began
        if hlo_dir is not None:
            write_hlo(hlo_dir, step.as_text() or "", lowered.as_text())
        state = built.init(jax.random.key(config.seed))
        rows = distributed.local_rows(built.abstract_batch)
        seconds, losses = [], []
        for i in range(warmup + steps + traced):
            whole = synthetic_batch(config, seed=i)
            local = {name: value[:, rows[0] : rows[1]] for name, value in whole.items()}
            batch = jax.block_until_ready(distributed.to_devices(local, built.abstract_batch, rows))
            if trace_dir is not None and i == warmup + steps:
                jax.profiler.start_trace(str(trace_dir))
            start = time.perf_counter()
            with jax.profiler.StepTraceAnnotation("train", step_num=i):
                state, metrics = step(state, batch)
                jax.block_until_ready((state, metrics))
            if warmup <= i < warmup + steps:
                seconds.append(time.perf_counter() - start)
            losses.append(float(metrics["loss"]))
        if trace_dir is not None and traced:
            jax.profiler.stop_trace()
    device = mesh.local_devices[0]
    stats, memory = device.memory_stats() or {}, step_memory(step)
    tokens = config.data.global_batch_size * config.data.seq_len
    rate = tokens / statistics.median(seconds)
    utilization = mfu(rate / mesh.size, config.model, config.data.seq_len, device.device_kind)
    return Measurement(
        device_kind=device.device_kind,
        num_devices=mesh.size,
        mesh=dict(zip(mesh.axis_names, mesh.devices.shape, strict=True)),
        step_seconds=seconds,
        losses=losses,
        compile_seconds=compile_seconds,
        compiled_bytes=memory.peak if memory else 0,
        peak_bytes=stats.get("peak_bytes_in_use"),
        tokens_per_step=tokens,
        tokens_per_second=rate,
        mfu_causal=utilization.causal,
        mfu_full=utilization.full,
        compiler_options=options,
    )
