"""What a benchmark is: tasks, questions to a model, code from its answers, and verdicts on that code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from opencoder_eval.verdicts import Verdict

if TYPE_CHECKING:
    from opencoder_eval.judging import Runner

Mode = Literal["completion", "chat"]
MODES: tuple[Mode, ...] = ("completion", "chat")

# Ends of an answer that hold for every benchmark of Python functions (EvalPlus, OpenCodeEval).
END_TOKENS = ("<|endoftext|>", "<|endofmask|>", "</s>")
STOPS_PYTHON = (*END_TOKENS, "\nif __name__", "\ndef main(", "\nprint(", "\n```\n")
STOPS_COMPLETION = ("\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert ")


@dataclass(frozen=True)
class Task:
    """One problem.

    id: as in the published data. language: a name of the sandbox's table. prompt: what a base model continues.
    instruction: what a chat model is asked. canonical: a solution in the form that `Benchmark.solution` returns, or None.
    completion: the part of the canonical solution that a base model would write after `prompt` (bits per byte).
    record: the published row.
    """

    id: str
    language: str
    prompt: str
    instruction: str
    canonical: str | None
    completion: str | None = None
    entry_point: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """What is sent to a model: a text to continue (with `suffix`: to fill in), or the messages of a chat."""

    prompt: str = ""
    messages: tuple[Mapping[str, str], ...] = ()
    suffix: str | None = None
    stop: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """For a reader: the prompt, or the messages under their roles."""
        if not self.messages:
            return self.prompt if self.suffix is None else f"{self.prompt}[to be filled in]{self.suffix}"
        return "\n\n".join(f"[{m['role']}]\n{m['content']}" for m in self.messages)


class Benchmark(Protocol):
    """A set of tasks under one name; the name says the variant, so that a score needs no footnote.

    modes: how the benchmark can be asked, the usual way first.
    has_canonical: whether its tasks have reference solutions, so that the data and the toolchains can be checked.
    default_extraction: see `extraction`.
    """

    name: str
    title: str
    modes: tuple[Mode, ...]
    has_canonical: bool
    default_extraction: str

    def tasks(self) -> Sequence[Task]:
        """In the published order. Raises: ValueError when the data is not found or not what it should be."""
        ...

    def question(self, task: Task, mode: Mode) -> Question: ...

    def solution(self, task: Task, answer: str, mode: Mode, extraction: str) -> str | None:
        """The code to judge, complete; None where the answer holds none."""
        ...

    def judge(self, task: Task, solution: str, runner: Runner) -> Verdict: ...


class TasksByLanguage:
    """Tasks that are stored by language, read once."""

    def __init__(self, languages: Sequence[str]):
        self._languages = tuple(languages)
        self._tasks: list[Task] | None = None

    def tasks(self) -> Sequence[Task]:
        """Language after language, each in the published order."""
        if self._tasks is None:
            self._tasks = [task for language in self._languages for task in self._load(language)]
        return self._tasks

    def _load(self, language: str) -> list[Task]:
        raise NotImplementedError


def chat(text: str) -> tuple[Mapping[str, str], ...]:
    """One user message."""
    return ({"role": "user", "content": text},)


def fenced(code: str, language: str = "python") -> str:
    """`code` as a Markdown block."""
    return f"```{language}\n{code.rstrip()}\n```"
