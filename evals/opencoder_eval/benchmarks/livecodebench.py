"""LiveCodeBench (Jain et al. 2024), code generation, from local files (test.jsonl to test6.jsonl of its releases).

A name ends with the window of contest dates: `livecodebench-2305-2409` is the paper's, May 2023 to September 2024; without
one all tasks are taken. Private tests are pickled strings: they are read by an unpickler that makes nothing but strings.
Programs that read standard input run as processes with real pipes, one a test, as on the contest's own judge.
"""

from __future__ import annotations

import base64
import io
import json
import pickle
import re
import zlib
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from opencoder_eval.benchmarks import data
from opencoder_eval.benchmarks.base import Mode, Question, Task, chat
from opencoder_eval.extraction import blocks
from opencoder_eval.judging import clean, python_verdict
from opencoder_eval.verdicts import NO_CODE, PASS, WRONG, Verdict

if TYPE_CHECKING:
    from opencoder_eval.judging import Runner

SOURCE = "the LiveCodeBench release (code_generation_lite: test.jsonl to test6.jsonl)"
FILES = ("test", "test2", "test3", "test4", "test5", "test6")
FIELDS = ("question_id", "question_content", "contest_date", "public_test_cases")
CPU_SECONDS = 6.0
MAX_TESTS_BYTES = 512 << 20
NAME = re.compile(r"livecodebench(?:-(\d{4})-(\d{4}))?")
# Reals count as equal up to this, where both outputs have the same words otherwise.
TOLERANCE = 1e-6
_FUNCTIONAL = """
import json as _json
_function = getattr(Solution(), {name!r}) if "Solution" in globals() else globals()[{name!r}]
for _given, _expected in _json.loads({tests!r}):
    _found = _function(*_given)
    if isinstance(_found, tuple):
        _found = list(_found)
    assert _found == _expected, f"{{_found!r}} for {{_expected!r}}"[:500]
"""
_IMPORTS = """\
import sys, math, re, bisect, heapq, itertools, functools, collections, random, string, operator, copy, datetime
from math import *
from typing import *
from collections import *
from itertools import *
from functools import *
from heapq import *
from bisect import *
sys.setrecursionlimit(50000)
"""


class LiveCodeBench:
    """window: first and last month as `YYMM`, both included."""

    modes: tuple[Mode, ...] = ("chat",)
    has_canonical = False
    default_extraction = "parser"

    def __init__(self, name: str, title: str, window: tuple[str, str] | None = None):
        self.name, self.title, self._window = name, title, window
        self._tasks: list[Task] | None = None

    def tasks(self) -> Sequence[Task]:
        """Raises: ValueError without the files, or with none in the window."""
        if self._tasks is None:
            paths = [data.find(f"livecodebench/{FILES[0]}.jsonl", source=SOURCE)]
            for name in FILES[1:]:
                try:
                    paths.append(data.find(f"livecodebench/{name}.jsonl", source=SOURCE))
                except data.MissingData:
                    continue
            tasks = [self._task(row, path) for path in paths for row in data.rows(path) if self._inside(row, path)]
            if not tasks:
                raise ValueError(f"{self.name}: no task of {', '.join(p.name for p in paths)} is in that window")
            self._tasks = list({task.id: task for task in tasks}.values())
        return self._tasks

    def _inside(self, row: dict[str, Any], path: Any) -> bool:
        data.require(row, FIELDS, path)
        month = datetime.fromisoformat(row["contest_date"]).strftime("%y%m")
        return self._window is None or self._window[0] <= month <= self._window[1]

    def _task(self, row: dict[str, Any], path: Any) -> Task:
        starter = row.get("starter_code") or ""
        how = (
            f"Use this starter code, and put the answer in a Python block:\n```python\n{starter}\n```"
            if starter
            else "Read the input from standard input and write the answer to standard output, in a Python block."
        )
        return Task(
            id=str(row["question_id"]),
            language="Python",
            prompt=row["question_content"],
            instruction=f"You will be given a programming problem; write a correct Python program that solves it.\n\n{row['question_content']}\n\n{how}",
            canonical=None,
            entry_point=str(_metadata(row).get("func_name") or ""),
            record={**row, "path": str(path)},
        )

    def question(self, task: Task, mode: Mode) -> Question:
        return Question(messages=chat(task.instruction))

    def solution(self, task: Task, answer: str, mode: Mode, extraction: str) -> str | None:
        """The last Markdown block, as the authors take it; nothing without one."""
        if extraction == "raw":
            return answer
        found = [b.code for b in blocks(answer) if b.code.strip()]
        return found[-1] if found else None

    def judge(self, task: Task, solution: str, runner: Runner) -> Verdict:
        """All public and private tests; the first that fails is the verdict."""
        tests = test_cases(task.record)
        if not tests:
            return Verdict(NO_CODE, "the task has no tests")
        if tests[0]["testtype"] == "functional":
            given = json.dumps(
                [[[json.loads(x) for x in t["input"].split("\n")], json.loads(t["output"])] for t in tests]
            )
            epilogue = _FUNCTIONAL.format(name=task.entry_point, tests=given)
            return runner.python(_IMPORTS + solution + "\n", epilogue, cpu_seconds=CPU_SECONDS * max(1, len(tests)))
        seconds = 0.0
        for number, test in enumerate(tests):
            run = runner.sandbox.run_python(
                clean(_IMPORTS + solution + "\n"),
                stdin=test["input"].encode(),
                limits=runner.limits(CPU_SECONDS),
                end=False,
            )
            seconds += run.wall_seconds
            if run.outcome != "ok":
                failed = python_verdict(run)
                return Verdict(failed.kind, f"test {number}: {failed.detail}", seconds, run.isolated)
            if not same_output(run.stdout.decode("utf-8", "replace"), test["output"]):
                shown = run.stdout[:300].decode("utf-8", "replace")
                return Verdict(WRONG, f"test {number}: {shown!r} for {test['output'][:300]!r}", seconds, run.isolated)
        return Verdict(PASS, "", seconds, run.isolated)


