"""The rule table: group -> signal -> condition under which a file is dropped, as data that a user can override.

A condition is text: comparisons of `x` (the signal's value) with numbers, joined by `or` (or by `and`), optionally
followed by `with probability P` (0 < P <= 1). `published_thresholds.json` holds the released filter's 511 entries of 14
groups; `default_thresholds.json` holds what the default profile changes and adds, each with its reason.
"""

import json
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, lru_cache
from pathlib import Path

_OPS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne}
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_TERM = re.compile(rf"\s*x\s*(<=|>=|==|!=|<|>)\s*({_NUMBER})\s*")
_PROBABILITY = re.compile(rf"^(.*?)\s+with\s+probability\s+({_NUMBER})\s*$")

Thresholds = Mapping[str, Mapping[str, "Rule | None"]]


@dataclass(frozen=True)
class Rule:
    """Drop a file of `group` when `signal` meets `condition`; with `probability` below 1 only that share of them."""

    group: str
    signal: str
    condition: str
    terms: tuple[tuple[str, float], ...]
    every: bool
    probability: float = 1.0
    reason: str = ""

    def hit(self, value: float) -> bool:
        """Whether `value` meets the condition (before the draw)."""
        for op, bound in self.terms:
            if _OPS[op](value, bound) is not self.every:
                return not self.every
        return self.every


def parse_rule(group: str, name: str, text: str, reason: str = "") -> Rule:
    """Rule from its text. Raises ValueError naming the group, the signal and the text when it does not parse."""
    where = f"filter threshold {group}/{name}: {text!r}"
    if not isinstance(text, str):
        raise ValueError(f"{where} is not text; write for instance 'x > 0.5' or null to switch the rule off")
    body, probability = text, 1.0
    match = _PROBABILITY.match(text)
    if match:
        body, probability = match.group(1), float(match.group(2))
        if not 0 < probability <= 1:
            raise ValueError(f"{where}: the probability must be in (0, 1]")
    parts = re.split(r"\b(or|and)\b", body)
    joins = set(parts[1::2])
    if len(joins) > 1:
        raise ValueError(f"{where} mixes 'or' and 'and'; use one of them")
    terms = []
    for part in parts[::2]:
        term = _TERM.fullmatch(part)
        if term is None:
            raise ValueError(f"{where} does not parse; write comparisons such as 'x < 2 or x > 10'")
        terms.append((term.group(1), float(term.group(2))))
    return Rule(group, name, text, tuple(terms), joins == {"and"}, probability, reason)


@cache
def _table(name: str) -> dict:
    return json.loads(Path(__file__).with_name(name).read_text())


GROUPS = (
    "text/zh", "text/en", "code/others", "code/data", "code/shell", "code/sql", "code/python", "code/cpp", "code/c",
    "code/csharp", "code/go", "code/html", "code/java", "code/javascript",
)  # fmt: skip


@lru_cache(4096)
def group_of(language: str, doc_type: str, natural: str = "en") -> str | None:
    """Rule group of a document; None for a type the recipe leaves out ('unknown', 'excluded')."""
    if doc_type == "text":
        return "text/zh" if natural == "zh" else "text/en"
    if doc_type not in ("code", "data"):
        return None
    if f"code/{language}" in GROUPS and language not in ("others", "data"):
        return f"code/{language}"
    return "code/data" if doc_type == "data" else "code/others"


def load_thresholds(
    profile: str = "default", overrides: Mapping[str, Mapping[str, str | None]] | None = None
) -> Thresholds:
    """Rules of a profile, changed by `overrides` (group or '*' -> signal -> condition, or None to switch it off).

    Raises ValueError for an unknown group or signal (with the nearest name) and for a condition that does not parse.
    """
    from .registry import signals

    known = signals(profile)
    rules: dict[str, dict[str, Rule | None]] = {g: {} for g in GROUPS}

    def put(group: str, name: str, text, reason: str = ""):
        if group not in rules:
            raise ValueError(f"filter thresholds: unknown group {group!r}{_near(group, rules)}")
        if name not in known:
            raise ValueError(f"filter threshold {group}/{name}: no such signal{_near(name, known)}")
        rules[group][name] = None if text is None else parse_rule(group, name, text, reason)

    for group, entries in _table("published_thresholds.json").items():
        for name, text in entries.items():
            put(group, name, text)
    if profile == "default":
        for change in _table("default_thresholds.json"):
            groups = change["groups"]
            if groups == "code":
                groups = [g for g in GROUPS if g.startswith("code/")]
            elif groups == "all":
                groups = GROUPS
            for group in groups:
                if group not in change.get("except", ()):
                    put(group, change["signal"], change["drop_if"], change["reason"])
    for group, entries in (overrides or {}).items():
        if not isinstance(entries, Mapping):
            raise ValueError(f"filter thresholds of group {group!r}: expected a table signal -> condition")
        for target in GROUPS if group == "*" else (group,):
            for name, text in entries.items():
                put(target, name, text, "set by the configuration")
    return rules


def _near(name: str, names) -> str:
    close = get_close_matches(name, list(names), 1)
    return f"; did you mean {close[0]!r}?" if close else ""
