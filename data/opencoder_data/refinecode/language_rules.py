"""Rules that tell a file's language by its content: read, checked and tried."""

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import regex

_SECONDS = 0.5
_KEYS = frozenset({"pattern", "negative_pattern", "named_pattern", "and"})


class Condition(NamedTuple):
    """One of `patterns` matches somewhere in the text; none does when `negated`."""

    negated: bool
    patterns: tuple[str, ...]


class Rule(NamedTuple):
    """The text is in `language` when all conditions hold; without conditions it is a catch-all.

    `language` is None where the source names several: such a rule decides nothing.
    """

    language: str | None
    conditions: tuple[Condition, ...]


def parse_rule(raw: dict[str, Any], named: dict[str, str | list[str]]) -> Rule:
    """A rule of a table; every key of it becomes a condition.

    Args:
      raw: `language` (a name, or a list of names) with any of `pattern`, `negative_pattern`, `named_pattern` and `and`,
        a list of blocks with these keys. What stands side by side must hold together.
      named: patterns that `named_pattern` refers to.

    Raises:
      ValueError: a key that is not a condition, a name that `named` lacks, an empty pattern, no language.
    """
    rest = {key: value for key, value in raw.items() if key != "language"}
    languages = raw.get("language")
    names = [languages] if isinstance(languages, str) else list(languages or [])
    if not names or not all(isinstance(n, str) and n for n in names):
        raise ValueError(f"a language rule names no language: {raw}")
    return Rule(names[0] if len(names) == 1 else None, tuple(_conditions(rest, named)))


def _conditions(block: dict[str, Any], named: dict[str, str | list[str]]) -> Iterator[Condition]:
    unknown = sorted(set(block) - _KEYS)
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r} in a language rule: {block}")
    for key, value in block.items():
        if key == "and":
            if not isinstance(value, list) or not value:
                raise ValueError(f"'and' of a language rule is an empty list or none: {block}")
            for part in value:
                yield from _conditions(part, named)
            continue
        if key == "named_pattern":
            if value not in named:
                raise ValueError(f"a language rule refers to {value!r}, which names no pattern")
            value = named[value]
        patterns = (value,) if isinstance(value, str) else tuple(value)
        if not patterns or not all(isinstance(p, str) and p for p in patterns):
            raise ValueError(f"{key} of a language rule is empty: {block}")
        yield Condition(key == "negative_pattern", patterns)


def decide(rules: list[Rule], text: str) -> str | None:
    """Language of the first rule whose conditions all hold; catch-alls are passed over."""
    for rule in rules:
        if rule.language is not None and rule.conditions and all(_holds(c, text) for c in rule.conditions):
            return rule.language
    return None


def catch_all(rules: list[Rule]) -> str | None:
    """Language of the rule without conditions, if there is one and it names one language."""
    return next((rule.language for rule in rules if not rule.conditions), None)


def _holds(condition: Condition, text: str) -> bool:
    try:
        return (compiled(condition.patterns).search(text, timeout=_SECONDS) is None) == condition.negated
    except TimeoutError:
        # A pattern that does not end on this file says nothing about it.
        return False


@cache
def compiled(patterns: tuple[str, ...]) -> regex.Pattern[str]:
    """One expression for several; flags in a pattern end with it (version 1)."""
    return regex.compile("|".join(f"(?:{p})" for p in patterns), regex.MULTILINE | regex.VERSION1)
