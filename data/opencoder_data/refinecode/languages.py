"""Stage 2's tables: which language a file is in, and whether it is code, data or text.

The name tables are those released with OpenCoder's filter (`tables/linguist_names.json`); content decides where GitHub
Linguist says that the name does not (`tables/linguist_content.json`, made by `scripts/tools/language_table.py`), then by our
reading of its ambiguous extensions (`tables/ambiguous_extensions.toml`).

How the published 607 = 470 code + 115 data + 22 text comes about: the release reaches 644 languages (480 + 142 + 22) and
excludes 34 of them by name, 35 once the case of `Gerber Image` is repaired, which leaves 609 = 469 + 118 + 22. Jupyter
notebooks, excluded as files, are in RefineCode as structured cells: 470 code. Which three data types the paper drops
besides is not published; here it is the three disassembly listings (c-, cpp- and d-objdump), made by a machine from
compiled code.
"""

import json
import tomllib
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from opencoder_data.refinecode import language_statements
from opencoder_data.refinecode.language_rules import Rule, catch_all, decide, parse_rule

NOTEBOOK = "jupyter notebook"
_DISASSEMBLY = ("c-objdump", "cpp-objdump", "d-objdump")
# Linguist looks no further either.
_HEAD = 50_000

# The release's map gives these extensions to the owner of a longer one (`gradle.kts`, `emacs.desktop`, `yaml.sed`).
_OWNERS = {"kts": "kotlin", "desktop": "desktop", "sed": "sed"}


class Language(NamedTuple):
    """`name` is None when unknown; `rule` is set when pre-processing drops the file."""

    name: str | None
    doc_type: str | None = None
    rule: str = ""


class _Tables:
    """The tables, read once. Raises ValueError when one of them says what the program cannot follow."""

    def __init__(self) -> None:
        directory = resources.files("opencoder_data.refinecode") / "tables"
        names = json.loads((directory / "linguist_names.json").read_text())
        content = json.loads((directory / "linguist_content.json").read_text())
        own = tomllib.loads((directory / "ambiguous_extensions.toml").read_text())
        self.types: dict[str, str] = {name: entry["type"] for name, entry in names["languages"].items()}
        self.by_content_only: dict[str, str] = content["by_content_only"]
        self.released = {e: name for name, entry in names["languages"].items() for e in entry["extensions"]}
        self.extensions = content["extensions"] | self.released | _OWNERS
        released = {f: name for name, entry in names["languages"].items() for f in entry["filenames"]}
        self.released_filenames = released
        self.filenames = content["filenames"] | released
        self.excluded = {*names["excluded"], *_DISASSEMBLY}
        self.table = {n: t for n, t in self.types.items() if n not in self.excluded or n == NOTEBOOK}
        self.last_suffix_only = set(content["last_suffix_only"])
        self.compound: dict[str, str] = content["compound"]
        self.interpreters: dict[str, str] = content["interpreters"]
        self.mode_names: dict[str, str] = content["mode_names"]
        self.candidates: dict[str, list[str]] = content["candidates"]
        self.rules: dict[str, list[Rule]] = {}
        self.usual: dict[str, str | None] = {}
        self._read_rules(content, own)

    def _read_rules(self, content: dict[str, Any], own: dict[str, Any]) -> None:
        """`rules`: what decides, in order; `usual`: what an ambiguous extension means when nothing decides."""
        for entry in content["disambiguations"]:
            rules = [parse_rule(raw, content["named_patterns"]) for raw in entry["rules"]]
            for extension in entry["extensions"]:
                name = extension.lstrip(".").lower()
                self.rules[name] = rules
                self.usual[name] = catch_all(rules) or (None if name in self.candidates else self.extensions.get(name))
        for name, section in own.items():
            unknown = sorted(set(section) - {"usual", "first", "rules"})
            if unknown:
                raise ValueError(f"unknown key {unknown[0]!r} of extension {name!r} in ambiguous_extensions.toml")
            first, after = (
                [parse_rule(raw, content["named_patterns"]) for raw in section.get(key, [])]
                for key in ("first", "rules")
            )
            self.rules[name] = first + [r for r in self.rules.get(name, []) if r.conditions] + after
            self.usual[name] = section.get("usual")
        known = {*self.types, *self.by_content_only}
        for name, rules in self.rules.items():
            for language in (*(r.language for r in rules), self.usual[name]):
                if language is not None and language not in known:
                    raise ValueError(f"a rule for .{name} names {language!r}, which is in no table")


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
    filenames = t.filenames if heuristics else t.released_filenames
    if name in filenames:
        return filenames[name], ""
    pieces = name.split(".")
    if len(pieces) < 2 or not pieces[-1]:
        return None, ""
    last = pieces[-1]
    if not heuristics:
        return t.released.get(last), ""
    for start in range(1, len(pieces) - 1):
        compound = ".".join(pieces[start:]).lower()
        if compound in t.compound:
            return t.compound[compound], ""
    lower = last.lower()
    if lower in t.rules and last not in ("C", "H"):
        return t.usual[lower], lower
    if last in t.last_suffix_only:
        return None, ""
    return t.extensions.get(last) or t.extensions.get(lower), ""


def name_verdict(name: str, notebooks: bool = True) -> str:
    """Rule that drops a file whatever its content, or "" when it must be read. `name` has no directories."""
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
    path: str,
    content: str,
    *,
    heuristics: bool = True,
    notebooks: bool = True,
    hint: str | None = None,
    statements: bool = True,
) -> Language:
    """Language of a file.

    Args:
      path: path in its repository; only the last component counts.
      content: the text. Where the name leaves several languages, a mode line or interpreter that names one of them
        decides, else the rules on its first 50,000 characters; where the name says nothing, mode line and interpreter.
      heuristics: off = the release's maps alone.
      hint: language named by the source, used when name and content say nothing.
      statements: off = mode lines and interpreters are not looked at.
    """
    name = path.rsplit("/", 1)[-1]
    language, ambiguous = candidate(name, heuristics)
    if heuristics and (ambiguous or language is None):
        said = stated(content) if statements else None
        if not ambiguous or (said is not None and said in tables().candidates.get(ambiguous, ())):
            language = said
        else:
            language = decide(tables().rules[ambiguous], content[:_HEAD]) or language
    if language is None and hint:
        hint = {"c++": "cpp", "c#": "csharp"}.get(hint.lower(), hint.lower())
        language = hint if hint in tables().types or hint in tables().by_content_only else None
    return _verdict(language, notebooks)


def stated(content: str) -> str | None:
    """Language that a mode line, else the interpreter in the first line names; None when neither does."""
    t = tables()
    said = language_statements.by_mode_line(content, t.mode_names)
    if said is None and content.startswith("#!"):
        said = language_statements.by_shebang(content[:_HEAD], t.interpreters)
    return said
