"""McEval (Chai et al. 2024), generation: 2,007 tasks in 40 languages.

Languages with a test are run. HTML, JSON and Markdown are compared with reference files. AWK answers are commands: their
output must be that of the canonical command, on the same files; `/etc/passwd` and `/etc/services` are made-up ones, so that
a score does not depend on the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from opencoder_eval.benchmarks import data
from opencoder_eval.benchmarks.base import Mode, Question, Task, TasksByLanguage, chat
from opencoder_eval.benchmarks.programs import CPU_SECONDS, DOCUMENTS, judge, same_document
from opencoder_eval.extraction import python_function
from opencoder_eval.placement import chosen_block, place
from opencoder_eval.verdicts import NOT_RUN, PASS, WRONG, Verdict

if TYPE_CHECKING:
    from opencoder_eval.judging import Runner

SOURCE = "github.com/MCEVAL/McEval (data/)"
LANGUAGES = (
    *(
        "AWK",
        "C",
        "C#",
        "CPP",
        "CoffeeScript",
        "Common Lisp",
        "Dart",
        "Elixir",
        "Emacs Lisp",
        "Erlang",
        "F#",
        "Fortran",
    ),
    *("Go", "Groovy", "HTML", "Haskell", "JSON", "Java", "JavaScript", "Julia", "Kotlin", "Lua", "Markdown", "PHP"),
    *("Pascal", "Perl", "PowerShell", "Python", "R", "Racket", "Ruby", "Rust", "Scala", "Scheme", "Shell", "Swift"),
    *("Tcl", "TypeScript", "VimScript", "Visual Basic"),
)
_SUFFIXES = {"HTML": "html", "JSON": "json", "Markdown": "md"}
_AWK_FILES = ("9_1.txt", "9_2.txt", "contribution.txt", "url.txt")
# For AWK: lines of every kind that its tasks ask for.
_PASSWD = "".join(
    f"{name}:x:{n}:{n}:{about}:{home}:{shell}\n"
    for name, n, about, home, shell in (
        ("root", 0, "root", "/root", "/bin/bash"),
        ("daemon", 1, "daemon", "/usr/sbin", "/usr/sbin/nologin"),
        ("bin", 2, "bin", "/bin", "/usr/sbin/nologin"),
        ("sync", 4, "sync", "/bin", "/bin/sync"),
        ("mail", 8, "mail", "/var/mail", "/usr/sbin/nologin"),
        ("www-data", 33, "www-data", "/var/www", "/usr/sbin/nologin"),
        ("gnats", 41, "Gnats Bug-Reporting System (admin)", "/var/lib/gnats", "/usr/sbin/nologin"),
        ("nobody", 65534, "nobody", "/nonexistent", "/usr/sbin/nologin"),
        ("ann", 1000, "Ann,,,", "/home/ann", "/bin/bash"),
        ("robert", 6001, "Robert (guest)", "/home/robert", "/bin/zsh"),
    )
)
_SERVICES = "".join(f"service{n}\t\t{n}/tcp\n" + ("\n" if n % 7 == 0 else "") for n in range(1, 60))


class McEval(TasksByLanguage):
    """languages: of the 40, by the sandbox's names."""

    modes: tuple[Mode, ...] = ("chat",)
    has_canonical = True
    default_extraction = "parser"

    def __init__(self, name: str, title: str, languages: Sequence[str] = LANGUAGES):
        self.name, self.title = name, title
        super().__init__(languages)

    def _load(self, language: str) -> list[Task]:
        path = _find(f"{language}.jsonl")
        tasks = []
        for row in data.rows(path):
            data.require(row, ("task_id", "prompt", "instruction"), path)
            number = str(row["task_id"]).split("/")[-1]
            if language in DOCUMENTS:
                reference = data.read_text(_find(f"{language}/{number}.{_SUFFIXES[language]}"))
                canonical = completion = reference
            elif language == "AWK":
                canonical = completion = row["canonical_solution"]
            else:
                completion = row["canonical_solution"]
                canonical = f"{row['prompt']}\n{completion}"
            tasks.append(
                Task(
                    id=f"{language}/{number}",
                    language=language,
                    prompt=row["prompt"],
                    instruction=row["instruction"],
                    canonical=canonical,
                    completion=completion,
                    entry_point=row.get("entry_point", ""),
                    record=row,
                )
            )
        return tasks

    def question(self, task: Task, mode: Mode) -> Question:
        return Question(messages=chat(task.instruction))

    def solution(self, task: Task, answer: str, mode: Mode, extraction: str) -> str | None:
        """The answer's functions in the place that the test expects."""
        if extraction == "raw":
            return answer
        if task.language == "Python":
            return python_function(answer, task.entry_point, extraction)
        code = chosen_block(answer, (task.entry_point,))
        if code is None or task.language in DOCUMENTS or task.language == "AWK":
            return code
        return place(code, task.language, task.prompt, task.record["test"], (task.entry_point,))

    def judge(self, task: Task, solution: str, runner: Runner) -> Verdict:
        if task.language in DOCUMENTS:
            return same_document(task.language, solution, task.canonical or "")
        if task.language == "AWK":
            return _judge_awk(task, solution, runner)
        test = task.record["test"].replace("../data/Common Lisp/file.txt", "file.txt")
        return judge(task.language, solution, test, runner, files=_files(task))


def _judge_awk(task: Task, solution: str, runner: Runner) -> Verdict:
    files = {f"data/AWK/{name}": _find(f"AWK/{name}").read_bytes() for name in _AWK_FILES}
    files |= {"passwd": _PASSWD.encode(), "services": _SERVICES.encode()}
    outputs = []
    for command in (str(task.canonical), solution):
        local = command.replace("/etc/passwd", "passwd").replace("/etc/services", "services")
        run = runner.sandbox.run_language("AWK", local + "\n", files=files, limits=runner.limits(CPU_SECONDS))
        if run.outcome == "not_run":
            return Verdict(NOT_RUN, run.detail)
        outputs.append((run.outcome, run.stdout))
    detail = outputs[1][1][-500:].decode("utf-8", "replace")
    return Verdict(PASS) if outputs[0] == outputs[1] else Verdict(WRONG, detail)


def _files(task: Task) -> dict[str, bytes]:
    """Common Lisp/14 reads a file."""
    return {"file.txt": _find("Common Lisp/file.txt").read_bytes()} if task.id == "Common Lisp/14" else {}


def _find(relative: str) -> Path:
    return data.find_any(f"mceval/data/{relative}", f"mceval/{relative}", source=SOURCE)
