"""HumanEval (Chen et al. 2021) and HumanEval+ (Liu et al. 2023): 164 Python functions.

HumanEval+ is read in its self-contained form (HumanEvalPlus-OriginFmt): the published test of HumanEval/32 calls its
polynomial the wrong way round and fails every solution; it is repaired here.
"""

from __future__ import annotations

from collections.abc import Sequence

from opencoder_eval.benchmarks import data
from opencoder_eval.benchmarks.base import Task, fenced
from opencoder_eval.benchmarks.python_functions import CPU_SECONDS_PLUS, OPENCODEEVAL_IMPORTS, PythonFunctions, refine
from opencoder_eval.benchmarks.quick_numpy import prepare

SOURCE = "github.com/openai/human-eval (data/HumanEval.jsonl.gz)"
SOURCE_PLUS = "github.com/evalplus/humanevalplus_release (HumanEvalPlus-OriginFmt.jsonl.gz)"
FILES = {
    False: ("humaneval/HumanEval.jsonl", SOURCE),
    True: ("humanevalplus/HumanEvalPlus-OriginFmt.jsonl", SOURCE_PLUS),
}
INSTRUCTION = (
    "Please provide a self-contained Python script that solves the following problem in a markdown code block:"
)
BROKEN_32 = "_poly(*candidate(*inp), inp) <= 0.0001"
REPAIRED_32 = "abs(_poly(*inp, candidate(*inp))) <= 0.0001"


class HumanEval(PythonFunctions):
    """plus: the tests of HumanEval+. opencodeeval: prompts and extraction of the paper's harness."""

    def __init__(self, name: str, title: str, *, plus: bool = False, opencodeeval: bool = False):
        super().__init__(name, title)
        self.plus, self.opencodeeval = plus, opencodeeval
        if plus:
            self.cpu_seconds = CPU_SECONDS_PLUS
        if opencodeeval:
            self.default_extraction, self.separator = "opencodeeval", "\n\n"

    def load(self) -> Sequence[Task]:
        relative, source = FILES[self.plus]
        path = data.find(relative, source=source)
        tasks = []
        for row in data.rows(path):
            data.require(row, ("task_id", "prompt", "canonical_solution", "test", "entry_point"), path)
            prompt = row["prompt"]
            shown = refine(prompt) if self.opencodeeval else prompt.strip() + "\n"
            tasks.append(
                Task(
                    id=row["task_id"],
                    language="Python",
                    prompt=shown,
                    instruction=f"{INSTRUCTION}\n{fenced(shown)}",
                    canonical=prompt + row["canonical_solution"],
                    completion=row["canonical_solution"].lstrip("\n"),
                    entry_point=row["entry_point"],
                    record=row,
                )
            )
        return tasks

    def program(self, task: Task, solution: str) -> tuple[str, str]:
        """The solution, and the published `check` with its call.

        HumanEval's tests call helper functions that three of its prompts define; an answer may leave them out.
        OpenCodeEval puts its imports and the whole prompt in front.
        """
        test = task.record["test"]
        if self.plus:
            test = prepare(test.replace(BROKEN_32, REPAIRED_32))
        head = "" if self.plus else _helpers(task)
        if self.opencodeeval:
            head = f"{OPENCODEEVAL_IMPORTS}\n{task.record['prompt']}\n    pass\n"
        return f"{head}\n{solution}\n", f"{test}\n\ncheck({task.entry_point})\n"


def _helpers(task: Task) -> str:
    """The prompt before its last function where that holds functions, else nothing: imports are the answer's business."""
    prompt = task.record["prompt"]
    before = prompt[: max(0, prompt.rfind(f"def {task.entry_point}("))]
    return before if "def " in before else ""
