"""Runs programs in the sandbox and says of each what kind of failure it is."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from opencoder_eval.sandbox import Execution, Limits, Sandbox
from opencoder_eval.verdicts import EXCEPTION, MEMORY, NOT_RUN, OUTPUT, PASS, SYNTAX, TIMEOUT, WRONG, Verdict

# Wall time is a multiple of CPU time: two busy workers and their neighbours must not change a score.
WALL_PER_CPU = 4.0
DETAIL_CHARACTERS = 2_000
MiB = 1 << 20
_NOT_COMPILED = 97
_KINDS = {"ok": PASS, "timeout": TIMEOUT, "memory": MEMORY, "output_limit": OUTPUT, "compile_error": SYNTAX}
_ASSERTION = re.compile(r"assert|expected|mismatch|not equal|FAILED", re.IGNORECASE)
_PYTHON_SYNTAX = ("SyntaxError", "IndentationError", "TabError")


@dataclass
class Runner:
    """What benchmarks judge with. patience: factor on all time limits. ask: a judge model, None without one."""

    sandbox: Sandbox
    patience: float = 1.0
    ask: Callable[[Sequence[Mapping[str, str]]], str] | None = None

    def limits(self, cpu_seconds: float, memory: int = 1024 * MiB, processes: int = 64) -> Limits:
        """Limits of one run."""
        cpu = cpu_seconds * self.patience
        return Limits(cpu_seconds=cpu, wall_seconds=cpu * WALL_PER_CPU, memory_bytes=memory, processes=processes)

    def python(
        self,
        program: str,
        tests: str,
        *,
        cpu_seconds: float,
        memory: int = 4096 * MiB,
        files: Mapping[str, bytes] | None = None,
        processes: int = 64,
    ) -> Verdict:
        """A Python program with its tests: passes when the tests end."""
        limits = self.limits(cpu_seconds, memory, processes)
        return python_verdict(self.sandbox.run_python(clean(program), tests=clean(tests), files=files, limits=limits))

    def language(
        self,
        language: str,
        program: str,
        *,
        cpu_seconds: float,
        files: Mapping[str, bytes] | None = None,
        memory: int = 2048 * MiB,
    ) -> Verdict:
        """A program of any language: passes when it is compiled and ends with exit code 0."""
        limits = self.limits(cpu_seconds, memory, processes=256)
        return verdict(self.sandbox.run_language(language, clean(program), files=files, limits=limits))

    def typescript(self, program: str, *, cpu_seconds: float) -> Verdict:
        """A TypeScript program as MultiPL-E's authors run it: current libraries, and the compiler must not complain."""
        if not shutil.which("tsc") or not shutil.which("node"):
            return Verdict(NOT_RUN, "tsc or node is missing")
        run = self.sandbox.run(
            ["bash", "-c", f"tsc --target esnext program.ts >&2 || exit {_NOT_COMPILED}; node program.js"],
            files={"program.ts": clean(program).encode()},
            limits=self.limits(cpu_seconds, 2048 * MiB, processes=256),
        )
        judged = verdict(run)
        compiled = run.exit_code != _NOT_COMPILED or judged.kind in (TIMEOUT, MEMORY)
        return judged if compiled else Verdict(SYNTAX, judged.detail, judged.seconds, judged.isolated)


def clean(text: str) -> str:
    """Lone surrogates, which JSON can hold and UTF-8 cannot, become question marks."""
    return text.encode("utf-8", "replace").decode()


def verdict(execution: Execution) -> Verdict:
    """The verdict on a program of any language."""
    kind = _KINDS.get(execution.outcome, NOT_RUN if execution.outcome == "not_run" else EXCEPTION)
    detail = _detail(execution)
    if execution.outcome == "failed" and execution.signal == signal.SIGPROF:
        kind, detail = TIMEOUT, "one input took too long"
    if kind == EXCEPTION and _ASSERTION.search(detail):
        kind = WRONG
    return Verdict(kind, detail, execution.wall_seconds, execution.isolated)


def python_verdict(execution: Execution) -> Verdict:
    """The verdict on a Python program: the last line of its traceback says what failed."""
    judged = verdict(execution)
    if execution.outcome != "failed" or judged.kind == TIMEOUT:
        return judged
    lines = [line for line in execution.stderr.decode("utf-8", "replace").splitlines() if line and line[0] not in " \t"]
    name = next((line.split(":")[0].strip() for line in reversed(lines) if _is_error(line)), "")
    if name == "AssertionError":
        kind = WRONG
    elif name in _PYTHON_SYNTAX or (name == "ValueError" and "null bytes" in judged.detail):
        kind = SYNTAX
    else:
        kind = MEMORY if name == "MemoryError" else EXCEPTION
    return Verdict(kind, judged.detail, judged.seconds, judged.isolated)


def _is_error(line: str) -> bool:
    return (
        re.fullmatch(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt|Iteration|Warning|Failure)?(:.*)?", line)
        is not None
    )


def _detail(execution: Execution) -> str:
    if execution.outcome == "ok":
        return ""
    error = execution.stderr.decode("utf-8", "replace").strip() or execution.stdout.decode("utf-8", "replace").strip()
    text = "\n".join(part for part in (execution.detail, error[-DETAIL_CHARACTERS:]) if part)
    return text.replace("\0", "\\0")
