"""What happened to every document: documents in = documents kept + documents dropped by stage and rule, exactly."""

import os
import shutil
import sys
from collections import Counter
from typing import Any

import pyarrow as pa

from opencoder_data.pipeline import storage
from opencoder_data.pipeline.executors import Executor, run_tasks
from opencoder_data.pipeline.run import Run


def write_ledger(run: Run, executor: Executor) -> dict[str, Any]:
    """Ledger and final documents of every partition; returns the summary, also written as `summary.json`.

    Raises RuntimeError if a document went missing or was counted twice: that would be a defect of the pipeline.
    """
    parts = range(run.num_parts())
    counts = run_tasks(
        executor, merge_partition, [(run, p) for p in parts], label="ledger", progress=run.engine.progress
    )
    dropped: Counter[tuple[str, str]] = Counter()
    groups: dict[str, Counter[str]] = {}
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count["total"])
        dropped.update({tuple(k.split("\t")): v for k, v in count["dropped"].items()})  # pyright: ignore[reportArgumentType]
        for group, values in count["groups"].items():
            groups.setdefault(group, Counter()).update(values)
    summary: dict[str, Any] = {
        "files_in": total["files_in"], "bytes_in": total["bytes_in"],
        "files_kept": total["files_kept"], "bytes_kept": total["bytes_kept"],
        "files_dropped": [
            {"stage": stage, "rule": rule, "files": files}
            for (stage, rule), files in sorted(dropped.items(), key=lambda kv: (run.stages.index(kv[0][0]), -kv[1], kv[0]))
        ],
    }  # fmt: skip
    if by := run.pipeline.schema.summary_by:
        largest = sorted(groups.items(), key=lambda kv: (-kv[1]["bytes_kept"], kv[0]))
        summary[f"{by}s"] = {name: dict(values) for name, values in largest}
    odd: Counter[str] = Counter()
    for count in run.counts(run.stages[0]):
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
    """Ledger of one partition: the list of the first stage with the verdicts of all later ones."""
    schema = run.pipeline.schema
    ledger = storage.read_table(run.part(run.stages[0], "drops", part))
    rows = {name: ledger.column(name).to_pylist() for name in schema.ledger.names}
    position = {doc_id: i for i, doc_id in enumerate(rows["doc_id"])}
    if len(position) != ledger.num_rows:
        raise RuntimeError(f"partition {part}: a doc_id occurs twice")
    for stage in run.stages[1:]:
        drops = storage.read_table(run.part(stage, "drops", part))
        for drop in drops.to_pylist():
            i = position[drop["doc_id"]]
            if rows["status"][i] != "kept":
                raise RuntimeError(f"partition {part}: {drop['doc_id']} dropped twice")
            rows["status"][i], rows["stage"][i] = "dropped", stage
            for name in ("rule", "detail", *schema.labels):
                rows[name][i] = drop[name] if drop[name] is not None else rows[name][i]
    last = run.part(run.stages[-1], "docs", part)
    docs = storage.read_table(last, ["doc_id", *schema.labels])
    for doc_id, *labels in zip(*(docs.column(n).to_pylist() for n in ("doc_id", *schema.labels)), strict=True):
        i = position[doc_id]
        if rows["status"][i] != "kept":
            raise RuntimeError(f"partition {part}: {doc_id} both kept and dropped")
        for name, value in zip(schema.labels, labels, strict=True):
            rows[name][i] = value
    kept = rows["status"].count("kept")
    if kept != docs.num_rows:
        raise RuntimeError(f"partition {part}: {kept} files kept in the ledger, {docs.num_rows} in the documents")
    merged = pa.Table.from_arrays([pa.array(rows[f.name], f.type) for f in schema.ledger], schema=schema.ledger)
    storage.write_table(storage.join(run.output, "ledger", f"part-{part:05d}.parquet"), merged)
    _publish(last, storage.join(run.output, "documents", f"part-{part:05d}.parquet"))
    return _count(rows, schema.summary_by)


def _publish(source: str, target: str) -> None:
    """The last stage's file under its final name; a link where the file system has them."""
    with storage.replacing(target) as path:
        os.unlink(path)
        try:
            os.link(storage.filesystem(source)[1], path)
        except OSError:
            with storage.open_read(source) as handle, open(path, "wb") as out:
                shutil.copyfileobj(handle, out)


def _count(rows: dict[str, list[Any]], by: str) -> dict[str, Any]:
    """Documents and bytes of a partition: in all, dropped by stage and rule, and by the column `by`."""
    dropped: Counter[str] = Counter()
    groups: dict[str, Counter[str]] = {}
    total: Counter[str] = Counter(files_in=len(rows["doc_id"]), bytes_in=sum(rows["size"]))
    names = rows[by] if by else [None] * len(rows["doc_id"])
    for status, stage, rule, name, size in zip(
        rows["status"], rows["stage"], rows["rule"], names, rows["size"], strict=True
    ):
        per = groups.setdefault(name or "unknown", Counter())
        per.update(files_in=1, bytes_in=size)
        if status == "kept":
            per.update(files_kept=1, bytes_kept=size)
            total.update(files_kept=1, bytes_kept=size)
        else:
            dropped[f"{stage}\t{rule.split(';')[0]}"] += 1
    return {"total": dict(total), "dropped": dict(dropped), "groups": {k: dict(v) for k, v in groups.items()}}


def read_ledger(output: str) -> pa.Table:
    """The whole ledger of a finished run. Raises ValueError when there is none."""
    directory = storage.join(output, "ledger")
    names = [name for name in storage.listdir(directory) if name.endswith(".parquet")]
    if not names:
        raise ValueError(f"{output} has no ledger: it is not the output of a finished run")
    return pa.concat_tables([storage.read_table(storage.join(directory, name)) for name in names])


def print_summary(summary: dict[str, Any], by: str = "", file: Any = None) -> None:
    """Documents in, kept and dropped by stage and rule, and the largest groups by the label `by`."""
    file = file or sys.stdout
    print(f"files in    {summary['files_in']:>10,}  {summary['bytes_in'] / 1e6:>10,.1f} MB", file=file)
    for entry in summary["files_dropped"]:
        print(f"  dropped   {entry['files']:>10,}  {entry['stage']}: {entry['rule']}", file=file)
    for name, rows in summary.get("odd_metadata", {}).items():
        print(f"  unknown   {rows:>10,}  {name}: not readable, left empty", file=file)
    print(f"files kept  {summary['files_kept']:>10,}  {summary['bytes_kept'] / 1e6:>10,.1f} MB", file=file)
    for group, values in list(summary.get(f"{by}s", {}).items())[:12]:
        kept = values.get("files_kept", 0)
        if kept:
            print(f"  {group:<24}{kept:>8,} files {values['bytes_kept'] / 1e6:>10,.1f} MB", file=file)
