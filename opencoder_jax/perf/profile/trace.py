"""Reads an xprof trace: which operations of the step ran on which device, when, for how long."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Event:
    """One run of one operation. Times in seconds on the trace's clock."""

    name: str  # of the HLO instruction
    device: str
    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True)
class Trace:
    events: list[Event]  # of operations, containers (loops, calls) included
    steps: list[tuple[int, float, float]]  # step number, start and end as the host saw them

    @property
    def devices(self) -> list[str]:
        return sorted({e.device for e in self.events})


def newest(directory: Path) -> Path:
    """The latest `*.xplane.pb` below a directory. Raises: ValueError when there is none."""
    found = sorted(directory.rglob("*.xplane.pb"), key=lambda p: p.stat().st_mtime)
    if not found:
        raise ValueError(
            f"{directory}: no trace (*.xplane.pb) there; train with --profile.steps=10:15, or profile a --config"
        )
    return found[-1]


def read(path: Path) -> Trace:
    """Reads one `*.xplane.pb`.

    On GPU and TPU each device has a plane of its own; on CPU the operations are on the host's threads and carry
    their device's number.
    """
    from jax.profiler import ProfileData

    events: list[Event] = []
    steps: list[tuple[int, float, float]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for plane in ProfileData.from_file(str(path)).planes:
            on_device = plane.name.startswith("/device:")
            for line in plane.lines:
                # A device's plane repeats its operations in lines of modules, steps and scopes.
                operations = line.name in ("XLA Ops", "Async XLA Ops") or line.name.startswith("Stream")
                if on_device and not operations:
                    continue
                for event in line.events:
                    start, end = event.start_ns / 1e9, (event.start_ns + event.duration_ns) / 1e9
                    stats = dict(event.stats)
                    if event.name == "train" and "step_num" in stats:
                        steps.append((int(stats["step_num"]), start, end))
                    elif "hlo_op" in stats or (on_device and line.name.endswith("XLA Ops")):
                        device = plane.name if on_device else f"cpu:{stats.get('device_ordinal', 0)}"
                        events.append(Event(str(stats.get("hlo_op", event.name)), device, start, end))
    return Trace(events, sorted(steps))
