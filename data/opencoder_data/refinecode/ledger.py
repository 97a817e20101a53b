"""What happened to every file: files in = files kept + files dropped by stage and rule, exactly."""

from collections import Counter
from typing import Any

import pyarrow as pa

from opencoder_data.refinecode import storage
from opencoder_data.refinecode.engine import Executor, run_tasks
from opencoder_data.refinecode.run import Run
from opencoder_data.refinecode.schema import LEDGER


def write_ledger(run: Run, executor: Executor) -> dict[str, Any]:
    """Ledger and final documents of every partition; returns the summary, also written as `summary.json`.

    Raises RuntimeError if a file went missing or was counted twice: that would be a defect of the pipeline.
    """
    parts = range(run.num_parts())
    counts = run_tasks(
        executor, merge_partition, [(run, p) for p in parts], label="ledger", progress=run.config.engine.progress
    )
    dropped: Counter[tuple[str, str]] = Counter()
    languages: dict[str, Counter[str]] = {}
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count["total"])
        dropped.update({tuple(k.split("\t")): v for k, v in count["dropped"].items()})  # pyright: ignore[reportArgumentType]
        for language, values in count["languages"].items():
            languages.setdefault(language, Counter()).update(values)
    summary = {
        "files_in": total["files_in"], "bytes_in": total["bytes_in"],
        "files_kept": total["files_kept"], "bytes_kept": total["bytes_kept"],
        "files_dropped": [
            {"stage": stage, "rule": rule, "files": files}
            for (stage, rule), files in sorted(dropped.items(), key=lambda kv: (run.config.stages.index(kv[0][0]), -kv[1], kv[0]))
        ],
        "languages": {k: dict(v) for k, v in sorted(languages.items(), key=lambda kv: (-kv[1]["bytes_kept"], kv[0]))},
    }  # fmt: skip
    odd: Counter[str] = Counter()
    for count in run.counts("ingest"):
        odd.update(count.get("odd_metadata", {}))
    if odd:
        summary["odd_metadata"] = dict(sorted(odd.items()))
    if summary["files_in"] != summary["files_kept"] + sum(dropped.values()):
        raise RuntimeError(
            f"ledger does not balance: {summary['files_in']} in, {summary['files_kept']} kept, {sum(dropped.values())} dropped"
        )
    storage.write_json(storage.join(run.output, "summary.json"), summary)
    return summary


def merge_partition(run: Run, part: int) -> dict[str, Any]:
    """Ledger of one partition: the list of ingest with the verdicts of all later stages."""
    ledger = storage.read_table(run.part("ingest", "drops", part))
    rows = {name: ledger.column(name).to_pylist() for name in LEDGER.names}
    position = {doc_id: i for i, doc_id in enumerate(rows["doc_id"])}
    if len(position) != ledger.num_rows:
        raise RuntimeError(f"partition {part}: a doc_id occurs twice")
    for stage in run.config.stages[1:]:
        drops = storage.read_table(run.part(stage, "drops", part))
        for drop in drops.to_pylist():
            i = position[drop["doc_id"]]
            if rows["status"][i] != "kept":
                raise RuntimeError(f"partition {part}: {drop['doc_id']} dropped twice")
            rows["status"][i], rows["stage"][i] = "dropped", stage
            for name in ("rule", "detail", "language", "doc_type"):
                rows[name][i] = drop[name] if drop[name] is not None else rows[name][i]
    last = run.part(run.config.stages[-1], "docs", part)
    docs = storage.read_table(last, ["doc_id", "language", "doc_type", "size"])
    for doc_id, language, doc_type in zip(
        *(docs.column(n).to_pylist() for n in ("doc_id", "language", "doc_type")), strict=True
    ):
        i = position[doc_id]
        if rows["status"][i] != "kept":
            raise RuntimeError(f"partition {part}: {doc_id} both kept and dropped")
        rows["language"][i], rows["doc_type"][i] = language, doc_type
    kept = rows["status"].count("kept")
    if kept != docs.num_rows:
        raise RuntimeError(f"partition {part}: {kept} files kept in the ledger, {docs.num_rows} in the documents")
    merged = pa.Table.from_arrays([pa.array(rows[f.name], f.type) for f in LEDGER], schema=LEDGER)
    storage.write_table(storage.join(run.output, "ledger", f"part-{part:05d}.parquet"), merged)
    _publish(last, storage.join(run.output, "documents", f"part-{part:05d}.parquet"))
    return _count(rows)


def _publish(source: str, target: str) -> None:
    """The last stage's file under its final name; a link where the file system has them."""
    import os
    import shutil

    with storage.replacing(target) as path:
        os.unlink(path)
        try:
            os.link(storage.filesystem(source)[1], path)
        except OSError:
            with storage.open_read(source) as handle, open(path, "wb") as out:
                shutil.copyfileobj(handle, out)


def _count(rows: dict[str, list[Any]]) -> dict[str, Any]:
    dropped: Counter[str] = Counter()
    languages: dict[str, Counter[str]] = {}
    total: Counter[str] = Counter(files_in=len(rows["doc_id"]), bytes_in=sum(rows["size"]))
    for status, stage, rule, language, size in zip(
        rows["status"], rows["stage"], rows["rule"], rows["language"], rows["size"], strict=True
    ):
        per = languages.setdefault(language or "unknown", Counter())
        per.update(files_in=1, bytes_in=size)
        if status == "kept":
            per.update(files_kept=1, bytes_kept=size)
            total.update(files_kept=1, bytes_kept=size)
        else:
            dropped[f"{stage}\t{rule.split(';')[0]}"] += 1
    return {"total": dict(total), "dropped": dict(dropped), "languages": {k: dict(v) for k, v in languages.items()}}


def read_ledger(output: str) -> pa.Table:
    """The whole ledger of a finished run."""
    directory = storage.join(output, "ledger")
    tables = [
        storage.read_table(storage.join(directory, name))
        for name in storage.listdir(directory)
        if name.endswith(".parquet")
    ]
    return pa.concat_tables(tables) if tables else LEDGER.empty_table()


__all__ = ["merge_partition", "read_ledger", "write_ledger"]
