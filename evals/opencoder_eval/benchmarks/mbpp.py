"""MBPP (Austin et al. 2021) in its variants, and MBPP+ (Liu et al. 2023).

| name | tasks | prompt | tests |
|---|---|---|---|
| mbpp, mbpp-test, mbpp-sanitized | 974; ids 11 to 510; 427 | a docstring with the text and the first assert | the published asserts |
| mbpp-3shot | ids 11 to 510 | OpenCodeEval's: three solved tasks, then the text and all asserts | same |
| mbpp-3shot-opencodeeval | ids 10 to 509, as OpenCodeEval counts | same | same |
| mbpp-evalplus, mbppplus | 378 | EvalPlus' docstring | EvalPlus' base inputs; all inputs |

Set-up code of a task's tests runs after the solution: two tasks need its classes.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from opencoder_eval.benchmarks import data
from opencoder_eval.benchmarks.base import STOPS_COMPLETION, STOPS_PYTHON, Mode, Question, Task, chat, fenced
from opencoder_eval.benchmarks.humaneval import INSTRUCTION
from opencoder_eval.benchmarks.python_functions import CPU_SECONDS_PLUS, OPENCODEEVAL_IMPORTS, PythonFunctions, refine
from opencoder_eval.benchmarks.quick_numpy import prepare
from opencoder_eval.extraction import blocks, defined, parse

SOURCE = "github.com/OpenCoder-llm/OpenCoder-llm (OpenCodeEval/src/data)"
SOURCE_PLUS = "github.com/evalplus/mbppplus_release"
FEW_SHOT_IDS = (1, 2, 3)
TEST_IDS, TEST_IDS_OPENCODEEVAL = range(11, 511), range(10, 510)
# EvalPlus' additional stops for MBPP.
STOPS_EVALPLUS = (*STOPS_PYTHON, '\n"""', "\nassert")


class Mbpp(PythonFunctions):
    """The published asserts. ids: None for all. few_shot: three solved tasks in the prompt."""

    stops = STOPS_EVALPLUS

    def __init__(
        self,
        name: str,
        title: str,
        *,
        file: str = "mbpp",
        ids: range | None = None,
        few_shot: bool = False,
        opencodeeval: bool = False,
    ):
        super().__init__(name, title)
        self._file, self._ids, self._few_shot, self._opencodeeval = file, ids, few_shot, opencodeeval
        if few_shot:
            self.stops = (*STOPS_PYTHON, *STOPS_COMPLETION[4:], "\n```")
        if opencodeeval:
            self.default_extraction = "opencodeeval"

    def load(self) -> Sequence[Task]:
        path = data.find(f"mbpp/{self._file}.jsonl", source=SOURCE)
        rows = data.rows(path)
        for row in rows:
            data.require(row, ("task_id", "code", "test_list"), path)
        shots = "\n".join(_shot(r, solved=True) for r in rows if r["task_id"] in FEW_SHOT_IDS) if self._few_shot else ""
        return [self._task(row, shots) for row in rows if self._ids is None or row["task_id"] in self._ids]

    def _task(self, row: dict[str, Any], shots: str) -> Task:
        text = row.get("text") or row["prompt"]
        shown = f'"""\n{text.strip()}\n{row["test_list"][0].strip()}\n"""\n'
        canonical = row["code"].replace("\r\n", "\n")
        return Task(
            id=f"Mbpp/{row['task_id']}",
            language="Python",
            prompt=f"{shots}\n{_shot(row, solved=False)}" if self._few_shot else shown,
            instruction=f"{shots}\n{_shot(row, solved=False)}" if self._few_shot else f"{INSTRUCTION}\n{fenced(shown)}",
            canonical=canonical,
            completion=canonical,
            entry_point=entry_point(canonical, row["test_list"]),
            record=row,
        )

    def question(self, task: Task, mode: Mode) -> Question:
        """The few-shot prompt opens a block, which the answer of a base model goes on with."""
        if mode == "chat" and self._few_shot:
            return Question(messages=chat(task.instruction.removesuffix("\n```python\n")))
        return super().question(task, mode)

    def solution(self, task: Task, answer: str, mode: Mode, extraction: str) -> str | None:
        """Without the few-shot prompt: it holds the solutions of other tasks."""
        if self._few_shot:
            answer = answer if mode == "chat" or blocks(answer) else answer.split("\n```")[0]
            mode = "chat"
        return super().solution(task, answer, mode, extraction)

    def program(self, task: Task, solution: str) -> tuple[str, str]:
        row = task.record
        head = OPENCODEEVAL_IMPORTS if self._opencodeeval else ""
        setup = "\n".join([row.get("test_setup_code") or "", *row.get("test_imports", [])]).replace("\r\n", "\n")
        return f"{head}{solution}\n", f"{setup}\n" + "\n".join(row["test_list"]) + "\n"


