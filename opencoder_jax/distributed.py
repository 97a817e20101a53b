"""Several processes, one run: start-up, which rows of a batch a process reads, and how it hands them over."""

from __future__ import annotations

import os
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def initialize() -> None:
    """Joins the other processes, if there are any; before anything touches a device.

    From the environment: JAX_COORDINATOR_ADDRESS=host:port, JAX_NUM_PROCESSES and JAX_PROCESS_ID; what is unset, and
    everything under Slurm, Open MPI, Kubernetes or on Cloud TPU pods, is found by `jax.distributed`. One process without
    any of these is left alone.

    Raises: ValueError when the three variables contradict one another.
    """
    address, count, index = (
        os.environ.get(name) for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    )
    slurm = int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in os.environ
    cloud = (
        len(os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")) > 1 or "MEGASCALE_COORDINATOR_ADDRESS" in os.environ
    )
    if not (address or slurm or cloud or "OMPI_COMM_WORLD_SIZE" in os.environ):
        if count or index:
            raise ValueError("JAX_NUM_PROCESSES or JAX_PROCESS_ID is set; set JAX_COORDINATOR_ADDRESS=host:port too")
        return
    if jax.config.jax_platforms == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            address, num_processes=int(count) if count else None, process_id=int(index) if index else None
        )
    except ValueError as error:
        raise ValueError(
            f"JAX_COORDINATOR_ADDRESS={address} JAX_NUM_PROCESSES={count} JAX_PROCESS_ID={index}: {error}"
        ) from error


def is_first() -> bool:
    """True in the one process that prints and writes metrics."""
    return jax.process_index() == 0


def local_rows(abstract_batch: dict[str, jax.ShapeDtypeStruct]) -> tuple[int, int]:
    """(start, stop) of the rows of a micro-batch that this process's devices need.

    Args: abstract_batch: [A, B, T] each, with shardings. Where the devices' rows are no aligned run, all rows: more
    reading, same result.
    """
    layout = next(iter(abstract_batch.values()))
    num_rows = layout.shape[1]
    assert layout.sharding is not None
    indices = layout.sharding.addressable_devices_indices_map(layout.shape)
    rows = sorted({index[1].indices(num_rows)[:2] for index in indices.values() if index is not None})
    start, stop = rows[0][0], max(b for _, b in rows)
    whole = sum(b - a for a, b in rows) == stop - start
    return (start, stop) if whole and start % (stop - start) == 0 and num_rows % (stop - start) == 0 else (0, num_rows)


def to_devices(
    batch: dict[str, np.ndarray], abstract_batch: dict[str, jax.ShapeDtypeStruct], rows: tuple[int, int]
) -> dict[str, jax.Array]:
    """Global arrays [A, B, T] from this process's rows [A, stop - start, T]; the transfer does not wait."""

    def place(shape: jax.ShapeDtypeStruct, local: np.ndarray) -> jax.Array:
        sharding = shape.sharding
        assert sharding is not None
        parts = []
        for device, index in sharding.addressable_devices_indices_map(shape.shape).items():
            assert index is not None
            start, stop, _ = index[1].indices(shape.shape[1])
            part = local[index[0], start - rows[0] : stop - rows[0], index[2]]
            parts.append(jax.device_put(part, device))  # said outright: the transfer guard lets it pass
        return jax.make_array_from_single_device_arrays(shape.shape, sharding, parts)

    return {name: place(shape, batch[name]) for name, shape in abstract_batch.items()}


def preempted(step: int, signalled: bool) -> bool:
    """Whether all processes should save after this step and leave; to be asked by all of them at every step.

    One process: `signalled`, its own SIGTERM flag. Several: JAX's preemption service spreads a SIGTERM that any of them
    received and names one common step.
    """
    return multihost_utils.reached_preemption_sync_point(step) if jax.process_count() > 1 else signalled


def same_everywhere(value: Any, what: str) -> None:
    """Raises ValueError when the processes disagree about a value (a configuration, a checkpoint's step)."""
    if jax.process_count() == 1:
        return
    digest = np.frombuffer(repr(value).encode()[:4096].ljust(4096, b"\0"), np.uint8)
    everyone = multihost_utils.process_allgather(digest)
    differing = [i for i, row in enumerate(np.asarray(everyone)) if not np.array_equal(row, everyone[0])]
    if differing:
        raise ValueError(f"{what} differs between process 0 and processes {differing}: start all with the same command")


def from_first(value: bool) -> bool:
    """The first process's value, everywhere. With several processes a small collective behind the steps in flight."""
    return bool(multihost_utils.broadcast_one_to_all(np.bool_(value))) if jax.process_count() > 1 else value
