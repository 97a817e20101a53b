"""Judges samples: the second of the two steps. Goes on where it was stopped, by (task, sample).

Missing samples fail. A timeout is tried once more, alone, when all else is done. Programs whose toolchain is missing are
`not run`: they are in no score, and the score says how many. The canonical solutions are judged first: their pass rate is
what this machine can measure.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from opencoder_eval import passk
from opencoder_eval import samples as sample_files
from opencoder_eval.benchmarks.base import Benchmark, Task
from opencoder_eval.generate import check_extraction, check_mode
from opencoder_eval.judging import Runner
from opencoder_eval.verdicts import FAILURES, MISSING, NO_CODE, NOT_RUN, PASS, TIMEOUT, Verdict

# No canonical solution of any benchmark has more than 20 kB.
MAX_SOLUTION_BYTES = 1_000_000
CANONICAL = -1  # the sample index of a canonical solution
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Result:
    """The verdict on one sample. digest: of the solution. retried: the first try was a timeout."""

    task_id: str
    sample: int
    language: str
    kind: str
    detail: str = ""
    seconds: float = 0.0
    digest: str = ""
    retried: bool = False
    isolated: bool = True


@dataclass(frozen=True)
class Summary:
    """What a file of samples is worth.

    pass_at: by k, over the tasks that were run; None where none was. by_language: the same, with counts. kinds: samples by
    kind of verdict. canonical: (passed, run, all) of the canonical solutions, None without any. timeouts: before the second
    try, and after it.
    """

    benchmark: str
    title: str
    tasks: int
    run: int
    samples_per_task: int
    pass_at: dict[str, float]
    kinds: dict[str, int]
    by_language: dict[str, dict[str, Any]]
    canonical: tuple[int, int, int] | None
    timeouts: tuple[int, int]
    isolated: bool
    settings: dict[str, Any] | None
    versions: dict[str, str]
    seconds: float
    notes: list[str] = field(default_factory=list)

    def line(self) -> str:
        """For the terminal."""
        scores = ", ".join(f"pass@{k} {100 * v:.1f}" for k, v in self.pass_at.items()) or "not run"
        parts = [f"{self.benchmark}: {scores}", f"{self.run}/{self.tasks} tasks"]
        if self.canonical:
            parts.append(f"canonical {self.canonical[0]}/{self.canonical[1]}")
        failed = [f"{self.kinds[k]} {k}" for k in (*FAILURES, NOT_RUN) if self.kinds.get(k)]
        parts += [", ".join(failed)] if failed else []
        parts += [] if self.isolated else ["NOT ISOLATED"]
        return "; ".join(parts)


def score(
    benchmark: Benchmark,
    path: Path,
    runner: Runner,
    *,
    out: Path | None = None,
    ks: Sequence[int] = (1, 10, 100),
    extraction: str = "",
    workers: int = 0,
    canonical: bool = True,
    versions: dict[str, str] | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Summary:
    """Judges all samples of a file and writes `results.jsonl` and `summary.json`.

    Args:
      path: the samples, ours or in EvalPlus' form.
      out: directory of the results; default: the samples'.
      ks: of pass@k; those above the number of samples are left out.
      extraction: extract the code from the answers again; "" takes the solutions as they are.
      workers: programs at once; 0: one a core.
      canonical: judge the canonical solutions first.
      versions: of the toolchains, recorded.

    Raises: ValueError for samples of another benchmark and for files that are not samples.
    """
    began = time.monotonic()
    out = out or path.parent
    out.mkdir(parents=True, exist_ok=True)
    settings = sample_files.read_settings(path)
    tasks = benchmark.tasks()[: (settings or {}).get("limit") or None]
    solutions, count, notes = _solutions(benchmark, tasks, path, settings, extraction)
    log = _Log(out / "results.jsonl")
    judge = _Judge(benchmark, runner, log, workers or os.cpu_count() or 1, progress)
    by_id = {task.id: task for task in tasks}
    if canonical and benchmark.has_canonical:
        judge.all([(t, CANONICAL, t.canonical) for t in tasks if t.canonical is not None], "canonical solutions")
    judge.all([(by_id[i], n, s) for (i, n), s in solutions.items()], "samples")
    missing = [Result(t.id, n, t.language, MISSING) for t in tasks for n in range(count) if (t.id, n) not in solutions]
    if missing:
        notes.append(f"{len(missing)} of {len(tasks) * count} samples are missing and count as failures")
    results = [*(judge.results[key] for key in solutions), *missing]
    reference = [r for r in judge.results.values() if r.sample == CANONICAL]
    log.write(sorted([*reference, *results], key=lambda r: (r.sample == CANONICAL, r.task_id, r.sample)))
    summary = Summary(
        benchmark=benchmark.name,
        title=benchmark.title,
        tasks=len(tasks),
        samples_per_task=count,
        canonical=_canonical(reference),
        settings=settings,
        versions={"python": platform.python_version(), **(versions or {})},
        seconds=round(time.monotonic() - began, 2),
        notes=notes,
        **summarize(results, ks, count),
    )
    sample_files.write_atomically(out / "summary.json", json.dumps(asdict(summary), indent=1) + "\n")
    return summary


def summarize(results: Sequence[Result], ks: Iterable[int], count: int) -> dict[str, Any]:
    """The fields of `Summary` that follow from verdicts alone. Tasks with a `not run` sample are in no score."""
    not_run = {r.task_id for r in results if r.kind == NOT_RUN}
    run = [r for r in results if r.task_id not in not_run]
    languages: dict[str, dict[str, Any]] = {}
    for language in sorted({r.language for r in results}):
        mine = [r for r in run if r.language == language]
        all_tasks = {r.task_id for r in results if r.language == language}
        languages[language] = {
            "tasks": len(all_tasks),
            "run": len({r.task_id for r in mine}),
            "pass_at": _pass_at(mine, ks, count),
            "kinds": dict(Counter(r.kind for r in results if r.language == language)),
        }
    return {
        "run": len({r.task_id for r in run}),
        "pass_at": _pass_at(run, ks, count),
        "kinds": dict(Counter(r.kind for r in results)),
        "by_language": languages,
        "timeouts": (sum(r.retried or r.kind == TIMEOUT for r in results), sum(r.kind == TIMEOUT for r in results)),
        "isolated": all(r.isolated for r in results),
    }


def _pass_at(results: Sequence[Result], ks: Iterable[int], count: int) -> dict[str, float]:
    passed: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for r in results:
        total[r.task_id] += 1
        passed[r.task_id] += r.kind == PASS
    if not total:
        return {}
    return {str(k): passk.mean_pass_at_k([(n, passed[t]) for t, n in total.items()], k) for k in ks if k <= count}


def _canonical(results: Sequence[Result]) -> tuple[int, int, int] | None:
    if not results:
        return None
    return sum(r.kind == PASS for r in results), sum(r.kind != NOT_RUN for r in results), len(results)


# --- samples ----------------------------------------------------------------------------------------------------------


def _solutions(
    benchmark: Benchmark, tasks: Sequence[Task], path: Path, settings: dict[str, Any] | None, extraction: str
) -> tuple[dict[tuple[str, int], str | None], int, list[str]]:
    """Solution by (task, sample), samples per task, and notes for the reader of the score."""
    by_id = {task.id: task for task in tasks}
    aliases = {task.id.split("/")[-1]: task.id for task in tasks}
    every = {task.id for task in benchmark.tasks()}
    found: dict[tuple[str, int], str | None] = {}
    unknown: list[str] = []
    repeated = outside = 0
    for row in sample_files.read(path):
        _check_benchmark(benchmark, row, path)
        name = row["task_id"] if row["task_id"] in every else aliases.get(row["task_id"], row["task_id"])
        if name not in every:
            unknown.append(name)
        elif name not in by_id:
            outside += 1
        elif (name, int(row["sample"])) in found:
            repeated += 1
        else:
            found[name, int(row["sample"])] = _solution(benchmark, by_id[name], row, extraction)
    if unknown:
        raise ValueError(
            f"{path}: {len(unknown)} samples are not of {benchmark.name} ({unknown[0]!r}, say); give their --benchmark"
        )
    recorded = int((settings or {}).get("samples") or 0)
    count = max([recorded, 1, *(n + 1 for _, n in found)])
    notes = [f"{repeated} repeated samples were left out"] if repeated else []
    notes += [f"{outside} samples are of tasks beyond the recorded limit"] if outside else []
    return found, count, notes


def _check_benchmark(benchmark: Benchmark, row: dict[str, Any], path: Path) -> None:
    from opencoder_eval.benchmarks import prompts_of

    made_for = row.get("benchmark")
    if isinstance(made_for, str) and made_for != benchmark.name and prompts_of(made_for) != prompts_of(benchmark.name):
        raise ValueError(f"{path}: samples of {made_for}, not of {benchmark.name}; give --benchmark={made_for}")


def _solution(benchmark: Benchmark, task: Task, row: dict[str, Any], extraction: str) -> str | None:
    if row.get("rejected"):
        return None
    if isinstance(row.get("answer"), str) and (extraction or "solution" not in row):
        mode = check_mode(benchmark, str(row.get("mode") or ""))
        return benchmark.solution(task, row["answer"], mode, extraction or benchmark.default_extraction)
    code = row["solution"] if isinstance(row.get("solution"), str) else task.prompt + row["completion"]
    if extraction:
        return benchmark.solution(task, code, benchmark.modes[-1], check_extraction(extraction))
    return code or None


# --- judging ----------------------------------------------------------------------------------------------------------


class _Log:
    """results.jsonl: verdicts appended as they come, so that a stopped run goes on, and sorted at the end."""

    def __init__(self, path: Path):
        self._path = path
        sample_files.drop_torn_line(path)
        self.known: dict[tuple[str, int, str], Result] = {}
        for result in read_results(path) if path.exists() else ():
            self.known[result.task_id, result.sample, result.digest] = result

    def append(self, result: Result) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(result)) + "\n")

    def write(self, results: Iterable[Result]) -> None:
        sample_files.write_atomically(self._path, "".join(json.dumps(asdict(r)) + "\n" for r in results))


def read_results(path: Path) -> Iterator[Result]:
    """Verdicts of a file. Raises: ValueError for a line that is not one."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield Result(**json.loads(line))
            except (ValueError, TypeError) as error:
                raise ValueError(f"{path}:{number}: {error}; delete the file and score again") from error


