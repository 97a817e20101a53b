"""How a program of each language is compiled and run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """file: name of the program's file in the work directory; commands run there in order, the last one is the program."""

    file: str
    run: tuple[str, ...]
    compile: tuple[tuple[str, ...], ...] = ()


LANGUAGES: dict[str, Language] = {"Python": Language("program.py", ("python3", "program.py"))}
