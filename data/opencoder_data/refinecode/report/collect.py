"""Figures of a finished run, read from its files column by column."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from opencoder_data.refinecode import storage
from opencoder_data.refinecode.config import RefineConfig, from_dict
from opencoder_data.refinecode.filter import describe_rules
from opencoder_data.refinecode.filter_stage import STAGE as FILTER
from opencoder_data.refinecode.filter_stage import thresholds_of
from opencoder_data.refinecode.ledger import read_ledger
from opencoder_data.refinecode.run import Run

BYTES_PER_TOKEN = 3.6
"""What the paper's sizes and tokens imply; used where no tokenizer is given."""
_EXAMPLES = 3
_SNIPPET = 600
_BINS = 40


def open_run(output: str) -> Run:
    """The run that wrote `output`; ValueError when it is none or is not finished."""
    marker = storage.join(output, "run.json")
    if not storage.exists(marker):
        raise ValueError(f"{output} is not an output of a pipeline run (run.json is missing)")
    if not storage.exists(storage.join(output, "summary.json")):
        raise ValueError(f"the run in {output} is not finished; run the same command again to finish it")
    saved = storage.read_json(marker)
    config: RefineConfig = from_dict(saved["config"])
    return Run(config, tuple(saved["inputs"]), output)


def collect(run: Run, tokens_per_byte: dict[str, float] | None = None) -> dict[str, Any]:
    """Everything the report shows but the plots of embeddings; plain values for JSON."""
    report: dict[str, Any] = {
        "inputs": list(run.inputs),
        "stages": list(run.config.stages),
        "ledger": storage.read_json(storage.join(run.output, "summary.json")),
        "balance": _balance(run),
        "timings": _optional(run, "timings.json"),
        "languages": _languages(run, tokens_per_byte or {}),
        "sizes_after_stage": _sizes(run),
    }
    report["ledger"].pop("languages", None)
    if "fuzzy_dedup" in run.config.stages:
        directory = run.directory("fuzzy_dedup")
        report["fuzzy_dedup"] = storage.read_json(storage.join(directory, "components", "report.json"))
        recall = storage.join(directory, "components", "recall.json")
        report["recall"] = storage.read_json(recall) if storage.exists(recall) else None
    if "transform" in run.config.stages:
        changes: Counter[str] = Counter()
        for count in run.counts("transform"):
            for name, number in count["changes"].items():
                changes[name.strip()] += number  # a block of a key leaves a line of its own
        report["transform"] = dict(changes.most_common())
    if FILTER in run.config.stages:
        report["filter"] = _filter(run)
    if "sample" in run.config.stages:
        report["sample"] = storage.read_json(storage.join(run.directory("sample"), "cuts.json"))
    return report


def _balance(run: Run) -> dict[str, int]:
    """Files by fate, counted anew from the ledger's rows and from the documents.

    Raises ValueError when they do not add up to the summary: somebody changed the files of the run.
    """
    ledger = read_ledger(run.output)
    status = Counter(ledger.column("status").to_pylist())
    directory = storage.join(run.output, "documents")
    rows = 0
    for name in storage.listdir(directory):
        with storage.open_read(storage.join(directory, name)) as handle:
            rows += pq.ParquetFile(handle).metadata.num_rows
    summary = storage.read_json(storage.join(run.output, "summary.json"))
    found = {"files_in": ledger.num_rows, "kept": status["kept"], "dropped": status["dropped"], "documents": rows}
    distinct = len(pc.unique(ledger.column("doc_id")))  # pyright: ignore[reportAttributeAccessIssue]
    wanted = (summary["files_in"], summary["files_kept"], summary["files_in"] - summary["files_kept"])
    if (
        distinct != ledger.num_rows
        or (ledger.num_rows, status["kept"], status["dropped"]) != wanted
        or rows != wanted[1]
    ):
        raise ValueError(
            f"{run.output}: ledger and documents do not agree with summary.json ({found}); remove the ledger and documents "
            "directories and run the same command again"
        )
    return found


def _optional(run: Run, name: str) -> Any:
    url = storage.join(run.output, name)
    return storage.read_json(url) if storage.exists(url) else None