class _Judge:
    def __init__(self, benchmark: Benchmark, runner: Runner, log: _Log, workers: int, progress: Progress):
        self._benchmark, self._runner, self._log = benchmark, runner, log
        self._workers, self._progress = workers, progress
        self.results: dict[tuple[str, int], Result] = {}

    def all(self, items: Sequence[tuple[Task, int, str | None]], what: str) -> None:
        """Judges (task, sample, solution); equal solutions of a task once."""
        equal: dict[tuple[str, str], list[tuple[Task, int, str | None]]] = {}
        for item in items:
            task, index, solution = item
            digest = digest_of(task, solution)
            known = self._log.known.get((task.id, index, digest))
            if known is not None and known.kind != NOT_RUN:
                self.results[task.id, index] = known
            else:
                equal.setdefault((task.id, digest), []).append(item)
        done = len(items) - sum(map(len, equal.values()))
        again: list[tuple[tuple[str, str], list[tuple[Task, int, str | None]]]] = []
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="judge")
        try:
            futures = {pool.submit(self._one, same[0][0], same[0][2]): (key, same) for key, same in equal.items()}
            for future in as_completed(futures):
                key, same = futures[future]
                verdict = future.result()
                if verdict.kind == TIMEOUT:
                    again.append((key, same))
                    continue
                done += self._record(key[1], same, verdict, retried=False)
                self._progress(what, done, len(items))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        for key, same in sorted(again, key=lambda each: each[0]):
            done += self._record(key[1], same, self._one(same[0][0], same[0][2]), retried=True)
            self._progress(what, done, len(items))

    def _record(
        self, digest: str, same: Sequence[tuple[Task, int, str | None]], verdict: Verdict, *, retried: bool
    ) -> int:
        for task, index, _ in same:
            result = Result(
                task.id,
                index,
                task.language,
                verdict.kind,
                verdict.detail,
                round(verdict.seconds, 4),
                digest,
                retried,
                verdict.isolated,
            )
            self.results[task.id, index] = result
            self._log.append(result)
        return len(same)

    def _one(self, task: Task, solution: str | None) -> Verdict:
        if solution is None or not solution.strip():
            return Verdict(NO_CODE)
        if len(solution) > MAX_SOLUTION_BYTES:
            return Verdict(NO_CODE, f"{len(solution):,} characters of code, at most {MAX_SOLUTION_BYTES:,} are judged")
        return self._benchmark.judge(task, solution, self._runner)


def digest_of(task: Task, solution: str | None) -> str:
    """What a verdict depends on: the solution and the published row."""
    text = json.dumps([solution, task.id, task.record], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
