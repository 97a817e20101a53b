"""MdEval (Liu et al. 2024): finding and repairing bugs in the 18 languages of its first release, about 1,190 a task.

| variant | asked for | judged by |
|---|---|---|
| repair | the code without its bug | the published tests |
| repair-doc, repair-example | the same, with a description or an example | the published tests |
| ident | the kind of the bug, out of 47 | equality |
| loc | which of up to four snippets hold it | equality of the sets |
| review | which of two programs is right | equality |
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opencoder_eval.benchmarks import data
from opencoder_eval.benchmarks.base import Mode, Question, Task, TasksByLanguage, chat
from opencoder_eval.benchmarks.programs import DOCUMENTS, judge, same_document
from opencoder_eval.placement import chosen_block
from opencoder_eval.verdicts import PASS, WRONG, Verdict

if TYPE_CHECKING:
    from opencoder_eval.judging import Runner

SOURCE = "github.com/PGCodeLLM/MDEVAL (data/raw_data)"
# The file's name, where it is not the sandbox's.
FILES = {"Common Lisp": "Clisp"}
LANGUAGES = (
    *(
        "C",
        "C#",
        "CPP",
        "Common Lisp",
        "F#",
        "Go",
        "JSON",
        "Java",
        "JavaScript",
        "Julia",
        "PHP",
        "Pascal",
        "Python",
        "R",
    ),
    *("Ruby", "Rust", "Scala", "Swift"),
)
VARIANTS = {
    "repair": "bug",
    "repair-doc": "doc",
    "repair-example": "example",
    "ident": "ident",
    "loc": "loc",
    "review": "review",
}


class MdEval(TasksByLanguage):
    """variant: a key of VARIANTS."""

    modes: tuple[Mode, ...] = ("chat",)
    default_extraction = "parser"

    def __init__(self, name: str, title: str, variant: str, languages: Sequence[str] = LANGUAGES):
        self.name, self.title, self._variant = name, title, variant
        self.has_canonical = variant.startswith("repair")
        super().__init__(languages)

    def _load(self, language: str) -> list[Task]:
        path = _find(f"{VARIANTS[self._variant]}/{FILES.get(language, language)}.jsonl")
        tasks = []
        for row in data.rows(path):
            data.require(row, ("question_id", "canonical_solution", "buggy_code", "instruction"), path)
            number = str(row["question_id"]).split("/")[-1]
            tasks.append(
                Task(
                    id=f"{language}/{number}",
                    language=language,
                    prompt=row["instruction"],
                    instruction=row["instruction"],
                    canonical=row["canonical_solution"] if self.has_canonical else None,
                    completion=row["canonical_solution"] if self.has_canonical else str(self._expected(row)),
                    record=row,
                )
            )
        return tasks

    def question(self, task: Task, mode: Mode) -> Question:
        return Question(messages=chat(task.instruction))

    def solution(self, task: Task, answer: str, mode: Mode, extraction: str) -> str | None:
        """The repaired code, or the answer itself."""
        if self.has_canonical:
            return answer if extraction == "raw" else chosen_block(answer, ())
        return answer.strip() or None

    def judge(self, task: Task, solution: str, runner: Runner) -> Verdict:
        if not self.has_canonical:
            expected = self._expected(task.record)
            found = self._found(solution)
            return Verdict(PASS) if found == expected else Verdict(WRONG, f"expected {expected!r}, found {found!r}")
        if task.language in DOCUMENTS:
            return same_document(task.language, solution, task.record["canonical_solution"])
        return judge(task.language, solution, task.record["test"], runner)

    def _expected(self, row: Any) -> object:
        if self._variant == "ident":
            return str(row["subtype"]).strip().lower()
        if self._variant == "loc":
            return sorted(row["loc_answer"])
        return str(row["choice_answer"]).strip()

    def _found(self, answer: str) -> object:
        if self._variant == "ident":
            return answer.strip().strip("'\"`. ").lower()
        if self._variant == "loc":
            lists = re.findall(r"\[[^\[\]]*\]", answer)
            try:
                return sorted({str(x) for x in json.loads(lists[-1].replace("'", '"'))}) if lists else []
            except ValueError:
                return []
        match = re.match(
            r"\W*(?:(?:the )?(?:correct )?(?:answer|option)\W*(?:is)?\W*)?([AB])\b", answer.strip(), re.IGNORECASE
        )
        return match[1].upper() if match else ""


def _find(relative: str) -> Path:
    return data.find_any(f"mdeval/data/raw_data/{relative}", f"mdeval/{relative}", source=SOURCE)
