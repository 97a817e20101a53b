"""Runs the GPU and TPU kernels on a CPU, in the interpreters that come with Pallas."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import wraps
from typing import Any

import jax
from jax.sharding import AbstractDevice, AbstractMesh

_interpreted: ContextVar[str | None] = ContextVar("interpreted", default=None)
_detect_races: ContextVar[bool] = ContextVar("detect_races", default=True)
_one_device = threading.Lock()


def is_interpreted(device: str) -> bool:
    """Whether kernels traced now are for the interpreter of "gpu" or "tpu": some constructs have a form that it can run."""
    return _interpreted.get() == device


@contextlib.contextmanager
def gpu(detect_races: bool = True) -> Iterator[None]:
    """Within it, Mosaic GPU kernels run in the interpreter, as on H100s in the current mesh; memory starts filled with NaN.

    With detect_races, accesses of shared or global memory that no barrier orders raise an error (are printed by jax 0.11).
    """
    from jax.experimental.pallas import mosaic_gpu as plgpu

    device = AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu")
    here = jax.sharding.get_abstract_mesh()
    mesh = AbstractMesh(here.axis_sizes, here.axis_names, axis_types=here.axis_types, abstract_device=device)
    flag, races = _interpreted.set("gpu"), _detect_races.set(detect_races)
    try:
        with (
            jax.sharding.use_abstract_mesh(mesh),
            plgpu.force_gpu_interpret_mode(plgpu.InterpretGPUParams(detect_races=detect_races)),
        ):
            yield
    finally:
        _interpreted.reset(flag)
        _detect_races.reset(races)


def on_each_device(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """`kernel` inside a shard_map over several devices that the GPU interpreter plays; elsewhere the kernel itself.

    That interpreter keeps one state for all devices and, when one of them has finished a block of its grid, resets the clocks
    and then counts the barriers of all: races are found where there are none. So each device's kernel (a function of arrays
    and Nones, without collectives) is run by the host, as on a machine with one device, and one after another.
    """
    if not is_interpreted("gpu") or jax.sharding.get_abstract_mesh().size == 1:
        return kernel
    races, compiled = _detect_races.get(), jax.jit(kernel)

    def alone(*args):
        with _one_device, gpu(races):
            return jax.block_until_ready(compiled(*args))

    @wraps(kernel)
    def run(*args):
        return jax.pure_callback(alone, jax.eval_shape(kernel, *args), *args)

    return run


@contextlib.contextmanager
def tpu(detect_races: bool = True) -> Iterator[None]:
    """Within it, Pallas TPU kernels run in the TPU interpreter; memory starts filled with NaN.

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
