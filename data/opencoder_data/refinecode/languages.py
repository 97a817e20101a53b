"""Stage 2's tables: which language a file is in, and whether it is code, data or text.

The name tables are those released with OpenCoder's filter (`tables/linguist_names.json`); content decides where GitHub
Linguist says that the name does not (`tables/linguist_content.json`).

How the published 607 = 470 code + 115 data + 22 text comes about: the release reaches 644 languages (480 + 142 + 22) and
excludes 34 of them by name, 35 once the case of `Gerber Image` is repaired, which leaves 609 = 469 + 118 + 22. Jupyter
notebooks, excluded as files, are in RefineCode as structured cells: 470 code. Which three data types the paper drops
besides is not published; here it is the three disassembly listings (c-, cpp- and d-objdump), made by a machine from
compiled code.
"""

import json
from functools import cache
from importlib import resources
from typing import NamedTuple

import regex

NOTEBOOK = "jupyter notebook"
_DISASSEMBLY = ("c-objdump", "cpp-objdump", "d-objdump")
# Linguist looks no further either.
_HEAD = 50_000
_SECONDS = 0.5

# Extensions that Linguist leaves to a statistical classifier when no rule matches: the language that most files with
# the extension are in, by our reading; all others keep the release's choice.
_USUAL = {
    "m": "matlab", "v": "verilog", "t": "perl", "s": "assembly", "inc": "php", "pp": "puppet", "for": "fortran",
    "f": "fortran", "fs": "f#", "gd": "gdscript", "sol": "solidity", "cls": "tex", "x": "rpc", "es": "javascript",
    "bb": "bitbake", "bs": "brighterscript", "re": "reason", "msg": "omnet++ msg", "properties": "java properties",
    "g": "gap", "gs": "javascript", "pro": "qmake", "l": "lex", "q": "q", "tsp": "typespec", "spec": "rpm spec",
    "cfg": "ini", "fcgi": "perl", "sch": "scheme", "frag": "glsl", "shader": "shaderlab", "b": "limbo",
}  # fmt: skip


class Language(NamedTuple):
    """`name` is None when unknown; `rule` is set when pre-processing drops the file."""

    name: str | None
    doc_type: str | None = None
    rule: str = ""


class _Tables:
    def __init__(self) -> None:
        folder = resources.files("opencoder_data.refinecode") / "tables"
        names = json.loads((folder / "linguist_names.json").read_text())
        content = json.loads((folder / "linguist_content.json").read_text())
        self.types: dict[str, str] = {name: entry["type"] for name, entry in names["languages"].items()}
        self.extensions = {e: name for name, entry in names["languages"].items() for e in entry["extensions"]}
        self.filenames = {f: name for name, entry in names["languages"].items() for f in entry["filenames"]}
        self.excluded = {*names["excluded"], *_DISASSEMBLY}
        self.table = {n: t for n, t in self.types.items() if n not in self.excluded or n == NOTEBOOK}
        self.by_content_only: dict[str, str] = content["by_content_only"]
        self.last_suffix_only = set(content["last_suffix_only"])
        self.compound: dict[str, str] = content["compound"]
        self.interpreters: dict[str, str] = content["interpreters"]
        self._named = content["named_patterns"]
        self.rules = {e.lstrip("."): d["rules"] for d in content["disambiguations"] for e in d["extensions"]}

    @cache  # noqa: B019  (one instance for the life of the process)
    def compiled(self, extension: str) -> list[tuple[str, list[tuple[bool, regex.Pattern[str]]]]]:
        """(language, [(negated, pattern)]) in order; all patterns of an entry must hold."""
        return [(rule["language"][0], self._conditions(rule)) for rule in self.rules[extension]]

    def _conditions(self, rule: dict) -> list[tuple[bool, regex.Pattern[str]]]:
        conditions: list[tuple[bool, regex.Pattern[str]]] = []
        for part in rule.get("and", [rule]):
            pattern, negated = part.get("pattern"), False
            if "negative_pattern" in part:
                pattern, negated = part["negative_pattern"], True
            if "named_pattern" in part:
                pattern = self._named[part["named_pattern"]]
            if pattern is not None:
                texts = pattern if isinstance(pattern, list) else [pattern]
                joined = "|".join(f"(?:{t})" if "(?i)" not in t[:4] else f"(?i:{t[4:]})" for t in texts)
                conditions.append((negated, regex.compile(joined, regex.MULTILINE)))
        return conditions


