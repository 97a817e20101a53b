"""Stage 3: SHA-256 of the raw file; one copy of each stays (`keep_rule`)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from opencoder_data.pipeline import storage
from opencoder_data.pipeline.run import Run, Steps, map_documents
from opencoder_data.pipeline.shuffle import bucket_of_hex, num_buckets, read_bucket, write_buckets
from opencoder_data.pipeline.stage import Outcome
from opencoder_data.refinecode.config import ExactDedupConfig
from opencoder_data.refinecode.keep_rule import RANK_COLUMNS, fill_unknown, sort_keys


@dataclass(frozen=True)
class ExactDedup:
    """Steps: ``keys`` of each partition, sorted by bucket of the hash; ``copies`` to drop, by bucket; ``docs`` without them."""

    config: ExactDedupConfig = field(default_factory=ExactDedupConfig)
    name: ClassVar[str] = "exact_dedup"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ()

    def validate(self) -> None:
        """There is nothing to choose."""

    def run(self, steps: Steps) -> None:
        steps.each(self.write_keys)
        steps.each(self.write_copies, range(self._buckets(steps.run)))
        steps.each(self.write_docs)

    def _buckets(self, run: Run) -> int:
        return num_buckets(run.num_documents(run.upstream(self.name)), run.layout.shuffle_rows)

    def write_keys(self, run: Run, part: int) -> dict[str, Any]:
        """Hash and ranking columns of the documents of a partition."""
        table = storage.read_table(run.part(run.upstream(self.name), "docs", part), ["sha256", *RANK_COLUMNS])
        table = table.append_column("part", pa.array(np.full(table.num_rows, part, np.int32)))
        buckets = self._buckets(run)
        write_buckets(run.part(self.name, "keys", part), table, bucket_of_hex(table.column("sha256"), buckets), buckets)
        return {"rows": table.num_rows}

    def write_copies(self, run: Run, bucket: int) -> dict[str, Any]:
        """(part, doc_id, kept) for each copy to drop, sorted by part."""
        urls = [run.part(self.name, "keys", p) for p in range(run.num_parts())]
        drops = copies(read_bucket(urls, bucket))
        storage.write_table(run.part(self.name, "copies", bucket), drops)
        return {"rows": drops.num_rows}

    def write_docs(self, run: Run, part: int) -> dict[str, Any]:
        kept_of: dict[str, str] = {}
        for bucket in range(self._buckets(run)):
            with storage.open_read(run.part(self.name, "copies", bucket)) as handle:
                table = pq.read_table(handle, filters=[("part", "=", part)])
            kept_of.update(zip(table.column("doc_id").to_pylist(), table.column("kept").to_pylist(), strict=True))
        return map_documents(run, self.name, part, lambda batch: decide(batch, kept_of, "exact_duplicate"))


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


def decide(batch: pa.Table, kept_of: Mapping[str, str], rule: str) -> Outcome:
    """A batch without the documents in `kept_of` (doc_id -> the copy that stays)."""
    ids = batch.column("doc_id").to_pylist()
    rows = zip(ids, batch.column("language").to_pylist(), batch.column("doc_type").to_pylist(), strict=True)
    drops = [
        {"doc_id": i, "language": language, "doc_type": kind, "rule": rule, "detail": f"copy of {kept_of[i]}"}
        for i, language, kind in rows
        if i in kept_of
    ]
    return Outcome(batch.filter(pa.array([i not in kept_of for i in ids], pa.bool_())), drops)
