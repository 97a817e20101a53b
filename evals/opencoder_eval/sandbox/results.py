"""What a run may use, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["ok", "failed", "timeout", "memory", "output_limit", "compile_error", "not_run"]
MiB = 1 << 20


class SandboxError(ValueError):
    """The sandbox cannot isolate on this machine, or was asked for what it cannot do; the text has the remedy."""


@dataclass(frozen=True)
class Limits:
    """What one run may use; every command of it (compile, run) starts with the whole of `cpu_seconds` and `wall_seconds`.

    cpu_seconds: CPU time of the whole process tree; what decides, as it hardly depends on the load of the machine.
    wall_seconds: elapsed time; generous, against sleeping programs only.
    memory_bytes: resident memory of the process tree.
    output_bytes: kept of standard output and of standard error, each; ten times as much ends the run.
    file_bytes: size of the work directory and of any one file.
    processes: processes and threads at once.
    """

    cpu_seconds: float = 10.0
    wall_seconds: float = 40.0
    memory_bytes: int = 1024 * MiB
    output_bytes: int = 1 * MiB
    file_bytes: int = 256 * MiB
    processes: int = 64


@dataclass(frozen=True)
class Execution:
    """What came of one run.

    outcome: `ok` needs exit code 0 and, for `run_python` with `end=True`, the sentinel. `not_run`: the toolchain is missing.
    exit_code, signal: of the command; exactly one is None where it ran.
    stdout, stderr: the first `Limits.output_bytes` of each.
    wall_seconds, cpu_seconds: of all commands of the run.
    sentinel: the end of the program was reached and reported with the secret token of the run (run_python only).
    isolated: False if the sandbox was made with unsafe=True.
    detail: one line for people: why it is not `ok`.
    """

    outcome: Outcome
    exit_code: int | None = None
    signal: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    sentinel: bool = False
    isolated: bool = True
    detail: str = ""

    @property
    def ok(self) -> bool:
        """Whether the run passed."""
        return self.outcome == "ok"