def _per_language(run: Run, stage: str) -> dict[str, tuple[int, int]]:
    """language -> (files, bytes of text) of a stage's documents."""
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for part in range(run.num_parts()):
        for batch in run.documents(stage, part, ["language", "content"]):
            size = pc.binary_length(batch.column("content"))  # pyright: ignore[reportAttributeAccessIssue]
            table = pa.table({"language": batch.column("language"), "size": size})
            for row in table.group_by("language").aggregate([("size", "count"), ("size", "sum")]).to_pylist():
                found[row["language"] or "unknown"][0] += row["size_count"]
                found[row["language"] or "unknown"][1] += row["size_sum"]
    return {k: (v[0], v[1]) for k, v in found.items()}


def _languages(run: Run, tokens_per_byte: dict[str, float]) -> list[dict[str, Any]]:
    """The columns of the paper's table 16, files, size and share of the size, after de-duplication and after filtering;
    then what sampling leaves, and its tokens."""
    stages = run.config.stages
    dedup = next((s for s in ("fuzzy_dedup", "exact_dedup", "preprocess") if s in stages), stages[-1])
    filtered = next((s for s in (FILTER, "transform") if s in stages), stages[-1])
    before, after, last = (_per_language(run, s) for s in (dedup, filtered, stages[-1]))
    total, total_kept = (sum(size for _, size in sizes.values()) or 1 for sizes in (before, after))
    rows = []
    for language in sorted(before, key=lambda k: (-last.get(k, (0, 0))[1], -before[k][1], k)):
        files, size = before[language]
        kept_files, kept_size = after.get(language, (0, 0))
        final_files, final_size = last.get(language, (0, 0))
        rows.append({
            "language": language,
            "files_after_dedup": files, "bytes_after_dedup": size, "share_after_dedup": round(size / total, 6),
            "files_after_filter": kept_files, "bytes_after_filter": kept_size,
            "share_after_filter": round(kept_size / total_kept, 6),
            "kept_share": round(kept_size / size, 4) if size else None,
            "files_final": final_files, "bytes_final": final_size,
            "tokens_final": round(final_size * tokens_per_byte.get(language, 1 / BYTES_PER_TOKEN)),
        })  # fmt: skip
    return rows


def _sizes(run: Run) -> list[dict[str, Any]]:
    return [{"stage": s, "files": sum(c["kept"] for c in run.counts(s))} for s in run.config.stages]


def signal_tables(run: Run, columns: list[str]) -> Iterator[pa.Table]:
    for part in range(run.num_parts()):
        yield storage.read_table(run.part(FILTER, "signals", part), columns)


def _filter(run: Run) -> dict[str, Any]:
    """Rules by how often they fired and fired alone, examples, and the distribution of each signal with its thresholds.

    A failed signal has no value, so that its rules cannot fire: `failed` files have one, `stopped` at the time limit.
    """
    fired: Counter[str] = Counter()
    alone: Counter[str] = Counter()
    examples: dict[str, list[str]] = defaultdict(list)
    others: dict[str, list[str]] = defaultdict(list)
    errors: Counter[str] = Counter()
    files = failed = stopped = 0
    for table in signal_tables(run, ["doc_id", "rules", "errors"]):
        files += table.num_rows
        for found in filter(None, table.column("errors").to_pylist()):
            failed += 1
            stopped += any("stopped after" in e for e in found)
            errors.update(e.partition(":")[0] for e in found)
        for doc_id, rules in zip(table.column("doc_id").to_pylist(), table.column("rules").to_pylist(), strict=True):
            fired.update(rules)
            if len(rules) == 1:
                alone.update(rules)
            for rule in rules:
                # Files that only this rule drops show best what it does.
                chosen = (examples if len(rules) == 1 else others)[rule]
                if len(chosen) < _EXAMPLES:
                    chosen.append(doc_id)
    shown = {rule: (examples[rule] + others[rule])[:_EXAMPLES] for rule in fired}
    texts = _snippets(run, {i for ids in shown.values() for i in ids})
    config = run.config.filter
    rules = describe_rules(config.profile, thresholds_of(config))
    return {
        "profile": config.profile,
        "files": files,
        "failed": failed,
        "stopped": stopped,
        "failed_signals": dict(errors.most_common()),
        "rules": [
            {
                "signal": name,
                "about": next((r["about"] for r in rules if r["signal"] == name), ""),
                "fired": count,
                "fired_alone": alone[name],
                "examples": [texts[i] for i in shown[name] if i in texts],
            }
            for name, count in fired.most_common()
        ],
        "signals": _distributions(run, rules),
    }


