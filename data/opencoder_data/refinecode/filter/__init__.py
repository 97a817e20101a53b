"""Heuristic filtering of RefineCode: 118 published signals and more, the rules of 14 groups, two profiles.

`default` is right where the released filter errs (docs/refinecode/filter_decisions.md); `compat` reproduces the
released filter, defects included. Entry points: `compute_signals`, `group_of`, `load_thresholds`, `decide`,
`describe_rules`, and `guard.Guard`, which runs `compute_signals` in a child process under a time limit.
"""

import time
from functools import cache

from .decide import decide
from .document_view import View, natural_language
from .registry import Signal, signals
from .thresholds import GROUPS, Rule, Thresholds, group_of, load_thresholds

__all__ = [
    "GROUPS",
    "Rule",
    "Signal",
    "Signals",
    "Thresholds",
    "compute_signals",
    "decide",
    "describe_rules",
    "group_of",
    "load_thresholds",
    "natural_language",
    "signals",
]


@cache
def _load() -> None:
    """Import the modules that register signals, once."""
    from . import (  # noqa: F401
        compat_languages,
        signals_code,
        signals_html,
        signals_languages,
        signals_natural_language,
        signals_unpublished,
    )


class Signals(dict):
    """Signal -> value (None: not defined for this document, or failed). `errors`: signal -> reason of a failure."""

    def __init__(self, *args: object):
        super().__init__(*args)
        self.errors: dict[str, str] = {}


@cache
def _plan(profile: str, doc_type: str, language: str) -> tuple[Signal, ...]:
    wanted = ("text",) if doc_type == "text" else ("code", language)
    return tuple(s for s in signals(profile).values() if s.family in wanted)


def compute_signals(
    content: str,
    *,
    language: str,
    doc_type: str,
    file_name: str = "",
    profile: str = "default",
    natural: str | None = None,
    size_bytes: int | None = None,
    skip: frozenset[str] = frozenset(),
    timings: dict[str, float] | None = None,
    on_signal=None,
) -> Signals:
    """All signals of one document.

    content: its text. language: canonical lower-case name ('cpp', 'csharp', 'python', ...). doc_type: 'code', 'data' or
    'text' (anything else has no signals). natural: ISO code of the natural language, guessed when None. size_bytes:
    size on disk, that of the UTF-8 text when None. skip: signals left out (null). timings: filled with seconds per
    signal; a view shared by several is billed to the first. on_signal: called with each signal's name before it
    runs; an exception it raises becomes that signal's failure.

    One failing signal is null with its reason in `errors`, and never silences the others.
    """
    out = Signals()
    if doc_type not in ("code", "data", "text"):
        return out
    view = View(content, language, doc_type, file_name, natural, size_bytes, profile)
    for entry in _plan(profile, doc_type, language):
        if entry.name in skip:
            out[entry.name] = None
            continue
        start = time.perf_counter() if timings is not None else 0.0
        try:
            if on_signal is not None:
                on_signal(entry.name)
            out[entry.name] = entry.compute(view)
        except Exception as error:  # the contract: null and the reason, whatever went wrong
            out[entry.name] = None
            out.errors[entry.name] = f"{type(error).__name__}: {error}"
        if timings is not None:
            timings[entry.name] = timings.get(entry.name, 0.0) + time.perf_counter() - start
    return out


def describe_rules(profile: str = "default", thresholds: Thresholds | None = None) -> list[dict]:
    """One entry per rule of each group, for the report: group, signal, about, condition (None: computed, not used),
    probability, published, reason (why the default profile has it or changes it)."""
    known = signals(profile)
    rows = []
    for group, rules in (thresholds or load_thresholds(profile)).items():
        for name, rule in rules.items():
            entry = known[name]
            rows.append(
                {
                    "group": group,
                    "signal": name,
                    "about": entry.about,
                    "condition": rule.condition if rule else None,
                    "probability": rule.probability if rule else None,
                    "published": entry.published,
                    "reason": rule.reason if rule else "",
                }
            )
    return rows
