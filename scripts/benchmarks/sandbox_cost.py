"""What the sandbox costs above a bare interpreter, and whether two workers use two cores.

    python scripts/benchmarks/sandbox_cost.py [ROUNDS]

Prints medians of runs made in turn (bare, run, run_python, with tests), and of batches on one and on two threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from opencoder_eval.sandbox import Sandbox

PR_SET_CHILD_SUBREAPER = 36
# About 50 ms of CPU time.
WORK = "sum(i * i for i in range(700_000))"


def cpu_seconds() -> float:
    """CPU time of this process and of all that it started; little changed by what else the machine does.

    bubblewrap leaves its inner process to whoever takes orphans; `main` makes that this process.
    """
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main(rounds: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    sandbox = Sandbox()
    python = sandbox.python

    def bare(program: str) -> None:
        subprocess.run([python, "-c", program], check=True, stdin=subprocess.DEVNULL, capture_output=True)

    def isolated(program: str) -> None:
        assert sandbox.run_python(program).ok

    print("layers:", sandbox.layers)
    cases = {
        "bare": lambda: bare("pass"),
        "run": lambda: sandbox.run([python, "-c", "pass"]),
        "run_python": lambda: isolated("pass"),
        "run_python with tests": lambda: sandbox.run_python("def f(): return 1", tests="assert f() == 1"),
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    used = dict.fromkeys(cases, 0.0)
    for _ in range(rounds):
        for name, work in cases.items():
            before = cpu_seconds()
            times[name].append(seconds(work))
            time.sleep(0.01)  # its last process ends a moment later
            used[name] += cpu_seconds() - before
    for name, values in times.items():
        above = statistics.median(values) - statistics.median(times["bare"])
        cpu = (used[name] - used["bare"]) / rounds
        print(f"{name:<24}{statistics.median(values) * 1e3:6.1f} ms  {above * 1e3:+6.1f} ms, CPU {cpu * 1e3:+6.1f} ms")
    for name, program in (("empty programs", "pass"), ("programs of 50 ms", WORK)):
        ratios = {"bare": [], "sandbox": []}
        for _ in range(3):
            for kind, work in (("bare", bare), ("sandbox", isolated)):
                taken = []
                for workers in (1, 2):
                    with ThreadPoolExecutor(workers) as pool:
                        taken.append(seconds(lambda: list(pool.map(work, [program] * 40))))  # noqa: B023
                ratios[kind].append(taken[0] / taken[1])
        said = ", ".join(f"{kind} {statistics.median(values):.2f}x" for kind, values in ratios.items())
        print(f"two workers against one, {name}: {said}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
