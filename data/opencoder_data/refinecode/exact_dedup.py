"""Stage 3: SHA-256 of the raw file; one copy of each stays (`keep_rule`).

Three steps: keys of each partition, sorted by bucket of the hash; one reduce task per bucket names the copies to drop;
each partition is rewritten without them.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from opencoder_data.refinecode import storage
from opencoder_data.refinecode.engine import Executor
from opencoder_data.refinecode.keep_rule import RANK_COLUMNS, fill_unknown, sort_keys
from opencoder_data.refinecode.run import Run, partition_writers, run_step
from opencoder_data.refinecode.shuffle import bucket_of_hex, num_buckets, read_bucket, write_buckets

STAGE = "exact_dedup"


def run(run: Run, executor: Executor) -> dict[str, float]:
    parts = range(run.num_parts())
    steps = [run_step(run, executor, STAGE, "keys", write_keys, parts, "exact dedup: hash")]
    steps.append(run_step(run, executor, STAGE, "groups", find_copies, range(_buckets(run)), "exact dedup: group"))
    steps.append(run_step(run, executor, STAGE, "docs", apply, parts, "exact dedup: write"))
    return {key: sum(s[key] for s in steps) for key in steps[0]}


def _buckets(run: Run) -> int:
    rows = sum(c["kept"] for c in run.counts(run.upstream(STAGE)))
    return num_buckets(rows, run.config.layout.shuffle_rows)


def write_keys(run: Run, part: int) -> dict[str, Any]:
    with storage.open_read(run.part(run.upstream(STAGE), "docs", part)) as handle:
        table = pq.ParquetFile(handle).read(columns=["sha256", *RANK_COLUMNS])
    table = table.append_column("part", pa.array(np.full(table.num_rows, part, np.int32)))
    buckets = _buckets(run)
    write_buckets(run.part(STAGE, "keys", part), table, bucket_of_hex(table.column("sha256"), buckets), buckets)
    return {"rows": table.num_rows}


def find_copies(run: Run, bucket: int) -> dict[str, Any]:
    """Writes (part, doc_id, kept) for each copy to drop, sorted by part."""
    urls = [run.part(STAGE, "keys", p) for p in range(run.num_parts())]
    drops = copies(read_bucket(urls, bucket))
    storage.write_table(run.part(STAGE, "copies", bucket), drops)
    return {"rows": drops.num_rows}


def copies(keys: pa.Table) -> pa.Table:
    """`keys` has sha256, part and the ranking columns; returns part, doc_id and `kept`, the doc_id that stays."""
    if keys.num_rows == 0:
        return pa.table(
            {"part": pa.array([], pa.int32()), "doc_id": pa.array([], pa.string()), "kept": pa.array([], pa.string())}
        )
    keys = fill_unknown(keys).sort_by(sort_keys([("sha256", "ascending")])).combine_chunks()
    sha = keys.column("sha256").combine_chunks()
    first = np.ones(len(sha), bool)
    first[1:] = pc.not_equal(sha[1:], sha[:-1]).to_numpy(zero_copy_only=False)  # pyright: ignore[reportAttributeAccessIssue]
    leader = np.maximum.accumulate(np.where(first, np.arange(len(first)), 0))
    ids = keys.column("doc_id")
    table = pa.table({"part": keys.column("part"), "doc_id": ids, "kept": ids.take(pa.array(leader))})
    return table.filter(pa.array(~first)).sort_by([("part", "ascending"), ("doc_id", "ascending")])


def apply(run: Run, part: int) -> dict[str, Any]:
    kept_of: dict[str, str] = {}
    for bucket in range(_buckets(run)):
        with storage.open_read(run.part(STAGE, "copies", bucket)) as handle:
            table = pq.read_table(handle, filters=[("part", "=", part)])
        kept_of.update(zip(table.column("doc_id").to_pylist(), table.column("kept").to_pylist(), strict=True))
    return drop_copies(run, STAGE, part, kept_of, "exact_duplicate")


def drop_copies(run: Run, stage: str, part: int, kept_of: dict[str, str], rule: str) -> dict[str, Any]:
    """Rewrite a partition without the documents in `kept_of` (doc_id -> the copy that stays)."""
    with storage.open_read(run.part(run.upstream(stage), "docs", part)) as handle:
        parquet = pq.ParquetFile(handle)
        with partition_writers(run, stage, part, parquet.schema_arrow) as writers:
            for group in range(parquet.num_row_groups):
                batch = parquet.read_row_group(group)
                ids = batch.column("doc_id").to_pylist()
                rows = zip(ids, batch.column("language").to_pylist(), batch.column("doc_type").to_pylist(), strict=True)
                writers.drop([
                    {"doc_id": i, "language": language, "doc_type": kind, "rule": rule, "detail": f"copy of {kept_of[i]}"}
                    for i, language, kind in rows if i in kept_of
                ])  # fmt: skip
                writers.keep(batch.filter(pa.array([i not in kept_of for i in ids], pa.bool_())))
            return writers.counts()
