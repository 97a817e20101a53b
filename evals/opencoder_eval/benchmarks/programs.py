"""What McEval and MdEval share: a solution of any language, judged together with its published test."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from opencoder_eval.verdicts import PASS, WRONG, Verdict

if TYPE_CHECKING:
    from opencoder_eval.judging import Runner

CPU_SECONDS = 30.0
# Documents are compared with a reference; nothing is run.
DOCUMENTS = frozenset({"HTML", "JSON", "Markdown"})


def program(language: str, solution: str, test: str) -> str:
    """One program. Fortran's test is the main program, which contains the functions and so comes first."""
    return f"{test}\n{solution}\n" if language == "Fortran" else f"{solution}\n{test}\n"


def judge(
    language: str, solution: str, test: str, runner: Runner, *, files: Mapping[str, bytes] | None = None
) -> Verdict:
    """Runs solution and test; a Python test must reach its end."""
    if language == "Python":
        return runner.python(solution + "\n", test + "\n", cpu_seconds=CPU_SECONDS, files=files)
    return runner.language(language, program(language, solution, test), cpu_seconds=CPU_SECONDS, files=files)


def same_document(language: str, text: str, reference: str) -> Verdict:
    """Whether two documents say the same: JSON by value, HTML by its tags and words, Markdown by its lines."""
    import json

    if language == "JSON":
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            return Verdict("syntax", str(error))
        return Verdict(PASS if found == json.loads(reference) else WRONG)
    normal = _html if language == "HTML" else _markdown
    return Verdict(PASS if normal(text) == normal(reference) else WRONG)


def _html(text: str) -> list[str]:
    from html.parser import HTMLParser

    parts: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            parts.append(f"<{tag} {sorted((k, v or '') for k, v in attrs)}>")

        def handle_endtag(self, tag: str) -> None:
            parts.append(f"</{tag}>")

        def handle_data(self, data: str) -> None:
            parts.extend(data.split())

        def handle_decl(self, decl: str) -> None:
            parts.append(decl.lower())

    reader = Reader()
    reader.feed(text)
    reader.close()
    return parts


def _markdown(text: str) -> list[str]:
    return [re.sub(r"\s+", " ", line).strip() for line in text.strip().split("\n") if line.strip()]
