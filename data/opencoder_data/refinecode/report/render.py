"""The report as Markdown and as one HTML page without outside parts."""

import base64
import html
import math
import re
from typing import Any

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:.6em 0;font-variant-numeric:tabular-nums}th,td{padding:.2em .7em;border-bottom:1px solid #ddd;text-align:right}
th:first-child,td:first-child,td.t{text-align:left}pre{background:#f6f6f6;padding:.6em;overflow:auto;font-size:12px;max-height:14em}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(250px,1fr));gap:12px}.card{border:1px solid #ddd;padding:.5em;font-size:12px;overflow-wrap:anywhere}
summary{cursor:pointer}.left td{text-align:left}
"""

_BOUND = re.compile(r"[<>=]=?\s*(-?[\d.]+(?:e[+-]?\d+)?)")

Table = tuple[list[str], list[list[Any]]]


def tables(report: dict[str, Any]) -> dict[str, Table]:
    """The report's tables by title: column names and rows of plain values."""
    ledger = report["ledger"]
    rows: list[list[Any]] = [["in", "", ledger["files_in"]]]
    rows += [["dropped", f"{d['stage']}: {d['rule']}", d["files"]] for d in ledger["files_dropped"]]
    rows.append(["kept", "", ledger["files_kept"]])
    found: dict[str, Table] = {"Ledger": (["fate", "stage and (first) rule", "files"], rows)}
    found["Files after each stage"] = (
        ["stage", "files"],
        [[s["stage"], s["files"]] for s in report["sizes_after_stage"]],
    )
    found["Languages"] = (
        ["language", "files after de-dup", "MB", "ratio", "files after filtering", "MB", "ratio", "bytes kept",
         "files sampled", "MB", "M tokens"],
        [_language_row(r) for r in [*report["languages"], _all_languages(report["languages"])]],
    )  # fmt: skip
    if report.get("timings"):
        found["Time"] = (
            ["stage", "wall s", "CPU s in tasks (without the filter's guarded children)"],
            [[k, v["wall_s"], v.get("task_cpu_s", "")] for k, v in report["timings"].items()],
        )
    if report.get("fuzzy_dedup"):
        found["Fuzzy de-duplication"] = (
            ["", "value"],
            [[k, v] for k, v in report["fuzzy_dedup"].items() if v is not None],
        )
    if report.get("levels"):
        found["De-duplication compared"] = (
            ["level", "preset", "Jaccard at least", "files before", "MB before", "files kept", "MB kept", "M tokens kept"],
            [
                [r["level"], r["preset"], r["min_jaccard"] if r["min_jaccard"] is not None else "not checked", r["files_before"],
                 _mb(r["bytes_before"]), r["files_kept"], _mb(r["bytes_kept"]), f"{r['tokens_kept'] / 1e6:,.2f}"]
                for r in report["levels"]
            ],
        )  # fmt: skip
    if report.get("recall"):
        levels = list(report["recall"]["pairs"])
        found["Recall and precision against exact Jaccard similarity"] = (
            ["banding", "slots", "bands x rows", "threshold", "pairs found", *(f"recall J >= {v} (S-curve)" for v in levels), "precision J >= 0.7"],
            [
                [name, b["slots"], f"{b['bands']} x {b['rows']}", b["threshold"], b["candidate_pairs"],
                 *(f"{b['recall'][v]} ({b['recall_predicted'][v]})" for v in levels), b["precision_at_0.7"]]
                for name, b in report["recall"]["bandings"].items()
            ],
        )  # fmt: skip
    if report.get("transform") is not None:
        found["Transformation"] = (["change", "count"], [[k, v] for k, v in report["transform"].items()])
    if report.get("filter"):
        checked = report["filter"]
        found["Signals that failed"] = (
            ["", "files"],
            [["through the filter", checked["files"]], ["with a failed signal (no value, its rules do not fire)", checked["failed"]],
             ["of these stopped at the time limit", checked["stopped"]], *map(list, checked["failed_signals"].items())],
        )  # fmt: skip
        found["Rules that fired"] = (
            ["signal", "fired", "alone", "meaning"],
            [[r["signal"], r["fired"], r["fired_alone"], r["about"]] for r in report["filter"]["rules"]],
        )
    if report.get("sample"):
        found["Sampling"] = (
            ["language", "MB before", "target MB", "MB kept", "files before", "files kept"],
            [[k, _mb(c["bytes_before"]), _mb(c["target_bytes"]), _mb(c["bytes_kept"]), c["files_before"], c["files_kept"]]
             for k, c in report["sample"].items()],
        )  # fmt: skip
    return found


def _language_row(r: dict[str, Any]) -> list[Any]:
    return [
        r["language"], r["files_after_dedup"], _mb(r["bytes_after_dedup"]), f"{r['share_after_dedup']:.2%}",
        r["files_after_filter"], _mb(r["bytes_after_filter"]), f"{r['share_after_filter']:.2%}",
        f"{r['kept_share']:.1%}" if r["kept_share"] is not None else "",
        r["files_final"], _mb(r["bytes_final"]), f"{r['tokens_final'] / 1e6:,.2f}",
    ]  # fmt: skip


def _all_languages(rows: list[dict[str, Any]]) -> dict[str, Any]:
    total = {k: sum(r[k] for r in rows) for k in (rows[0] if rows else ()) if k not in ("language", "kept_share")}
    size = total.get("bytes_after_dedup", 0)
    zero = dict.fromkeys(("files_after_dedup", "share_after_dedup", "files_after_filter", "share_after_filter"), 0)
    zero |= dict.fromkeys(("bytes_after_dedup", "bytes_after_filter", "files_final", "bytes_final", "tokens_final"), 0)
    return {**zero, **total, "language": "all", "kept_share": total["bytes_after_filter"] / size if size else None}


def _mb(size: float) -> str:
    return f"{size / 1e6:,.2f}"


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _opening(report: dict[str, Any]) -> str:
    balance = report["balance"]
    return (
        f"Input: {', '.join(report['inputs'])}. Stages: {', '.join(report['stages'])}. "
        f"{balance['files_in']:,} files in ({_mb(report['ledger']['bytes_in'])} MB) = {balance['kept']:,} kept "
        f"({_mb(report['ledger']['bytes_kept'])} MB) + {balance['dropped']:,} dropped, counted from the ledger; "
        f"{balance['documents']:,} rows in documents. Ratio: share of all bytes at that point. Tokens: {report['tokens_are']}."
    )


def markdown(report: dict[str, Any]) -> str:
    """The tables as Markdown."""
    parts = [f"# RefineCode run\n\n{_opening(report)}\n"]
    for title, (columns, rows) in tables(report).items():
        lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        lines += [
            "| " + " | ".join(_cell(v).replace("|", "\\|").replace("\n", " ") for v in row) + " |" for row in rows
        ]
        parts.append(f"## {title}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def page(report: dict[str, Any], pca: bytes | None) -> str:
    """The whole report as one HTML page."""
    body = [f"<h1>RefineCode run</h1><p>{html.escape(_opening(report))}</p>"]
    for title, (columns, rows) in tables(report).items():
        head = "".join(f"<th>{html.escape(c)}</th>" for c in columns)
        lines = "".join("<tr>" + "".join(map(_table_cell, row)) + "</tr>" for row in rows)
        body.append(f"<h2>{html.escape(title)}</h2><table><tr>{head}</tr>{lines}</table>")
    if pca:
        image = base64.b64encode(pca).decode()
        body.append(
            f'<h2>Kept against dropped files</h2><img alt="principal components of file features" src="data:image/png;base64,{image}">'
        )
    if report.get("filter"):
        body += [_examples(report["filter"]["rules"]), _signals(report["filter"]["signals"])]
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>RefineCode run</title><style>{_STYLE}</style><body>{"".join(body)}</body></html>\n'


def _table_cell(value: Any) -> str:
    # Words are at the left, figures (also those already formatted) at the right.
    words = isinstance(value, str) and not value[:1].isdigit()
    return f"<td{' class=t' if words else ''}>{html.escape(_cell(value))}</td>"


def _examples(rules: list[dict[str, Any]]) -> str:
    parts = ["<h2>Examples by rule</h2><p>Files that only this rule dropped, where there are any.</p>"]
    for rule in rules:
        if not rule["examples"]:
            continue
        shown = "".join(
            f"<p>{html.escape(e['path'])} ({html.escape(str(e['language']))})</p><pre>{html.escape(e['content'])}</pre>"
            for e in rule["examples"]
        )
        parts.append(
            f"<details><summary>{html.escape(rule['signal'])}: {rule['fired']:,} files, {rule['fired_alone']:,} by it alone</summary>{shown}</details>"
        )
    return "".join(parts)


def _signals(signals: list[dict[str, Any]]) -> str:
    cards = "".join(
        f'<div class="card"><b>{html.escape(s["signal"])}</b>{histogram(s)}'
        f"median {s['quantiles']['0.5']:g}, n = {s['known']:,}; drop when {html.escape(' / '.join(s['conditions']) or 'never')}</div>"
        for s in signals
    )
    return f'<h2>Signals</h2><p>Blue: kept; red: dropped by any rule; dashed: thresholds; heights by square root; the axis of wide ranges is logarithmic.</p><div class="grid">{cards}</div>'


def histogram(signal: dict[str, Any], width: int = 230, height: int = 70) -> str:
    """Stacked histogram of kept and dropped files as SVG, with the thresholds that are in its range."""
    edges, kept, dropped = signal["edges"], signal["kept"], signal["dropped"]
    top = max(k + d for k, d in zip(kept, dropped, strict=True)) ** 0.5 or 1
    step = width / len(kept)
    parts = []
    for i, (k, d) in enumerate(zip(kept, dropped, strict=True)):
        whole = height * (k + d) ** 0.5 / top
        low = whole * k / (k + d) if k + d else 0
        parts.append(
            f'<rect fill="#c0392b" x="{i * step:.1f}" y="{height - whole:.1f}" width="{step:.1f}" height="{whole - low:.1f}"/>'
        )
        parts.append(
            f'<rect fill="#2471a3" x="{i * step:.1f}" y="{height - low:.1f}" width="{step:.1f}" height="{low:.1f}"/>'
        )
    scale = math.log1p if signal["scale"] == "log" else float
    low, high = scale(edges[0]), scale(edges[-1])
    for bound in sorted({float(b) for c in signal["conditions"] for b in _BOUND.findall(c)}):
        if edges[0] <= bound <= edges[-1]:
            x = width * (scale(bound) - low) / (high - low)
            parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height}" stroke="#111" stroke-dasharray="3 2"/>')
    label = f'<text x="0" y="{height + 12}" font-size="10">{edges[0]:g}</text><text x="{width}" y="{height + 12}" font-size="10" text-anchor="end">{edges[-1]:g}</text>'
    return f'<svg viewBox="0 0 {width} {height + 14}" width="100%">{"".join(parts)}{label}</svg>'