class MbppPlus(PythonFunctions):
    """The 378 tasks of EvalPlus. base: only the inputs that EvalPlus calls base."""

    stops = STOPS_EVALPLUS
    cpu_seconds = CPU_SECONDS_PLUS

    def __init__(self, name: str, title: str, *, base: bool = False):
        super().__init__(name, title)
        self._base = base

    def load(self) -> Sequence[Task]:
        path = data.find("mbppplus/MbppPlus-OriginFmt.jsonl", source=SOURCE_PLUS)
        prompts_path = data.find("mbppplus/MbppPlus.jsonl", source=SOURCE_PLUS)
        published = {row["task_id"]: row for row in data.rows(prompts_path)}
        tasks = []
        for row in data.rows(path):
            data.require(row, ("task_id", "code", "test"), path)
            name = f"Mbpp/{row['task_id']}"
            if name not in published:
                raise ValueError(f"{prompts_path}: lacks {name}, which {path} has; get both from {SOURCE_PLUS}")
            other = published[name]
            tasks.append(
                Task(
                    id=name,
                    language="Python",
                    prompt=other["prompt"].strip() + "\n",
                    instruction=f"{INSTRUCTION}\n{fenced(other['prompt'].strip())}",
                    canonical=row["code"],
                    completion=row["code"].lstrip("\n"),
                    entry_point=other["entry_point"],
                    record={**row, "base_inputs": len(other["base_input"])},
                )
            )
        return tasks

    def program(self, task: Task, solution: str) -> tuple[str, str]:
        test = task.record["test"]
        if self._base:
            n = task.record["base_inputs"]
            short = test.replace("zip(inputs, results)", f"zip(inputs[:{n}], results[:{n}])")
            short = short.replace("enumerate(inputs)", f"enumerate(inputs[:{n}])")
            if short == test:
                raise ValueError(f"{task.id}: its test has another form than MBPP+ v0.2.0; get {SOURCE_PLUS}")
            test = short
        imports = "\n".join(task.record.get("test_imports", []))
        return f"{imports}\n{solution}\n", prepare(test)


def entry_point(canonical: str, tests: Sequence[str]) -> str:
    """The first function of the canonical solution that the tests call; "" where none is found."""
    tree = parse(canonical)
    names = defined(tree) if tree is not None else set()
    for test in tests:
        parsed = parse(test.strip())
        for node in ast.walk(parsed) if parsed is not None else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                return node.func.id
    return ""


def _shot(row: dict[str, Any], *, solved: bool) -> str:
    """One task of OpenCodeEval's few-shot prompt; unsolved, it ends where the code begins."""
    text = refine(row.get("text") or row["prompt"])
    tests = "\n".join(row["test_list"])
    head = f"You are an expert Python programmer, and here is your task:\n{text}Your code should pass these tests:\n{tests}\n"
    return f"{head}\n```python\n{refine(row['code'])}\n```\n" if solved else f"{head}\n```python\n"
