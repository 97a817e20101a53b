"""What a report shows: tables of plain text cells, made from the summaries of a results directory."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opencoder_eval.report.published import TABLES, Published
from opencoder_eval.verdicts import FAILURES, NOT_RUN, PASS


@dataclass(frozen=True)
class Table:
    """ours: indices of the rows that were measured here. notes: lines below the table."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    ours: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()


def read_summaries(out: Path) -> list[dict[str, Any]]:
    """All `summary.json` below `out`, by benchmark. Raises: ValueError when there is none, or a broken one."""
    found = []
    for path in sorted(out.glob("*/summary.json")):
        try:
            found.append({**json.loads(path.read_text()), "directory": path.parent})
        except ValueError as error:
            raise ValueError(f"{path}: {error}; delete it and score again") from error
    if not found and not list(out.glob("*/likelihood.json")):
        raise ValueError(f"{out}: no results there; run `opencoder eval score` or `run` first")
    return found


def all_tables(summaries: Sequence[dict[str, Any]], likelihoods: Sequence[dict[str, Any]]) -> list[Table]:
    """In the order of the report; tables of the paper only where one of their columns was measured."""
    tables = [t for published in TABLES if (t := published_table(published, summaries)) is not None]
    if summaries:
        tables += [scores_table(summaries), kinds_table(summaries)]
    tables += [language_table(s) for s in summaries if len(s["by_language"]) > 1]
    return tables + ([likelihood_table(likelihoods)] if likelihoods else [])


def published_table(published: Published, summaries: Sequence[dict[str, Any]]) -> Table | None:
    """The published rows, and one for each model that was asked in the table's mode."""
    models = sorted({model_of(s) for s in summaries if mode_of(s) == published.mode})
    rows = [(name, *(_number(v) for v in values)) for name, values in published.rows]
    ours: set[int] = set()
    notes: list[str] = []
    for model in models:
        values: list[float | None] = []
        for heading, benchmark, language in published.columns:
            mine = [
                s
                for s in summaries
                if s["benchmark"] == benchmark and model_of(s) == model and mode_of(s) == published.mode
            ]
            value = _score(mine[0], language) if mine else None
            values.append(_mean(values) if heading == "average" else value)
            if mine and value is not None and (note := caveat(mine[0])) and note not in notes:
                notes.append(note)
        if any(v is not None for v in values):
            ours.add(len(rows))
            rows.append((f"{model} (measured here)", *(_number(v) for v in values)))
    if not ours:
        return None
    return Table(
        published.title, ("model", *(c[0] for c in published.columns)), tuple(rows), frozenset(ours), tuple(notes)
    )


def scores_table(summaries: Sequence[dict[str, Any]]) -> Table:
    """One row per benchmark: scores, how much was run, the canonical pass rate, timeouts."""
    ks = sorted({k for s in summaries for k in s["pass_at"]}, key=int)
    head = (
        "benchmark",
        "model",
        "mode",
        *(f"pass@{k}" for k in ks),
        "tasks run",
        "canonical",
        "timeouts (retried)",
        "isolated",
    )
    rows = []
    for s in summaries:
        canonical = f"{s['canonical'][0]}/{s['canonical'][1]}" if s["canonical"] else "none"
        scores = [_number(100 * s["pass_at"][k]) if k in s["pass_at"] else "" for k in ks]
        timeouts = f"{s['timeouts'][1]} ({s['timeouts'][0]})"
        run = f"{s['run']}/{s['tasks']}"
        rows.append(
            (
                s["benchmark"],
                model_of(s),
                mode_of(s),
                *scores,
                run,
                canonical,
                timeouts,
                "yes" if s["isolated"] else "NO",
            )
        )
    notes = tuple(note for s in summaries if (note := caveat(s)))
    return Table("Scores", head, tuple(rows), notes=notes)


def kinds_table(summaries: Sequence[dict[str, Any]]) -> Table:
    """Samples by kind of verdict."""
    kinds = [k for k in (PASS, *FAILURES, NOT_RUN) if any(s["kinds"].get(k) for s in summaries)]
    rows = tuple((s["benchmark"], *(str(s["kinds"].get(k, 0)) for k in kinds)) for s in summaries)
    return Table("Samples by verdict", ("benchmark", *kinds), rows)


def language_table(summary: dict[str, Any]) -> Table:
    """One row per language, and their mean."""
    ks = sorted(summary["pass_at"], key=int)
    rows = []
    for language, s in summary["by_language"].items():
        scores = [_number(100 * s["pass_at"][k]) if k in s["pass_at"] else "not run" for k in ks]
        rows.append((language, *scores, f"{s['run']}/{s['tasks']}", summary["versions"].get(language, "")))
    run = [s for s in summary["by_language"].values() if s["run"]]
    means = [_number(100 * math.fsum(s["pass_at"][k] for s in run) / len(run)) if run else "" for k in ks]
    rows.append(("mean of languages", *means, f"{summary['run']}/{summary['tasks']}", ""))
    head = ("language", *(f"pass@{k}" for k in ks), "tasks run", "toolchain")
    return Table(f"{summary['title']}, {model_of(summary)}: by language", head, tuple(rows))


def likelihood_table(likelihoods: Sequence[dict[str, Any]]) -> Table:
    """Bits per byte of the canonical solutions given the prompts."""
    rows = tuple(
        (
            r["benchmark"],
            str(r["model"]),
            f"{r['bits_per_byte']:.4f}",
            f"{r['tasks']}",
            f"{r['bytes']:,}",
            f"{r['rejected']}",
        )
        for r in likelihoods
    )
    return Table(
        "Bits per byte of the canonical solutions given their prompts",
        ("benchmark", "model", "bits per byte", "tasks", "bytes", "rejected"),
        rows,
    )


def model_of(summary: dict[str, Any]) -> str:
    """The model's name; "samples" for files of other tools."""
    return str((summary.get("settings") or {}).get("model") or "samples")


def mode_of(summary: dict[str, Any]) -> str:
    """`completion` or `chat`; `completion` for files of other tools."""
    return str((summary.get("settings") or {}).get("mode") or "completion")


def caveat(summary: dict[str, Any]) -> str:
    """Why a score is not the published quantity; "" where it is."""
    parts = list(summary.get("notes") or [])
    if limit := (summary.get("settings") or {}).get("limit"):
        parts.append(f"only the first {limit} tasks")
    if summary["run"] < summary["tasks"]:
        parts.append(f"{summary['tasks'] - summary['run']} of {summary['tasks']} tasks were not run: no toolchain")
    if summary["canonical"] and summary["canonical"][0] < summary["canonical"][1]:
        failed = summary["canonical"][1] - summary["canonical"][0]
        parts.append(f"{failed} canonical solutions fail on this machine")
    if not summary["isolated"]:
        parts.append("programs were run without isolation")
    return f"{summary['benchmark']}: {'; '.join(parts)}" if parts else ""


def _score(summary: dict[str, Any], language: str) -> float | None:
    values = summary["by_language"].get(language, {}).get("pass_at", {}) if language else summary["pass_at"]
    return 100 * values["1"] if "1" in values else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
