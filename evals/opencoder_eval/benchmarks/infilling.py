"""Infilling tasks made from HumanEval's solutions (Bavarian et al. 2022): a hole in the body, judged by HumanEval's tests.

single-line: every line of a solution that is not blank, in turn. multi-line: spans of consecutive lines. span: a range of
characters. Which spans is a function of the task alone, so that scores can be compared; the original draws others.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from opencoder_eval.benchmarks.base import END_TOKENS, Mode, Question, Task
from opencoder_eval.benchmarks.humaneval import HumanEval
from opencoder_eval.verdicts import Verdict

if TYPE_CHECKING:
    from opencoder_eval.judging import Runner

VARIANTS = ("single-line", "multi-line", "span")
SPANS_PER_TASK = 4


class Infilling:
    """variant: one of VARIANTS. The question has the text before the hole and, as `suffix`, the text after it."""

    modes: tuple[Mode, ...] = ("completion",)
    has_canonical = True
    default_extraction = "raw"

    def __init__(self, name: str, title: str, variant: str):
        self.name, self.title, self._variant = name, title, variant
        self._tasks: list[Task] | None = None
        self._source = HumanEval("humaneval", "HumanEval")

    def tasks(self) -> Sequence[Task]:
        if self._tasks is None:
            self._tasks = [task for source in self._source.tasks() for task in self._holes(source)]
        return self._tasks

    def _holes(self, source: Task) -> Iterator[Task]:
        prompt, body = source.record["prompt"], source.record["canonical_solution"]
        for number, (start, end) in enumerate(holes(body, self._variant, source.id)):
            yield Task(
                id=f"{source.id}/{self._variant}/{number}",
                language="Python",
                prompt=prompt + body[:start],
                instruction="",
                canonical=prompt + body,
                completion=body[start:end],
                entry_point=source.entry_point,
                record={**source.record, "suffix": body[end:]},
            )

    def question(self, task: Task, mode: Mode) -> Question:
        """A single line ends with its line."""
        stop = ("\n", *END_TOKENS) if self._variant == "single-line" else END_TOKENS
        return Question(prompt=task.prompt, suffix=task.record["suffix"], stop=stop)

    def solution(self, task: Task, answer: str, mode: Mode, extraction: str) -> str | None:
        """The whole program with the hole filled."""
        return task.prompt + answer + task.record["suffix"]

    def judge(self, task: Task, solution: str, runner: Runner) -> Verdict:
        return self._source.judge(task, solution, runner)


def holes(body: str, variant: str, seed: str) -> list[tuple[int, int]]:
    """Character ranges of `body`: without the newline at their end for lines, never blank, no range twice."""
    starts = [0]
    for line in body.split("\n")[:-1]:
        starts.append(starts[-1] + len(line) + 1)
    lines = [(s, s + len(text)) for s, text in zip(starts, body.split("\n"), strict=True) if text.strip()]
    if variant == "single-line":
        return lines
    draw = random.Random(f"{variant}/{seed}")
    chosen: list[tuple[int, int]] = []
    for _ in range(SPANS_PER_TASK * 5):
        if variant == "multi-line":
            if len(lines) < 2:
                break
            first = draw.randrange(len(lines) - 1)
            last = draw.randrange(first + 1, len(lines))
            span = (lines[first][0], lines[last][1])
        else:
            a, b = sorted((draw.randrange(len(body) + 1), draw.randrange(len(body) + 1)))
            span = (a, b)
        if body[span[0] : span[1]].strip() and span not in chosen:
            chosen.append(span)
        if len(chosen) == SPANS_PER_TASK:
            break
    return sorted(chosen)