def test_cases(row: Any) -> list[dict[str, str]]:
    """Public and private tests: objects with input, output and testtype. Raises: ValueError for anything else."""
    tests = json.loads(row["public_test_cases"])
    private = row.get("private_test_cases") or "[]"
    try:
        tests += json.loads(private)
    except ValueError:
        tests += json.loads(unpickle_text(private))
    for test in tests:
        if not isinstance(test, dict) or not {"input", "output", "testtype"} <= test.keys():
            raise ValueError(
                f"task {row['question_id']}: a test without input, output and testtype; get the file again"
            )
    return tests


def unpickle_text(encoded: str) -> str:
    """The string in base64(zlib(pickle(string))). Raises: ValueError for any other content: nothing else is ever made."""
    try:
        unpacker = zlib.decompressobj()
        raw = unpacker.decompress(base64.b64decode(encoded, validate=True), MAX_TESTS_BYTES)
        value = _Strings(io.BytesIO(raw)).load()
    except (ValueError, zlib.error, pickle.UnpicklingError, EOFError, IndexError, KeyError, AttributeError) as error:
        raise ValueError(f"private tests are not a pickled string: {error}; get the file again") from error
    if not isinstance(value, str):
        raise ValueError(f"private tests are a pickled {type(value).__name__}, not a string; get the file again")
    return value


class _Strings(pickle.Unpickler):
    """Makes no object of any class."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("a persistent id is not allowed")


def same_output(found: str, expected: str) -> bool:
    """Line by line without blanks at the ends; words that are numbers on both sides may differ by TOLERANCE."""
    left = [line.split() for line in found.strip().split("\n")]
    right = [line.split() for line in expected.strip().split("\n")]
    return len(left) == len(right) and all(
        len(a) == len(b) and all(x == y or _close(x, y) for x, y in zip(a, b, strict=True))
        for a, b in zip(left, right, strict=True)
    )


def _close(found: str, expected: str) -> bool:
    if "." not in expected:  # integers are exact
        return False
    try:
        a, b = float(found), float(expected)
    except ValueError:
        return False
    return abs(a - b) <= TOLERANCE * max(1.0, abs(b))


def _metadata(row: dict[str, Any]) -> dict[str, Any]:
    value = row.get("metadata") or "{}"
    return dict(json.loads(value)) if isinstance(value, str) else dict(value)


def window_of(name: str) -> tuple[str, str] | None:
    """The window in a name. Raises: ValueError for one that ends before it begins or has no such months."""
    match = NAME.fullmatch(name)
    if match is None or match[1] is None:
        return None
    if not match[1] <= match[2] or any(not 1 <= int(m[2:]) <= 12 for m in match.groups()):
        raise ValueError(f"{name}: the window is FIRST-LAST as YYMM, such as livecodebench-2305-2409")
    return match[1], match[2]
