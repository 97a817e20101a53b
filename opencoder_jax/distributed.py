"""Several processes, one run: start-up, which rows of a batch a process reads, and how it hands them over."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


@dataclass(frozen=True)
class Coordinates:
    """Where a process meets the others. local_devices: ids of the node's devices that are its own, None for all."""

    address: str  # host:port of process 0
    num_processes: int
    process_id: int
    local_devices: tuple[int, ...] | None = None

    def variables(self) -> dict[str, str]:
        """What says so in an environment."""
        return dict(zip(_JAX_VARIABLES, (self.address, str(self.num_processes), str(self.process_id)), strict=True))


def coordinates(environ: Mapping[str, str]) -> Coordinates | None:
    """From JAX_COORDINATOR_ADDRESS=host:port, JAX_NUM_PROCESSES and JAX_PROCESS_ID; what of them is unset, from Slurm's
    variables of a step (`srun`). None when neither says that there are several processes.

    A Slurm task that is alone on its node takes all of the node's devices; jax.distributed would give it the first one.
    Raises: ValueError when variables are missing or no numbers.
    """
    address, count, index = (environ.get(name) for name in _JAX_VARIABLES)
    local = None
    if "SLURM_STEP_NODELIST" in environ and "SLURM_PROCID" in environ:
        tasks = environ.get("SLURM_STEP_NUM_TASKS") or environ.get("SLURM_NTASKS", "1")
        if tasks == "1" and not address:
            return None
        address = address or f"{_first_host(environ['SLURM_STEP_NODELIST'])}:{_port(environ['SLURM_JOB_ID'])}"
        count, index = count or tasks, index or environ["SLURM_PROCID"]
        shared = tasks != environ.get("SLURM_STEP_NUM_NODES", tasks)
        # With --gpus-per-task Slurm shows a task its own device only.
        if shared and len(environ.get("CUDA_VISIBLE_DEVICES", ",").split(",")) > 1:
            local = (int(environ["SLURM_LOCALID"]),)
    if not address:
        if count or index:
            raise ValueError("JAX_NUM_PROCESSES or JAX_PROCESS_ID is set; set JAX_COORDINATOR_ADDRESS=host:port too")
        return None
    said = " ".join(f"{n}={v}" for n, v in zip(_JAX_VARIABLES, (address, count, index), strict=True))
    if not (count or "").isdigit() or not (index or "").isdigit() or not re.fullmatch(r".+:\d+", address):
        raise ValueError(f"{said}: set host:port, the number of processes and this one's, from 0")
    found = Coordinates(address, int(count or 0), int(index or 0), local)
    if found.process_id >= found.num_processes:
        raise ValueError(f"{said}: processes count from 0 to {found.num_processes - 1}")
    return found


_JAX_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def _first_host(nodes: str) -> str:
    """`node[001-004,7]-ib,other` -> `node001-ib`."""
    found = re.match(r"([^\[,]*)(?:\[([^\],-]*)[^\]]*\]([^\[,]*))?", nodes)
    assert found is not None
    return "".join(part or "" for part in found.groups())


def _port(job: str) -> int:
    """One of the last 4,096 ports, so that two jobs on a node seldom meet."""
    return 61_440 + int(job) % 4_096


def initialize() -> None:
    """Joins the other processes, if there are any; before anything touches a device.

    Their place is found by `coordinates`; under Open MPI and on Cloud TPU pods by `jax.distributed`. One process
    without any of these is left alone.

    Raises: ValueError when the variables contradict one another.
    """
    found = coordinates(os.environ)
    if found is not None:
        join(found)
    elif found_by_jax(os.environ):
        _use_gloo_on_cpu()
        jax.distributed.initialize()


def found_by_jax(environ: Mapping[str, str]) -> bool:
    """Whether there are several processes that only `jax.distributed` can place: Open MPI, Cloud TPU pods."""
    workers = environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
    return len(workers) > 1 or "MEGASCALE_COORDINATOR_ADDRESS" in environ or "OMPI_COMM_WORLD_SIZE" in environ


def join(place: Coordinates) -> None:
    """Meets the other processes; touches no device."""
    _use_gloo_on_cpu()
    jax.distributed.initialize(
        place.address, place.num_processes, place.process_id, place.local_devices, cluster_detection_method="deactivate"
    )


def _use_gloo_on_cpu() -> None:
    if jax.config.jax_platforms == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")


def is_first() -> bool:
    """True in the one process that prints and writes metrics."""
    return jax.process_index() == 0


def local_rows(abstract_batch: dict[str, jax.ShapeDtypeStruct]) -> tuple[int, int]:
    """(start, stop) of the rows of a micro-batch that this process's devices need.

    Args: abstract_batch: [A, B, T] each, with shardings. Where the devices' rows are not an aligned run, all rows: more
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


def assert_equal_across_hosts(value: Mapping[str, Any], what: str) -> None:
    """Raises ValueError, with the names whose values differ, when the processes disagree.

    Args: value: by name, the same names on every process of one version. Compared by a hash of each value's `repr`.
    """
    if jax.process_count() == 1:
        return
    hashes = [hashlib.sha256(f"{name}={item!r}".encode()).digest() for name, item in value.items()]
    whole = np.frombuffer(hashlib.sha256(b"".join(hashes)).digest() + len(hashes).to_bytes(8, "little"), np.uint8)
    everyone = np.asarray(multihost_utils.process_allgather(whole))
    differing = [i for i, row in enumerate(everyone) if not np.array_equal(row, everyone[0])]
    if not differing:
        return
    names: list[str] = []
    if np.array_equal(everyone[:, 32:], np.broadcast_to(everyone[0, 32:], (len(everyone), 8))):
        each = np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 32)
        rows = np.asarray(multihost_utils.process_allgather(each))
        names = [name for i, name in enumerate(value) if len(np.unique(rows[:, i], axis=0)) > 1]
    fields = f" ({', '.join(names)})" if names else ""
    raise ValueError(
        f"{what} differs between process 0 and processes {differing}{fields}: start all with the same command"
    )


def from_first(value: bool) -> bool:
    """The first process's value, everywhere. With several processes a small collective behind the steps in flight."""
    return bool(multihost_utils.broadcast_one_to_all(np.bool_(value))) if jax.process_count() > 1 else value


def on_first(work: Callable[[], object]) -> None:
    """Runs `work` in the first process; when it fails there, all raise.

    Raises: the ValueError or OSError of `work`; in the other processes a ValueError that points to it.
    """
    error: Exception | None = None
    if is_first():
        try:
            work()
        except (ValueError, OSError) as failure:
            error = failure
    if not from_first(error is None):
        raise error or ValueError("process 0 was rejected, and says why")
