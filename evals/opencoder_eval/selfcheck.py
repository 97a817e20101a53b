"""Checks the judge itself: canonical solutions must pass and broken ones must fail, in every language that is installed.

A toolchain whose assertions are off passes everything, and nobody notices; broken solutions are how one does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from opencoder_eval.benchmarks.base import Benchmark, Task
from opencoder_eval.judging import Runner
from opencoder_eval.verdicts import NOT_RUN, PASS, TIMEOUT, Verdict

# Shares that the data's own faults leave space for: `docs/experiments/2026-11-25-evaluation.md`.
MIN_CANONICAL, MAX_SURVIVORS = 0.98, 0.10
_STRINGS = re.compile(r"\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'")
_SWAPS = {"true": "false", "false": "true", "True": "False", "False": "True", "TRUE": "FALSE", "FALSE": "TRUE"}
_OPERATORS = {"<=": ">", ">=": "<", "==": "!=", "!=": "==", " < ": " >= ", " > ": " <= ", " + ": " - ", " - ": " + "}
_TOKENS = re.compile(
    r"\b(?:true|false|True|False|TRUE|FALSE)\b|<=|>=|(?<![=!<>])==(?!=)|!=(?!=)| < | > | \+ | - |(?<![\w.])\d+(?![\w.])"
)


@dataclass(frozen=True)
class Check:
    """One language of a benchmark. survivors: broken solutions that passed, of `mutants`."""

    language: str
    passed: int
    run: int
    tasks: int
    survivors: int
    mutants: int
    failed_ids: tuple[str, ...]
    survivor_ids: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether scores of this language can be trusted here; nothing to say where nothing was run."""
        enough = self.passed >= MIN_CANONICAL * self.run
        return enough and self.survivors <= max(1, MAX_SURVIVORS * self.mutants)

    def line(self) -> str:
        """For the terminal."""
        if not self.run:
            return f"{self.language}: not run (toolchain missing), {self.tasks} tasks"
        left = f", not run {self.tasks - self.run}" if self.run < self.tasks else ""
        failed = f"; failed: {', '.join(self.failed_ids[:8])}" if self.failed_ids else ""
        broken = f", broken {self.survivors}/{self.mutants} pass" if self.mutants else ""
        survive = f" ({', '.join(self.survivor_ids[:8])})" if self.survivor_ids else ""
        return f"{self.language}: canonical {self.passed}/{self.run}{left}{broken}{survive}{failed}{'' if self.ok else '  CHECK FAILED'}"


def selfcheck(
    benchmark: Benchmark, runner: Runner, *, limit: int = 0, mutants: bool = True, workers: int = 0
) -> list[Check]:
    """One row a language. limit: tasks of each language, 0 for all."""
    by_language: dict[str, list[Task]] = {}
    for task in benchmark.tasks():
        if task.canonical is not None:
            by_language.setdefault(task.language, []).append(task)
    checks = []
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for language, tasks in by_language.items():
            tasks = tasks[: limit or None]
            verdicts = _judge(pool, benchmark, runner, tasks, [str(t.canonical) for t in tasks])
            run = [(t, v) for t, v in zip(tasks, verdicts, strict=True) if v.kind != NOT_RUN]
            passed = [t for t, v in run if v.kind == PASS]
            broken = [(t, b) for t in passed if mutants and (b := broken_solution(benchmark, t)) is not None]
            tried = _judge(pool, benchmark, runner, [t for t, _ in broken], [b for _, b in broken])
            survivors = [t.id for (t, _), v in zip(broken, tried, strict=True) if v.kind == PASS]
            failed = [f"{t.id} ({v.kind})" for t, v in run if v.kind != PASS]
            checks.append(
                Check(
                    language,
                    len(passed),
                    len(run),
                    len(tasks),
                    len(survivors),
                    len(broken),
                    tuple(failed),
                    tuple(survivors),
                )
            )
    return checks


def broken_solution(benchmark: Benchmark, task: Task) -> str | None:
    """The benchmark's own wrong solution where it has one, else the canonical one with its constants and operators changed."""
    published = task.record.get("buggy_code")
    if isinstance(published, str):
        return published
    assert task.canonical is not None
    part = task.completion if task.completion and task.canonical.endswith(task.completion) else task.canonical
    changed = mutate(part)
    return None if changed is None else task.canonical[: len(task.canonical) - len(part)] + changed


def mutate(code: str) -> str | None:
    """`code` with integers plus 7, booleans and comparisons flipped, outside of strings; None where nothing is to change."""
    pieces: list[str] = []
    at, changes = 0, 0
    for match in [*_STRINGS.finditer(code), None]:
        end = match.start() if match else len(code)
        changed, count = _TOKENS.subn(_change, code[at:end])
        changes += count
        pieces += [changed, match[0] if match else ""]
        at = match.end() if match else end
    return "".join(pieces) if changes else None


def _change(match: re.Match[str]) -> str:
    token = match[0]
    if token.isdigit():
        return str(int(token) + 7)
    return _SWAPS.get(token) or _OPERATORS[token]


def _judge(
    pool: ThreadPoolExecutor, benchmark: Benchmark, runner: Runner, tasks: Sequence[Task], solutions: Sequence[str]
) -> list[Verdict]:
    first = list(pool.map(lambda pair: benchmark.judge(*pair, runner), zip(tasks, solutions, strict=True)))
    return [
        benchmark.judge(t, s, runner) if v.kind == TIMEOUT else v
        for t, s, v in zip(tasks, solutions, first, strict=True)
    ]
