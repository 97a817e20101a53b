"""The collectives of a compiled step: kind, bytes, mesh axes, inside or between nodes, how often, how long."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from opencoder_jax.perf.plan.hlo import Instruction, Module, elements, shapes
from opencoder_jax.perf.plan.topology import Topology

KINDS = (
    "all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute",
    "collective-broadcast",
)  # fmt: skip

# Share of the wire speed that large messages reach, and the fixed cost of one collective. Assumptions, not
# measurements: NCCL's bus bandwidth on NVLink and InfiniBand is commonly reported at some 80 % of the line rate.
NETWORK_EFFICIENCY = 0.8
LATENCY_FAST, LATENCY_SLOW = 10e-6, 30e-6  # seconds


@dataclass(frozen=True)
class Collective:
    """One collective instruction, as one device sees it."""

    name: str
    kind: str
    bytes: int  # of the full (gathered, or not yet scattered) array
    group_size: int
    group_nodes: int  # nodes that one group touches
    axes: tuple[
        str, ...
    ]  # mesh axes along which a group runs (a permutation: within which); empty when it follows none
    is_async: bool
    count: int  # runs per step
    op_name: str
    seconds: float  # of one run

    @property
    def between_nodes(self) -> bool:
        return self.group_nodes > 1

    @property
    def wire_bytes(self) -> float:
        """Bytes that a device sends in one run (ring algorithms)."""
        return wire_factor(self.kind, self.group_size) * self.bytes


def find(module: Module, mesh_shape: dict[str, int], topology: Topology) -> list[Collective]:
    """All collectives that move something, in the order of the module."""
    found = []
    for _, instruction, times in module.walk():
        collective = describe(instruction, times, mesh_shape, topology)
        if collective is not None:
            found.append(collective)
    return found


def describe(instruction: Instruction, times: int, mesh_shape: dict[str, int], topology: Topology) -> Collective | None:
    """The collective that an instruction starts or is, None for every other instruction.

    Raises: ValueError when its device groups are written in a form unknown here.
    """
    kind = collective_kind(instruction)
    if kind is None:
        return None
    groups = device_groups(instruction, math.prod(mesh_shape.values()))
    size = max(len(g) for g in groups)
    if size < 2:
        return None
    nodes = max(len({d // topology.devices_per_node for d in g}) for g in groups)
    payload = _payload(instruction, kind, size)
    seconds = duration(kind, payload, size, nodes, topology)
    return Collective(
        name=instruction.name,
        kind=kind,
        bytes=payload,
        group_size=size,
        group_nodes=nodes,
        axes=axes_of(groups, mesh_shape, whole=kind != "collective-permute"),
        is_async=instruction.opcode.endswith("-start") and '"is_sync":true' not in instruction.attributes,
        count=times,
        op_name=instruction.op_name,
        seconds=seconds,
    )


def collective_kind(instruction: Instruction) -> str | None:
    return next((k for k in KINDS if instruction.opcode in (k, f"{k}-start")), None)


def _payload(instruction: Instruction, kind: str, group_size: int) -> int:
    """Bytes of the full array: what is gathered, reduced, or about to be scattered."""
    # A start returns (operands, results, contexts...); of an all-reduce-start the results are the same as the operands.
    parts = elements(instruction.type)
    is_start = instruction.opcode.endswith("-start") and len(parts) > 1
    if is_start and instruction.type.startswith("("):
        sizes = [sum(s.bytes for s in shapes(part)) for part in parts[:2]]
        if kind == "all-reduce":
            # XLA writes either (operands...) or ((operands...), results...).
            return instruction.bytes if not parts[0].startswith("(") else sizes[0]
        return max(sizes)
    return instruction.bytes * (group_size if kind == "reduce-scatter" else 1)


def wire_factor(kind: str, n: int) -> float:
    """Bytes a device sends over those of the full array, ring algorithms on n devices."""
    if kind == "all-reduce":
        return 2 * (n - 1) / n
    if kind in ("all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all"):
        return (n - 1) / n
    return 1.0


def duration(kind: str, size_bytes: int, group_size: int, group_nodes: int, topology: Topology) -> float:
    """Seconds of one collective: a ring limited by the slowest link it crosses.

    A group with m devices on each node crosses between nodes on m network ports at once, so a byte that all of them
    need passes each node's boundary once.
    """
    fast = topology.spec.fast_network * NETWORK_EFFICIENCY
    sent = wire_factor(kind, group_size) * size_bytes
    if group_nodes == 1:
        return sent / fast + LATENCY_FAST
    ports = group_size / group_nodes
    slow = topology.spec.slow_network * NETWORK_EFFICIENCY
    if kind in ("all-to-all", "ragged-all-to-all"):
        outside = sent * (group_size - ports) / group_size
        return max(outside / slow, (sent - outside) / fast) + LATENCY_SLOW
    return max(sent / fast, sent / (slow * (1 if kind == "collective-permute" else ports))) + LATENCY_SLOW


def device_groups(instruction: Instruction, num_devices: int) -> list[list[int]]:
    """Groups of partition ids that talk to one another, from any of the forms in which XLA prints them."""
    text = instruction.attributes
    if pairs := re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", text):
        return _cycles([tuple(map(int, p.split(","))) for p in re.findall(r"\{(\d+,\d+)\}", pairs.group(1))])
    if mesh := re.search(r"replica_groups=(mesh\[[^\]]*\](?:, device_ids=\S+)? ?\{[^}]*\})", text):
        return mesh_groups(mesh.group(1))
    if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        count, size, dims, order = iota.groups()
        ids = np.arange(int(count) * int(size)).reshape([int(n) for n in dims.split(",")])
        if order:
            ids = ids.transpose([int(n) for n in order.split(",")])
        return ids.reshape(int(count), int(size)).tolist()
    if listed := re.search(r"replica_groups=\{((?:\{[\d,]*\},?)*)\}", text):
        groups = [[int(n) for n in g.split(",")] for g in re.findall(r"\{([\d,]+)\}", listed.group(1))]
        return groups or [list(range(num_devices))]
    raise ValueError(f"HLO text: device groups of {instruction.name} not understood: {text[:200]}")


def mesh_groups(text: str) -> list[list[int]]:
    """Groups of `mesh['data'=2,'fsdp'=4] {'fsdp'}`; a part of an axis reads `'fsdp':(2)2`: size 2 after 2 slower ones."""
    head, _, tail = text.partition("]")
    if "device_ids" in tail or tail.count("{") != 1:
        raise ValueError(f"HLO text: device groups not understood: {text[:200]}")
    sizes = {name: int(n) for name, n in re.findall(r"'([^']+)'=(\d+)", head)}
    chosen = re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", tail[tail.index("{") :])
    # Every axis is split where a group asks for a part of it, then the chosen parts are moved last.
    parts: list[tuple[str, int, int]] = []  # axis, faster-than offset, size
    for name, size in sizes.items():
        cuts = {1, size}
        for axis, before, part in chosen:
            if axis == name and before:
                cuts |= {int(before), int(before) * int(part)}
        edges = sorted(cuts)
        parts += [(name, low, high // low) for low, high in itertools.pairwise(edges)] or [(name, 1, 1)]
    inside = []
    for axis, before, part in chosen:
        low, high = (int(before), int(before) * int(part)) if before else (1, sizes[axis])
        inside += [
            i for i, (name, start, size) in enumerate(parts) if name == axis and low <= start and start * size <= high
        ]
    outside = [i for i in range(len(parts)) if i not in inside]
    ids = np.arange(math.prod(sizes.values())).reshape([size for _, _, size in parts])
    group = math.prod(parts[i][2] for i in inside)
    return ids.transpose(outside + inside).reshape(-1, group).tolist()


def _cycles(pairs: list[tuple[int, ...]]) -> list[list[int]]:
    """Connected devices of a permutation: the rings it turns."""
    parent: dict[int, int] = {}

    def root(x: int) -> int:
        parent.setdefault(x, x)
        while parent[x] != x:
            x = parent[x]
        return x

    for source, target in pairs:
        parent[root(source)] = root(target)
    groups: dict[int, list[int]] = {}
    for device in parent:
        groups.setdefault(root(device), []).append(device)
    return list(groups.values()) or [[0]]


def axes_of(groups: Sequence[Sequence[int]], mesh_shape: dict[str, int], whole: bool = True) -> tuple[str, ...]:
    """Mesh axes along which these groups run; () when they are not a set of whole axes and should be.

    Partition ids count the mesh's devices in row-major order of its axes. A permutation's groups, its cycles, may be parts
    of an axis, some of a single device.
    """
    sizes = list(mesh_shape.values())
    largest = max(groups, key=len)
    coordinates = np.stack(np.unravel_index(np.asarray(largest), sizes), axis=1)
    varying = [i for i in range(len(sizes)) if len(set(coordinates[:, i].tolist())) > 1]
    if whole and math.prod(sizes[i] for i in varying) != len(largest):
        return ()
    return tuple(list(mesh_shape)[i] for i in varying)
