"""Runs the GPU and TPU kernels on a CPU, in the interpreters that come with Pallas."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar

import jax
from jax.sharding import AbstractDevice, AbstractMesh

_interpreted: ContextVar[str | None] = ContextVar("interpreted", default=None)


def is_interpreted(device: str) -> bool:
    """Whether kernels traced now are for the interpreter of "gpu" or "tpu": some constructs have a form that it can run."""
    return _interpreted.get() == device


@contextlib.contextmanager
def gpu(detect_races: bool = True):
    """Within it, Mosaic GPU kernels run in the interpreter, as on an H100 with every memory poisoned at first.

    With detect_races, accesses of shared or global memory that no barrier orders raise an error (are printed by jax 0.11).
    """
    from jax.experimental.pallas import mosaic_gpu as plgpu

    device = AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu")
    mesh = AbstractMesh((), (), abstract_device=device)
    flag = _interpreted.set("gpu")
    try:
        with (
            jax.sharding.use_abstract_mesh(mesh),
            plgpu.force_gpu_interpret_mode(plgpu.InterpretGPUParams(detect_races=detect_races)),
        ):
            yield
    finally:
        _interpreted.reset(flag)


@contextlib.contextmanager
def tpu(detect_races: bool = True):
    """Within it, Pallas TPU kernels run in the TPU interpreter, every memory poisoned at first.

    A block of an output keeps its place from one step of the grid to the next: what a later step does not write holds what
    an earlier one wrote, not NaN. With detect_races, accesses that no semaphore orders raise an error.
    """
    from jax.experimental.pallas import tpu as pltpu

    flag = _interpreted.set("tpu")
    try:
        with pltpu.force_tpu_interpret_mode(
            pltpu.InterpretParams(detect_races=detect_races, uninitialized_memory="nan")
        ):
            yield
    except BaseException:
        pltpu.reset_tpu_interpret_mode_state()  # which a failed kernel leaves behind
        raise
    finally:
        _interpreted.reset(flag)