@cache
def tables() -> _Tables:
    return _Tables()


def language_types() -> dict[str, str]:
    """The 607 languages of the table and their document types."""
    return dict(tables().table)


def candidate(name: str, heuristics: bool = True) -> tuple[str | None, str]:
    """(language by the name alone or None, the extension that decides among several or "").

    Order as in the release: exact file name, then extension; longest compound extension first.
    """
    t = tables()
    if name in t.filenames:
        return t.filenames[name], ""
    pieces = name.split(".")
    if len(pieces) < 2 or not pieces[-1]:
        return None, ""
    last = pieces[-1]
    if not heuristics:
        return t.extensions.get(last), ""
    for start in range(1, len(pieces) - 1):
        compound = ".".join(pieces[start:]).lower()
        if compound in t.compound:
            return t.compound[compound], ""
    found = t.extensions.get(last) or t.extensions.get(last.lower())
    if last in t.last_suffix_only:
        found = None
    lower = last.lower()
    if last not in ("C", "H") and lower in t.rules:
        return _USUAL.get(lower, found), lower
    return _USUAL.get(lower, found), ""


def name_verdict(name: str, notebooks: bool = True) -> str:
    """Rule that drops a file whatever its content, or "" when it must be read. `name` has no folders."""
    language, extension = candidate(name)
    if extension or (language is None and "." not in name.strip(".")):
        return ""
    return _verdict(language, notebooks).rule


def _verdict(name: str | None, notebooks: bool, by_content: bool = True) -> Language:
    t = tables()
    if name is None:
        return Language(None, None, "unknown_language")
    if name == NOTEBOOK:
        return Language(name, "code", "" if notebooks else "excluded_language")
    if name in t.excluded:
        return Language(name, t.types.get(name), "excluded_language")
    if name in t.types:
        return Language(name, t.types[name])
    if by_content and name in t.by_content_only:
        return Language(name, t.by_content_only[name])
    return Language(name, None, "unknown_language")


def detect(
    path: str, content: str, *, heuristics: bool = True, notebooks: bool = True, hint: str | None = None
) -> Language:
    """Language of a file.

    Args:
      path: path in its repository; only the last component counts.
      content: the text; its first 50,000 characters decide ambiguous extensions, its first line names interpreters.
      heuristics: off = the release's maps alone.
      hint: language named by the source, used when name and content say nothing.
    """
    name = path.rsplit("/", 1)[-1]
    language, ambiguous = candidate(name, heuristics)
    if heuristics:
        head = content[:_HEAD]
        if ambiguous:
            language = _by_content(ambiguous, head) or language
        elif language is None and head.startswith("#!"):
            language = by_shebang(head)
    if language is None and hint:
        hint = {"c++": "cpp", "c#": "csharp"}.get(hint.lower(), hint.lower())
        language = hint if hint in tables().types or hint in tables().by_content_only else None
    return _verdict(language, notebooks)


def _by_content(extension: str, head: str) -> str | None:
    for language, conditions in tables().compiled(extension):
        try:
            if all((pattern.search(head, timeout=_SECONDS) is None) == negated for negated, pattern in conditions):
                return language
        except TimeoutError:
            # A pattern that does not end on this file says nothing about it.
            continue
    return None


def by_shebang(head: str) -> str | None:
    """Language of the interpreter in the first line: ``#!/usr/bin/env -S python3.11 -u`` gives python."""
    words = head.split("\n", 1)[0][2:].split()
    if not words:
        return None
    program = words[0].rsplit("/", 1)[-1]
    if program == "env":
        rest = [w for w in words[1:] if not w.startswith("-") and "=" not in w]
        program = rest[0].rsplit("/", 1)[-1] if rest else ""
    interpreters = tables().interpreters
    return interpreters.get(program) or interpreters.get(program.rstrip("0123456789.-"))