def _snippets(run: Run, wanted: set[str]) -> dict[str, dict[str, str]]:
    found = {}
    for part in range(run.num_parts()):
        for batch in run.documents(run.upstream(FILTER), part, ["doc_id", "repo", "path", "language", "content"]):
            ids = batch.column("doc_id").to_pylist()
            for i, doc_id in enumerate(ids):
                if doc_id in wanted:
                    row = batch.slice(i, 1).to_pylist()[0]
                    found[doc_id] = {**row, "content": row["content"][:_SNIPPET]}
    return found


def _distributions(run: Run, rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    schema = pq.ParquetFile(run.part(FILTER, "signals", 0)).schema_arrow if "://" not in run.output else None
    names = schema.names if schema else storage.read_table(run.part(FILTER, "signals", 0)).column_names
    conditions: dict[str, Counter[str]] = defaultdict(Counter)
    for rule in rules:
        if rule["condition"]:
            conditions[rule["signal"]][rule["condition"]] += 1
    result = []
    for name in names:
        if not name.startswith(("qsc_", "x_")):
            continue
        tables = list(signal_tables(run, ["keep", name]))
        keep = np.concatenate([t.column("keep").to_numpy() for t in tables])
        value = np.concatenate([t.column(name).to_numpy() for t in tables])
        known = np.isfinite(value)
        if not known.any():
            continue
        edges, scale = _edges(value[known])
        clipped = np.clip(value[known], edges[0], edges[-1])
        result.append({
            "signal": name,
            "scale": scale,
            "known": int(known.sum()),
            "mean": round(float(value[known].mean()), 6),
            "quantiles": {str(q): round(float(np.quantile(value[known], q)), 6) for q in (0.01, 0.1, 0.5, 0.9, 0.99)},
            "edges": [float(f"{e:.6g}") for e in edges],
            "kept": np.histogram(clipped[keep[known]], edges)[0].tolist(),
            "dropped": np.histogram(clipped[~keep[known]], edges)[0].tolist(),
            "conditions": [c for c, _ in conditions[name].most_common(3)],
        })  # fmt: skip
    return result


def _edges(values: np.ndarray) -> tuple[np.ndarray, str]:
    """(bin edges, ``linear`` or ``log``: equal steps of log(1 + value)).

    The outer two hundredths share the outer bins, so that one huge file does not flatten the picture.
    """
    low, high = np.quantile(values, [0.005, 0.995])
    if low == high:
        low, high = low - 0.5, high + 0.5
    if low >= 0 and high > 100:
        return np.expm1(np.linspace(np.log1p(low), np.log1p(high), _BINS + 1)), "log"
    return np.linspace(low, high, _BINS + 1), "linear"


def compare_levels(runs: list[Run], tokens_per_byte: dict[str, float] | None = None) -> list[dict[str, Any]]:
    """What de-duplication left in each run, for runs that differ in `fuzzy_dedup` (the published ablation of levels)."""
    rows = []
    for run in runs:
        if "fuzzy_dedup" not in run.config.stages:
            raise ValueError(f"{run.output} has no stage fuzzy_dedup to compare")
        stage = "fuzzy_dedup"
        before, after = _per_language(run, run.upstream(stage)), _per_language(run, stage)
        config = run.config.fuzzy_dedup
        tokens = sum(
            size * (tokens_per_byte or {}).get(language, 1 / BYTES_PER_TOKEN) for language, (_, size) in after.items()
        )
        rows.append({
            "run": run.output, "level": config.level, "preset": config.preset,
            "min_jaccard": config.min_jaccard if config.verify else None,
            "files_before": sum(f for f, _ in before.values()), "bytes_before": sum(b for _, b in before.values()),
            "files_kept": sum(f for f, _ in after.values()), "bytes_kept": sum(b for _, b in after.values()),
            "tokens_kept": round(tokens),
        })  # fmt: skip
    return rows


__all__ = ["collect", "compare_levels", "open_run"]
