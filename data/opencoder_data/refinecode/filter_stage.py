"""Stage 6: signals and decision of each document, every value kept in a table `signals`.

The signals themselves and their rules are in the package `filter`; here they meet the engine: a time limit in a child
process, thresholds from the configuration, ledger rows that name every rule that fired.
"""

import atexit
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from opencoder_data.pipeline.run import Run, Steps, map_documents
from opencoder_data.pipeline.stage import Outcome
from opencoder_data.refinecode.config import FilterConfig
from opencoder_data.refinecode.filter import (
    Thresholds,
    compute_signals,
    group_of,
    load_thresholds,
    natural_language,
    signals,
)
from opencoder_data.refinecode.filter import decide as decide_rules
from opencoder_data.refinecode.filter.guard import Guard

_GUARDS: dict[float, Guard] = {}


@dataclass(frozen=True)
class Filter:
    """The only step is ``docs``; it writes the table ``signals`` as well."""

    config: FilterConfig = field(default_factory=FilterConfig)
    name: ClassVar[str] = "filter"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = (
        "google-re2", "numba", "regex", "tree-sitter", "tree-sitter-language-pack", "xxhash",
    )  # fmt: skip

    def validate(self) -> None:
        """Raises ValueError for an unknown profile, group or signal, or a condition that does not parse."""
        thresholds_of(self.config)

    def run(self, steps: Steps) -> None:
        steps.each(self.write_docs)

    def write_docs(self, run: Run, part: int) -> dict[str, Any]:
        thresholds, schema = thresholds_of(self.config), signal_schema(self.config.profile)
        return map_documents(
            run, self.name, part, lambda batch: decide(batch, self.config, thresholds, schema), {"signals": schema}
        )


def thresholds_of(config: FilterConfig) -> Thresholds:
    """Rules of the profile with the configuration's changes; the condition ``off`` switches a rule off.

    Raises ValueError for an unknown group or signal, or a condition that does not parse.
    """
    changes = {}
    for group, entries in config.thresholds.items():
        if not hasattr(entries, "items"):
            raise ValueError(f"filter.thresholds.{group} takes a table of signals and conditions, not {entries!r}")
        changes[group] = {name: None if str(text) == "off" else str(text) for name, text in entries.items()}
    return load_thresholds(config.profile, changes)


def signal_schema(profile: str) -> pa.Schema:
    """One row a document, kept or dropped: identity, verdict, rules that fired, and one column per signal."""
    return pa.schema(
        [
            ("doc_id", pa.string()),
            ("language", pa.string()),
            ("doc_type", pa.string()),
            ("group", pa.string()),
            ("keep", pa.bool_()),
            ("rules", pa.list_(pa.string())),
            ("errors", pa.list_(pa.string())),
            *((name, pa.float64()) for name in sorted(signals(profile))),
        ]
    )


def _guard(seconds: float) -> Guard:
    """One child per process, kept for its life."""
    if seconds not in _GUARDS:
        _GUARDS[seconds] = Guard(seconds)
        atexit.register(_GUARDS[seconds].close)
    return _GUARDS[seconds]


def decide(batch: pa.Table, config: FilterConfig, thresholds: Thresholds, schema: pa.Schema) -> Outcome:
    """Signals and verdict of each document of a batch; `schema`: `signal_schema` of the profile."""
    naturals: list[str | None] = []
    columns = {
        name: batch.column(name).to_pylist() for name in ("doc_id", "path", "language", "doc_type", "size", "sha256")
    }
    documents = _documents(batch.column("content"), columns, config.profile, naturals)
    if config.time_limit_s:
        computed = _guard(config.time_limit_s).compute_all(documents)
    else:
        computed = (compute_signals(text, **options) for text, options in documents)
    rows, drops = [], []
    identity = (columns[name] for name in ("doc_id", "language", "doc_type", "sha256"))
    for i, (values, doc_id, language, doc_type, sha256) in enumerate(zip(computed, *identity, strict=True)):
        group = group_of(language or "", doc_type or "", naturals[i] or "en")
        keep, rules = decide_rules(values, group, thresholds, sha256)
        errors = [f"{name}: {reason}" for name, reason in sorted(values.errors.items())]
        row = {"doc_id": doc_id, "language": language, "doc_type": doc_type, "group": group, "keep": keep}
        rows.append({**values, **row, "rules": [r.signal for r in rules], "errors": errors})
        if not keep:
            rule = ";".join(r.signal for r in rules) or ("no_rule_group" if language else "no_language")
            detail = "; ".join(f"{r.signal} = {values[r.signal]:.6g}, dropped when {r.condition}" for r in rules)
            detail = detail or ("" if language else "the stage preprocess names it: run it before")
            drops.append({"doc_id": doc_id, "language": language, "doc_type": doc_type, "rule": rule, "detail": detail})
    table = pa.Table.from_arrays([pa.array([r.get(f.name) for r in rows], f.type) for f in schema], schema=schema)
    counts = {
        "stopped": sum(any("stopped after" in e for e in r["errors"]) for r in rows),
        "failed": sum(bool(r["errors"]) for r in rows),
        "fired": dict(Counter(rule for r in rows for rule in r["rules"])),
    }
    kept = batch.filter(pa.array([r["keep"] for r in rows], pa.bool_()))
    return Outcome(kept, drops, {"signals": table}, counts)


def _documents(
    content: pa.ChunkedArray, columns: dict[str, list[Any]], profile: str, naturals: list[str | None]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Text and options of `compute_signals`, document by document; the natural language found is added to `naturals`."""
    texts = (value.as_py() for chunk in content.chunks for value in chunk)
    for i, (path, text) in enumerate(zip(columns["path"], texts, strict=True)):
        naturals.append(natural_language(text) if columns["doc_type"][i] == "text" else None)
        options = {
            "language": columns["language"][i] or "",
            "doc_type": columns["doc_type"][i] or "",
            "file_name": path.rsplit("/", 1)[-1],
            "profile": profile,
            "natural": naturals[-1],
            "size_bytes": columns["size"][i],
        }
        yield text, options
