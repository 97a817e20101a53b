"""One HTML and one Markdown file from a directory of results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from opencoder_eval import benchmarks
from opencoder_eval import samples as sample_files
from opencoder_eval.report import html, markdown, tables
from opencoder_eval.score import CANONICAL, read_results

TITLE = "Evaluation"


def write_report(out: Path) -> list[Path]:
    """Writes `report.md` and `report.html` in `out` and returns their paths.

    Raises: ValueError when there are no results.
    """
    summaries = tables.read_summaries(out)
    likelihoods = [json.loads(path.read_text()) for path in sorted(out.glob("*/likelihood.json"))]
    shown = tables.all_tables(summaries, likelihoods)
    settings = [_settings_line(s) for s in summaries]
    paths = [out / "report.md", out / "report.html"]
    sample_files.write_atomically(paths[0], markdown.document(TITLE, shown, settings))
    samples = ((s["benchmark"], _shown(out, s)) for s in summaries)
    sample_files.write_atomically(paths[1], "".join(html.document(TITLE, shown, settings, samples)))
    return paths


def _settings_line(summary: dict[str, Any]) -> str:
    settings = summary.get("settings") or {}
    sampling = settings.get("sampling") or {}
    asked = ", ".join(f"{k} {v}" for k, v in sampling.items() if v is not None)
    versions = ", ".join(f"{k} {v}" for k, v in summary["versions"].items())
    model = f"model {tables.model_of(summary)}, {tables.mode_of(summary)}, {summary['samples_per_task']} samples a task"
    return f"{summary['benchmark']} ({summary['title']}): {model}; {asked or 'made by another tool'}; {versions}"


def _shown(out: Path, summary: dict[str, Any]) -> Iterator[html.Shown]:
    directory: Path = summary["directory"]
    own = directory / "samples.jsonl"
    shared = out / benchmarks.prompts_of(summary["benchmark"]) / "samples.jsonl"
    path = own if own.exists() else shared
    written = {(r["task_id"], r["sample"]): r for r in sample_files.read(path)} if path.exists() else {}
    for result in read_results(directory / "results.jsonl"):
        if result.sample == CANONICAL:
            continue
        row = written.get((result.task_id, result.sample), {})
        yield html.Shown(
            task_id=result.task_id,
            sample=result.sample,
            language=result.language,
            kind=result.kind,
            prompt=str(row.get("prompt") or ""),
            answer=str(row.get("answer") or row.get("completion") or ""),
            solution=str(row.get("solution") or ""),
            detail=str(row.get("rejected") or "") or result.detail,
            retried=result.retried,
        )
