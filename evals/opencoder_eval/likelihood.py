"""Bits per byte of the canonical solutions given the prompts: a score for models that are too small to pass tests."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from opencoder_eval import samples as sample_files
from opencoder_eval.benchmarks.base import Benchmark, Task
from opencoder_eval.client import Client, EndpointError, Likelihood, Rejected


def bits_per_byte(
    benchmark: Benchmark,
    client: Client,
    out: Path,
    *,
    limit: int = 0,
    concurrency: int = 16,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Scores every task's reference after its prompt, at the endpoint (`echo` with `logprobs`).

    The sum over tasks of -log2 p(solution | prompt), over the sum of the solutions' UTF-8 bytes. Infilling benchmarks are
    scored by what is before the hole. Written to `out/likelihood.jsonl` (a line a task, kept when the command is
    stopped) and `out/likelihood.json`.

    Raises: ValueError for a benchmark without references; EndpointError.
    """
    tasks = [t for t in benchmark.tasks()[: limit or None] if t.completion and t.prompt]
    if not tasks:
        raise ValueError(f"{benchmark.name} has no reference solutions to score")
    out.mkdir(parents=True, exist_ok=True)
    lines = out / "likelihood.jsonl"
    sample_files.drop_torn_line(lines)
    there = {(r["model"], r["task_id"]): r for r in _read(lines)}
    model = client.model
    wanted = [t for t in tasks if (model, t.id) not in there]
    done = len(tasks) - len(wanted)

    def ask(task: Task) -> Likelihood:
        assert task.completion is not None
        return client.likelihood(task.prompt, task.completion)

    with lines.open("a", encoding="utf-8") as file:
        for task, answer in client.map(ask, wanted, concurrency=concurrency):
            row: dict[str, Any] = {"model": model, "task_id": task.id, "bytes": len(str(task.completion).encode())}
            if isinstance(answer, Rejected):
                row["rejected"] = str(answer)
            else:
                row |= {"nats": answer.nats, "tokens": answer.tokens}
            file.write(json.dumps(row) + "\n")
            file.flush()
            there[model, task.id] = row
            done += 1
            progress(done, len(tasks))
    rows = [there[model, t.id] for t in tasks]
    scored = [r for r in rows if "nats" in r]
    if not scored:
        raise EndpointError(f"{client.endpoint} rejects every request: {rows[0]['rejected']}")
    total = sum(r["bytes"] for r in scored)
    summary = {
        "benchmark": benchmark.name,
        "model": model,
        "bits_per_byte": math.fsum(r["nats"] for r in scored) / math.log(2) / total,
        "bytes": total,
        "tokens": sum(r["tokens"] for r in scored),
        "tasks": len(scored),
        "rejected": len(rows) - len(scored),
        "limit": limit,
    }
    sample_files.write_atomically(out / "likelihood.json", json.dumps(summary, indent=1) + "\n")
    return summary


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except ValueError as error:
        raise ValueError(f"{path}: {error}; delete it and score again") from error
