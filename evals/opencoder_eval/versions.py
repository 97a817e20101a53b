"""Versions of what judged, recorded with every score."""

from __future__ import annotations

import functools

from opencoder_eval.benchmarks.base import Benchmark
from opencoder_eval.judging import Runner
from opencoder_eval.sandbox import toolchains


@functools.cache
def _installed() -> dict[str, str]:
    return {s.language: f"{s.version} ({s.status})" if s.status != "installed" else s.version for s in toolchains()}


def versions_for(benchmark: Benchmark, runner: Runner) -> dict[str, str]:
    """By language, of the languages that the benchmark's tasks are in; Python's is the sandbox's interpreter."""
    languages = {task.language for task in benchmark.tasks()}
    found: dict[str, str] = {}
    if "Python" in languages:
        run = runner.sandbox.run_python("import sys; print(sys.version.split()[0])", end=False)
        found["python"] = run.stdout.decode("utf-8", "replace").strip() or "unknown"
    if others := languages - {"Python"}:
        found |= {name: version for name, version in _installed().items() if name in others}
    return found
