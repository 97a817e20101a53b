"""What HumanEval, MBPP and their extensions share: one Python function, judged by asserts in one program."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING

from opencoder_eval.benchmarks.base import STOPS_COMPLETION, STOPS_PYTHON, Mode, Question, Task, chat
from opencoder_eval.extraction import python_function
from opencoder_eval.verdicts import Verdict

if TYPE_CHECKING:
    from opencoder_eval.judging import Runner

# Seconds of CPU time for a program; wall time has its own, larger limit (judging.py). With the inputs of HumanEval+ and
# MBPP+, of which one takes the canonical solution 2.8 s, as EvalPlus.
CPU_SECONDS, CPU_SECONDS_PLUS = 10.0, 60.0
# What OpenCodeEval puts in front of every program; numpy is imported where the interpreter has it.
OPENCODEEVAL_IMPORTS = """\
import math, re, sys, copy, datetime, itertools, collections, heapq, functools, hashlib, string
from typing import *
from collections import *
try:
    import numpy
    import numpy as np
except ImportError:
    pass
"""


def refine(text: str) -> str:
    """OpenCodeEval's clean-up of prompts: tabs to four spaces, plain line ends, one newline at the end."""
    return text.replace("\t", "    ").replace("\r\n", "\n").replace("\r", "\n").strip() + "\n"


class PythonFunctions(abc.ABC):
    """Base of the Python benchmarks."""

    modes: tuple[Mode, ...] = ("completion", "chat")
    has_canonical = True
    stops: tuple[str, ...] = (*STOPS_PYTHON, *STOPS_COMPLETION)
    default_extraction = "parser"
    # Between prompt and completion in the text that code is extracted from.
    separator = ""
    cpu_seconds = CPU_SECONDS

    def __init__(self, name: str, title: str):
        self.name, self.title = name, title
        self._tasks: Sequence[Task] | None = None

    def tasks(self) -> Sequence[Task]:
        """Read once."""
        if self._tasks is None:
            self._tasks = self.load()
        return self._tasks

    @abc.abstractmethod
    def load(self) -> Sequence[Task]:
        """Reads the data."""

    @abc.abstractmethod
    def program(self, task: Task, solution: str) -> tuple[str, str]:
        """The Python program with the solution, and the tests that run after it in the same namespace."""

    def question(self, task: Task, mode: Mode) -> Question:
        """Base models continue the prompt; chat models get the instruction."""
        if mode == "completion":
            return Question(prompt=task.prompt, stop=self.stops)
        return Question(messages=chat(task.instruction))

    def solution(self, task: Task, answer: str, mode: Mode, extraction: str) -> str | None:
        """See `extraction`; a completion is judged together with its prompt."""
        text = task.prompt + self.separator + answer if mode == "completion" else answer
        return python_function(text, task.entry_point, extraction)

    def judge(self, task: Task, solution: str, runner: Runner) -> Verdict:
        """One run of `program`."""
        program, tests = self.program(task, solution)
        return runner.python(program, tests, cpu_seconds=self.cpu_seconds)
