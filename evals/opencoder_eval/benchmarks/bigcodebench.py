"""BigCodeBench (Zhuo et al. 2024), v0.1.0: 1,140 tasks with libraries; hard: 148 of them.

Tests are `unittest` classes. A run passes when at least one test ran and none failed. The interpreter needs some seventy
libraries: give one with `--python` and `--read-only`; what the reference solutions reach with it is printed beside each score.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from opencoder_eval.benchmarks import data
from opencoder_eval.benchmarks.base import Task, fenced
from opencoder_eval.benchmarks.humaneval import INSTRUCTION
from opencoder_eval.benchmarks.python_functions import PythonFunctions
from opencoder_eval.judging import MiB
from opencoder_eval.verdicts import Verdict

if TYPE_CHECKING:
    from opencoder_eval.judging import Runner

SOURCE = "github.com/bigcode-project/bigcodebench-annotation (hf_data) or github.com/OpenCoder-llm/OpenCoder-llm"
FILES = {
    "full": ("bigcodebench/BigCodeBench_v0.1.0_hf_data.jsonl", "bigcodebench/BigCodeBench.jsonl"),
    "hard": ("bigcodebench/BigCodeBench_Hard.opencodeeval.jsonl", "bigcodebench/BigCodeBench_Hard.jsonl"),
}
CPU_SECONDS, MEMORY = 60.0, 8192 * MiB
# Counts what ran: a class without tests, or one that a solution put in its place, must not pass.
RUN_TESTS = """
import unittest as _unittest
_suite = _unittest.defaultTestLoader.loadTestsFromTestCase(TestCases)
assert _suite.countTestCases() >= {tests}, "the tests are gone"
_result = _unittest.TextTestRunner(verbosity=0).run(_suite)
assert _result.testsRun >= {tests} and _result.wasSuccessful(), "a test failed"
"""


class BigCodeBench(PythonFunctions):
    """variant: `complete` (a docstring to continue) or `instruct`. subset: `full` or `hard`."""

    cpu_seconds = CPU_SECONDS

    def __init__(self, name: str, title: str, *, variant: str, subset: str):
        super().__init__(name, title)
        self._subset = subset
        self.modes = ("completion", "chat") if variant == "complete" else ("chat",)
        self._variant = variant

    def load(self) -> Sequence[Task]:
        path = _find(self._subset)
        tasks = []
        for row in data.rows(path):
            data.require(
                row,
                ("task_id", "complete_prompt", "instruct_prompt", "canonical_solution", "code_prompt", "test"),
                path,
            )
            asked = f"{INSTRUCTION}\n{fenced(row['complete_prompt'].strip())}"
            tasks.append(
                Task(
                    id=row["task_id"],
                    language="Python",
                    prompt=row["complete_prompt"].strip() + "\n",
                    instruction=asked if self._variant == "complete" else row["instruct_prompt"],
                    canonical=row["complete_prompt"] + row["canonical_solution"],
                    completion=row["canonical_solution"],
                    entry_point=row["entry_point"],
                    record={k: row[k] for k in ("task_id", "code_prompt", "test", "entry_point")},
                )
            )
        return tasks

    def program(self, task: Task, solution: str) -> tuple[str, str]:
        """`calibrated` as the authors do: imports and signature of the prompt come first, so that only code is judged."""
        test = task.record["test"]
        count = test.count("\n    def test")
        head = f"{task.record['code_prompt']}    pass\n\n"
        return f"{head}{solution}\n", f"{test}\n{RUN_TESTS.format(tests=max(1, count))}"

    def judge(self, task: Task, solution: str, runner: Runner) -> Verdict:
        program, tests = self.program(task, solution)
        return runner.python(program, tests, cpu_seconds=CPU_SECONDS, memory=MEMORY, processes=256)


def _find(subset: str) -> Path:
    for name in FILES[subset]:
        try:
            return data.find(name, source=SOURCE)
        except data.MissingData as error:
            missing = error
    raise missing
