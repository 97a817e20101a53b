"""MultiPL-E (Cassano et al. 2022): HumanEval and MBPP translated to 18 languages; the paper's table 8 has seven of them.

A solution is the prompt with its completion, without the tests. There are no reference solutions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opencoder_eval.benchmarks import data
from opencoder_eval.benchmarks.base import END_TOKENS, Mode, Question, Task, chat, fenced
from opencoder_eval.placement import chosen_block, closes_function, place
from opencoder_eval.verdicts import Verdict

if TYPE_CHECKING:
    from opencoder_eval.judging import Runner

SOURCE = "github.com/bytedance/SandboxFusion (sandbox/tests/datasets/samples/Multi-PLE)"
LANGUAGES: Mapping[str, str] = {
    "java": "Java",
    "cpp": "CPP",
    "cs": "C#",
    "ts": "TypeScript",
    "js": "JavaScript",
    "php": "PHP",
    "sh": "Shell",
    "d": "D",
    "go": "Go",
    "jl": "Julia",
    "lua": "Lua",
    "pl": "Perl",
    "r": "R",
    "rb": "Ruby",
    "rkt": "Racket",
    "rs": "Rust",
    "scala": "Scala",
    "swift": "Swift",
}
PAPER = ("java", "cpp", "cs", "ts", "js", "php", "sh")
_FENCES = {"CPP": "cpp", "C#": "csharp", "Shell": "bash"}
CPU_SECONDS = 30.0
JAVATUPLES = "import org.javatuples.*;"
# In place of the library javatuples, of which the translations use these: tuples that are equal where their values are.
_TUPLES = ("Unit", "Pair", "Triplet", "Quartet", "Quintet", "Sextet")


class MultiplE:
    """codes: languages by MultiPL-E's abbreviations."""

    modes: tuple[Mode, ...] = ("completion", "chat")
    has_canonical = False
    default_extraction = "parser"

    def __init__(self, name: str, title: str, source: str, codes: Sequence[str]):
        self.name, self.title, self._source, self._codes = name, title, source, tuple(codes)
        self._tasks: list[Task] | None = None

    def tasks(self) -> Sequence[Task]:
        """By language; ids are `CODE/NAME`."""
        if self._tasks is None:
            self._tasks = [task for code in self._codes for task in self._load(code)]
        return self._tasks

    def _load(self, code: str) -> list[Task]:
        path = _find(f"{self._source}-{code}.jsonl")
        tasks = []
        for row in data.rows(path):
            data.require(row, ("name", "prompt", "tests", "stop_tokens"), path)
            language = LANGUAGES[code]
            fence = _FENCES.get(language, language.lower())
            asked = f"Complete the following {language.replace('CPP', 'C++')} function in a markdown code block:\n"
            kept = {key: row[key] for key in ("name", "prompt", "tests", "stop_tokens")}
            tasks.append(
                Task(
                    id=f"{code}/{row['name']}",
                    language=language,
                    prompt=row["prompt"],
                    instruction=asked + fenced(row["prompt"], fence),
                    canonical=None,
                    entry_point=row["name"].split("_", 2)[-1],
                    record=kept,
                )
            )
        return tasks

    def question(self, task: Task, mode: Mode) -> Question:
        if mode == "chat":
            return Question(messages=chat(task.instruction))
        return Question(prompt=task.prompt, stop=(*task.record["stop_tokens"], *END_TOKENS))

    def solution(self, task: Task, answer: str, mode: Mode, extraction: str) -> str | None:
        """Prompt and completion; of a chat answer the same, put together from its block."""
        if mode == "completion" or extraction == "raw":
            return task.prompt + answer
        names = _spellings(task.entry_point)
        code = chosen_block(answer, names)
        return None if code is None else place(code, task.language, task.prompt, task.record["tests"], names)

    def judge(self, task: Task, solution: str, runner: Runner) -> Verdict:
        """The tests follow the solution. A brace that the tests bring, and the solution has too, is dropped from it."""
        program = f"{solution}\n{task.record['tests']}"
        if task.language == "Java":
            program = with_tuples(program)
        if task.language == "TypeScript":
            return runner.typescript(program, cpu_seconds=CPU_SECONDS)
        return runner.language(task.language, program, cpu_seconds=CPU_SECONDS)


def with_tuples(program: str) -> str:
    """Java without the library javatuples: its import goes, and small classes of the same names come where they are used."""
    if JAVATUPLES not in program:
        return program
    program = program.replace(JAVATUPLES, "")
    used = [(name, n) for n, name in enumerate(_TUPLES, 1) if re.search(rf"\b{name}\b", program)]
    return program + "".join(_tuple_class(name, n) for name, n in used)


def _tuple_class(name: str, n: int) -> str:
    letters = [chr(ord("A") + i) for i in range(n)]
    types = ", ".join(letters)
    arguments = ", ".join(f"{letter} v{i}" for i, letter in enumerate(letters))
    values = ", ".join(f"v{i}" for i in range(n))
    fields = "".join(f"  private final {letter} v{i};\n" for i, letter in enumerate(letters))
    sets = " ".join(f"this.v{i} = v{i};" for i in range(n))
    gets = "".join(f"  public {letter} getValue{i}() {{ return v{i}; }}\n" for i, letter in enumerate(letters))
    return (
        f"\nfinal class {name}<{types}> {{\n{fields}"
        f"  {name}({arguments}) {{ {sets} }}\n"
        f"  public static <{types}> {name}<{types}> with({arguments}) {{ return new {name}<>({values}); }}\n{gets}"
        f"  public java.util.List<Object> toList() {{ return java.util.Arrays.asList({values}); }}\n"
        f"  @Override public int hashCode() {{ return toList().hashCode(); }}\n"
        f"  @Override public boolean equals(Object o) {{ return o instanceof {name} && toList().equals((({name}<{', '.join('?' * n)}>) o).toList()); }}\n"
        f"  @Override public String toString() {{ return toList().toString(); }}\n}}\n"
    )


def _spellings(name: str) -> tuple[str, ...]:
    """snake_case, camelCase and PascalCase."""
    words = name.split("_")
    camel = words[0] + "".join(w[:1].upper() + w[1:] for w in words[1:])
    return name, camel, camel[:1].upper() + camel[1:], "".join(w[:1].upper() + w[1:] for w in words)


def _find(name: str) -> Any:
    for directory in ("multipl-e/sandboxfusion", "multipl-e"):
        try:
            return data.find(f"{directory}/{name}", source=SOURCE)
        except data.MissingData as error:
            missing = error
    raise missing


__all__ = ["LANGUAGES", "PAPER", "MultiplE", "closes_function", "with_tuples"]
