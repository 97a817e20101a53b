"""CodeArena (Yang et al. 2024): 397 questions of users, answers compared with a baseline's by a judge model.

The judge is any OpenAI-compatible endpoint (`--judge-endpoint`). It sees each pair in both orders, because judges prefer
a place; a task is won when the two judgments together are for the model. Without a judge nothing is run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from opencoder_eval.benchmarks import data
from opencoder_eval.benchmarks.base import Mode, Question, Task
from opencoder_eval.verdicts import EXCEPTION, NOT_RUN, PASS, WRONG, Verdict

if TYPE_CHECKING:
    from opencoder_eval.judging import Runner

SOURCE = "huggingface.co/datasets/CSJianYang/CodeArena (CodeArena_v1.jsonl)"
BASELINE = "gpt-4-turbo-2024-04-09_response"
LABEL = re.compile(r"\[\[(A>>B|A>B|A=B|B>A|B>>A)\]\]")
# For the answer in place A.
WORTH = {"A>>B": 2, "A>B": 1, "A=B": 0, "B>A": -1, "B>>A": -2}
ATTEMPTS = 2
SYSTEM = (
    "You judge the answers of two assistants, A and B, to a user's question about programming. First write your own answer. "
    "Then compare: which answer is correct, does what was asked, is complete and to the point? Name the mistakes. Neither the "
    "order of the answers nor their length may count. End with exactly one label: [[A>>B]] A is much better, [[A>B]] A is "
    "better, [[A=B]] equal, [[B>A]] B is better, [[B>>A]] B is much better."
)
AGAIN = "End with exactly one of the labels [[A>>B]], [[A>B]], [[A=B]], [[B>A]], [[B>>A]]."


class CodeArena:
    """Questions are chats; the whole answer is judged, not the code in it."""

    modes: tuple[Mode, ...] = ("chat",)
    has_canonical = False
    default_extraction = "raw"

    def __init__(self, name: str, title: str):
        self.name, self.title = name, title
        self._tasks: list[Task] | None = None

    def tasks(self) -> Sequence[Task]:
        """Raises: ValueError without the data or for rows without a baseline."""
        if self._tasks is None:
            path = data.find("codearena/CodeArena_v1.jsonl", source=SOURCE)
            self._tasks = []
            for row in data.rows(path):
                data.require(row, ("id", "messages", BASELINE), path)
                messages = _messages(row["messages"])
                text = "\n\n".join(m["content"] for m in messages)
                self._tasks.append(
                    Task(str(row["id"]), _language(row), text, text, None, record={**row, "messages": messages})
                )
        return self._tasks

    def question(self, task: Task, mode: Mode) -> Question:
        return Question(messages=tuple(task.record["messages"]))

    def solution(self, task: Task, answer: str, mode: Mode, extraction: str) -> str | None:
        return answer if answer.strip() else None

    def judge(self, task: Task, solution: str, runner: Runner) -> Verdict:
        """Both orders. A tie is not a win; a judge without a label is an `exception`, with its words."""
        if runner.ask is None:
            return Verdict(NOT_RUN, "no judge; give --judge-endpoint")
        total, said = 0, []
        for swapped in (False, True):
            pair = (task.record[BASELINE], solution) if swapped else (solution, task.record[BASELINE])
            label, text = _judgment(runner, task.instruction, *pair)
            if label is None:
                return Verdict(EXCEPTION, f"the judge gave no label: {text[-1000:]}")
            total += -WORTH[label] if swapped else WORTH[label]
            said.append(f"[{'baseline first' if swapped else 'model first'}] {text[-1000:]}")
        return Verdict(PASS if total > 0 else WRONG, ("tie\n" if total == 0 else "") + "\n\n".join(said))


def _judgment(runner: Runner, question: str, first: str, second: str) -> tuple[str | None, str]:
    assert runner.ask is not None
    asked = f"# Question\n{question}\n\n# Answer of A\n{first}\n\n# Answer of B\n{second}\n"
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": asked}]
    text = ""
    for _ in range(ATTEMPTS):
        reply = runner.ask(messages)
        text = f"{text}\n{reply}".strip()
        labels = set(LABEL.findall(reply))
        if len(labels) == 1:
            return labels.pop(), text
        messages += [{"role": "assistant", "content": reply}, {"role": "user", "content": AGAIN}]
    return None, text


def _messages(value: Any) -> list[dict[str, str]]:
    """A list, or as published its Python text. Raises: ValueError."""
    try:
        messages = ast.literal_eval(value) if isinstance(value, str) else value
        return [{"role": str(m["role"]), "content": str(m["content"])} for m in messages]
    except (SyntaxError, KeyError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"CodeArena: messages are not a list of messages: {error}; get {SOURCE}") from error


def _language(row: dict[str, Any]) -> str:
    named = row.get("programming_language")
    if isinstance(named, list) and named:
        return str(named[0])
    return str(named).strip("[]'\" ").split(",")[0].strip("'\" ") or "text"
