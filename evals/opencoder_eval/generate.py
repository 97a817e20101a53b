"""Asks a model for samples: the first of the two steps, `samples.jsonl` between them. Goes on where it was stopped."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from opencoder_eval import samples as sample_files
from opencoder_eval.benchmarks.base import Benchmark, Mode, Question, Task
from opencoder_eval.client import Answer, Client, EndpointError, Rejected
from opencoder_eval.extraction import EXTRACTIONS, cut


@dataclass(frozen=True)
class Generated:
    """new: asked for now. kept: there before. rejected: the server would not answer; they count as failures."""

    new: int
    kept: int
    rejected: int


def generate(
    benchmark: Benchmark,
    client: Client,
    path: Path,
    settings: sample_files.Settings,
    *,
    extraction: str = "",
    concurrency: int = 16,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Generated:
    """Appends every (task, sample) that the file lacks, each as soon as it is there.

    Args:
      settings: recorded with the samples; a file made with others is not added to.
      extraction: how `solution` is found in the answer, "" for the benchmark's own way; answers are kept as well.
      progress: called with (done, total).

    Raises: ValueError for settings that differ; EndpointError, or where the server rejects every request.
    """
    mode = check_mode(benchmark, settings.mode)
    extraction = check_extraction(extraction or benchmark.default_extraction)
    tasks = benchmark.tasks()[: settings.limit or None]
    sample_files.check_settings(path, settings)
    sample_files.drop_torn_line(path)
    there = {(r["task_id"], r["sample"]) for r in sample_files.read(path)} if path.exists() else set()
    wanted = [(task, i) for task in tasks for i in range(settings.samples) if (task.id, i) not in there]
    total, kept = len(tasks) * settings.samples, len(tasks) * settings.samples - len(wanted)
    rejections: list[Rejected] = []
    done = 0

    def ask(item: tuple[Task, int]) -> Answer:
        question = benchmark.question(item[0], mode)
        sampling = settings.sampling
        if sampling.seed is not None:
            sampling = replace(sampling, seed=random.Random(f"{sampling.seed}/{item[1]}").getrandbits(31))
        return put(client, question, sampling)

    with path.open("a", encoding="utf-8") as file:
        for (task, index), answer in client.map(ask, wanted, concurrency=concurrency):
            if isinstance(answer, Rejected):
                rejections.append(answer)
                if len(rejections) == min(len(wanted), 8) and not done:
                    raise EndpointError(f"{client.endpoint} rejects every request: {answer}")
            else:
                done += 1
            row = _row(benchmark, task, index, mode, answer, extraction)
            file.write(json.dumps(row) + "\n")
            file.flush()
            progress(kept + done + len(rejections), total)
    return Generated(done, kept, len(rejections))


def put(client: Client, question: Question, sampling: sample_files.Sampling) -> Answer:
    """One question to the endpoint; the answer ends before the first stop string, whatever the server made of it."""
    if question.messages:
        answer = client.chat(question.messages, sampling, stop=question.stop)
    else:
        answer = client.complete(question.prompt, sampling, stop=question.stop, suffix=question.suffix)
    return replace(answer, text=cut(answer.text, question.stop))


def check_mode(benchmark: Benchmark, mode: str) -> Mode:
    """The mode, "" for the benchmark's first. Raises: ValueError for one that it does not have."""
    chosen = mode or benchmark.modes[0]
    for known in benchmark.modes:
        if known == chosen:
            return known
    raise ValueError(f"{benchmark.name} is asked by {' or '.join(benchmark.modes)}, not by {chosen!r}")


def check_extraction(extraction: str) -> str:
    """Raises: ValueError for an unknown one."""
    if extraction not in EXTRACTIONS:
        raise ValueError(f"extraction {extraction!r}: there are {', '.join(EXTRACTIONS)}")
    return extraction


def _row(
    benchmark: Benchmark, task: Task, index: int, mode: Mode, answer: Answer | Rejected, extraction: str
) -> dict[str, object]:
    row: dict[str, object] = {"task_id": task.id, "sample": index, "benchmark": benchmark.name, "mode": mode}
    row["prompt"] = benchmark.question(task, mode).text
    if isinstance(answer, Rejected):
        return {**row, "answer": "", "solution": "", "finish_reason": "rejected", "rejected": str(answer)}
    solution = benchmark.solution(task, answer.text, mode, extraction)
    row |= {"answer": answer.text, "solution": solution or "", "finish_reason": answer.finish_reason}
    return {**row, "prompt_tokens": answer.prompt_tokens, "tokens": answer.tokens, "extraction": extraction}
