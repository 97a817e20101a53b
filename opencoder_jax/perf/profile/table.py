"""From events to tables: time by operation, by kind, exposed communication, host gaps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from opencoder_jax.perf.plan import collectives, kernels
from opencoder_jax.perf.plan.cost import product_flops
from opencoder_jax.perf.plan.hlo import Computation, Instruction, Module
from opencoder_jax.perf.profile.trace import Event, Trace

KINDS = ("matmul", "attention", "collective", "memory-bound")
_CONTAINERS = ("while", "call", "conditional")

Interval = tuple[float, float]


@dataclass(frozen=True)
class Share:
    """Seconds of one step, mean over devices; `runs` per step."""

    name: str
    kind: str
    seconds: float
    runs: float
    where: str  # place in the traced program


@dataclass(frozen=True)
class Profile:
    """Means over devices and steps, in seconds. by_kind and host_gap add up to step_seconds but for overlap: work that
    runs at the same time as other work of its device is counted in each kind, `exposed` collectives only where alone."""

    step_seconds: float
    num_steps: int
    num_devices: int
    by_kind: dict[str, float]
    exposed_collective: float
    host_gap: float
    top: list[Share]
    unknown: int  # operations of the trace that the HLO does not have


def classify(module: Module) -> dict[str, tuple[str, Instruction]]:
    """Instruction name -> kind and instruction, for everything that takes time; containers are left out."""
    kinds = {}
    for computation in module.computations.values():
        for instruction in computation.instructions:
            if instruction.opcode not in _CONTAINERS:
                kinds[instruction.name] = (_kind(module, computation, instruction), instruction)
    return kinds


def _kind(module: Module, computation: Computation, instruction: Instruction) -> str:
    started = instruction
    if instruction.opcode.endswith("-done") and instruction.opcode.removesuffix("-done") in collectives.KINDS:
        started = computation.by_name[instruction.operands[0]]
    inside = [module.computations[name] for name in instruction.called()]
    if _communicates(started) or any(_communicates(i) for c in inside for i in c.instructions):
        return "collective"
    kernel = kernels.find(module, computation, instruction)
    if any(_in_attention(i) for i in (instruction, *(c.root for c in inside), *(kernel or ())[1:])):
        return "attention"
    if kernel is not None and kernels.products(*kernel):
        return "matmul"
    if product_flops(computation, instruction)[0] or any(
        product_flops(c, i)[0] for c in inside for i in c.instructions
    ):
        return "matmul"
    return "memory-bound"


def _communicates(instruction: Instruction) -> bool:
    """A collective between several devices; one of a device with itself is a copy."""
    if collectives.collective_kind(instruction) is None:
        return False
    return max(map(len, collectives.device_groups(instruction, 2))) > 1


def _in_attention(instruction: Instruction) -> bool:
    return "attention" in instruction.op_name.split("/") or instruction.target.startswith("__cudnn$fmha")


def summarise(trace: Trace, module: Module, *, num_top: int = 20) -> Profile:
    """Profile of the traced steps.

    Raises: ValueError when the trace holds no step or none of the step's operations.
    """
    kinds = classify(module)
    events = [e for e in trace.events if e.name in kinds]
    unknown = len({e.name for e in trace.events} - kinds.keys() - _containers(module))
    if not trace.steps:
        raise ValueError("the trace holds no step marker: it was not taken by train or profile")
    if not events:
        raise ValueError("the trace and the HLO have no operation in common: they are of different compilations")
    devices, num_steps = sorted({e.device for e in events}), len(trace.steps)
    by_kind = dict.fromkeys(KINDS, 0.0)
    exposed = gap = span = 0.0
    for device in devices:
        mine = [e for e in events if e.device == device]
        for kind in KINDS:
            by_kind[kind] += length(union(_intervals(e for e in mine if kinds[e.name][0] == kind)))
        working = union(_intervals(e for e in mine if kinds[e.name][0] != "collective"))
        talking = union(_intervals(e for e in mine if kinds[e.name][0] == "collective"))
        busy = union([*working, *talking])
        exposed += length(busy) - length(working)
        # Host gaps: from the first operation of the first step to the last of the last, nothing ran.
        start, end = trace.steps[0][1], max(trace.steps[-1][2], busy[-1][1])
        span += end - start
        gap += end - start - length([i for i in busy if i[1] > start])
    scale = 1 / (num_steps * len(devices))
    return Profile(
        step_seconds=span * scale,
        num_steps=num_steps,
        num_devices=len(devices),
        by_kind={kind: seconds * scale for kind, seconds in by_kind.items()},
        exposed_collective=exposed * scale,
        host_gap=gap * scale,
        top=_top(events, kinds, scale)[:num_top],
        unknown=unknown,
    )


def _top(events: Sequence[Event], kinds: dict[str, tuple[str, Instruction]], scale: float) -> list[Share]:
    seconds, runs = defaultdict(float), defaultdict(int)
    for e in events:
        seconds[e.name] += e.seconds
        runs[e.name] += 1
    ranked = sorted(seconds, key=lambda name: -seconds[name])
    return [Share(n, kinds[n][0], seconds[n] * scale, runs[n] * scale, kinds[n][1].op_name) for n in ranked]


def _containers(module: Module) -> set[str]:
    return {i.name for c in module.computations.values() for i in c.instructions if i.opcode in _CONTAINERS}


def _intervals(events: Iterable[Event]) -> list[Interval]:
    return [(e.start, e.end) for e in events]


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """Disjoint intervals that cover the same points, in order."""
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def length(intervals: Iterable[Interval]) -> float:
    return sum(end - start for start, end in intervals)


def text(profile: Profile) -> str:
    """Tables in Markdown."""
    from opencoder_jax.perf.plan.report import table

    whole = profile.step_seconds

    def share(seconds: float) -> str:
        return f"{seconds / whole:.1%}"

    rows = [(kind, f"{1e3 * s:,.3f}", share(s)) for kind, s in profile.by_kind.items()]
    rows.append(
        ("of the collectives exposed", f"{1e3 * profile.exposed_collective:,.3f}", share(profile.exposed_collective))
    )
    rows.append(("nothing running (host gap)", f"{1e3 * profile.host_gap:,.3f}", share(profile.host_gap)))
    rows.append(("step", f"{1e3 * whole:,.3f}", "100.0%"))
    top = [
        (s.name, s.kind, f"{1e3 * s.seconds:,.3f}", share(s.seconds), f"{s.runs:,.0f}", s.where[-60:])
        for s in profile.top
    ]
    lines = [
        f"## One step: mean of {profile.num_steps} steps and {profile.num_devices} devices",
        "",
        *table(("kind", "ms", "of the step"), rows),
        "",
        "## Operations that take longest",
        "",
        *table(("operation", "kind", "ms", "of the step", "runs", "where"), top),
    ]
    if profile.unknown:
        lines += [
            "",
            f"{profile.unknown} operations of the trace are in other programs than the step and are left out.",
        ]
    return "\n".join(lines) + "\n"
