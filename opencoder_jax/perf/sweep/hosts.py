"""A sweep over several hosts: one process on each starts the children there; the first decides which and keeps the results.

The processes that start children never touch a device: what they have to tell one another goes through JAX's
coordination service alone. A child's own service listens on a port of its own, so that none can meet a former mesh's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from opencoder_jax import distributed

PATIENCE = 24 * 3600  # s; a host that died is noticed by the service's heartbeats long before


@dataclass
class Hosts:
    """This process among those of the sweep. local_devices: of each host, None where one host takes what a mesh asks."""

    place: distributed.Coordinates | None = None
    local_devices: int | None = None
    _told: int = field(default=0, repr=False)

    @property
    def is_first(self) -> bool:
        return self.place is None or self.place.process_id == 0

    def from_first(self, value: str) -> str:
        """The first process's value; all have to ask, in the same order."""
        if self.place is None:
            return value
        self._told += 1
        return self._exchange(f"first/{self._told}", value if self.is_first else None)

    def from_all(self, value: str) -> list[str]:
        """Everybody's value, by process; all have to ask, in the same order."""
        if self.place is None:
            return [value]
        self._told += 1
        _client().key_value_set(f"all/{self._told}/{self.place.process_id}", value)
        return [self._exchange(f"all/{self._told}/{i}", None) for i in range(self.place.num_processes)]

    def _exchange(self, key: str, value: str | None) -> str:
        if value is not None:
            _client().key_value_set(key, value)
        return _client().blocking_key_value_get(key, 1000 * PATIENCE)

    def taken(self, num_devices: int) -> int:
        """Hosts that a mesh of so many devices takes, from the first. Raises: ValueError when it is not whole hosts."""
        if self.place is None or self.local_devices is None or num_devices <= self.local_devices:
            return 1
        hosts, rest = divmod(num_devices, self.local_devices)
        if rest or hosts > self.place.num_processes:
            sizes = [n * self.local_devices for n in range(1, self.place.num_processes + 1)]
            raise ValueError(
                f"the mesh asks for {num_devices} devices of {self.place.num_processes} processes with"
                f" {self.local_devices} each; sizes that fit: up to {self.local_devices}, or one of {sizes}"
            )
        return hosts

    def variables(self, num_devices: int, index: int) -> dict[str, str] | None:
        """What tells a child of the index-th mesh where it meets the others; None where it takes no part."""
        if self.place is None:
            return {}
        hosts = self.taken(num_devices)
        if self.place.process_id >= hosts:
            return None
        host, _, port = self.place.address.rpartition(":")
        own_port = 1024 + (int(port) - 1024 + 1 + index) % (65_536 - 1024)
        return replace(self.place, address=f"{host}:{own_port}", num_processes=hosts).variables()


def join(environ: Mapping[str, str], *, fake: bool) -> Hosts:
    """Meets the other processes, if the environment names them.

    Raises: ValueError when only JAX itself could find them, from a device.
    """
    place = distributed.coordinates(environ)
    if place is None:
        if distributed.found_by_jax(environ):
            raise ValueError(
                "a sweep over several hosts needs JAX_COORDINATOR_ADDRESS=host:port, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
            )
        return Hosts()
    if place.num_processes == 1:
        return Hosts()
    distributed.join(place)
    hosts = Hosts(place)
    local = str(len(place.local_devices)) if place.local_devices else _count_devices(fake)
    hosts.local_devices = int(hosts.from_first(local))
    return hosts


def _count_devices(fake: bool) -> str:
    """In a process of its own: this one must not hold what its children need."""
    environment = dict(os.environ) | ({"JAX_PLATFORMS": "cpu"} if fake else {})
    command = [sys.executable, "-c", "import jax; print(jax.local_device_count())"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"no devices can be counted: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout.split()[-1]


def _client():
    from jax._src.distributed import global_state  # the service's client has no public name

    assert global_state.client is not None
    return global_state.client
