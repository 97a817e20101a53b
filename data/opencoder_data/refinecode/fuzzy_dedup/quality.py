"""Recall and precision of the sketch and its banding against exact Jaccard similarity, on documents of this run."""

from typing import Any

import numpy as np
import pyarrow.parquet as pq

from opencoder_data.minhash.banding import PRESETS, Banding
from opencoder_data.minhash.recall import recall_table
from opencoder_data.pipeline import storage
from opencoder_data.pipeline.run import Run
from opencoder_data.refinecode.config import FuzzyDedupConfig
from opencoder_data.refinecode.fuzzy_dedup.settings import banding
from opencoder_data.refinecode.fuzzy_dedup.units import units_of_batch

_MAX_DOCS = 40_000
_MAX_SHINGLES = 40_000_000


def measure_recall(run: Run, stage: str, config: FuzzyDedupConfig) -> dict[str, Any]:
    """For each preset and the configured banding: recall by similarity, precision.

    Takes documents in the order of their ids, which is random, until 40,000 documents or 40 million shingles.
    """
    chosen = {"configured": banding(config)} | {name: Banding(*numbers) for name, numbers in PRESETS.items()}
    return recall_table(*_sample(run, stage), chosen, config.sketch, config.seed)


def _sample(run: Run, stage: str) -> tuple[np.ndarray, np.ndarray]:
    upstream = run.upstream(stage)
    ids: list[tuple[str, int, int]] = []
    for part in range(run.num_parts()):
        table = storage.read_table(run.part(upstream, "docs", part), ["doc_id"])
        ids += [(d, part, i) for i, d in enumerate(table.column("doc_id").to_pylist())]
    wanted: dict[int, set[int]] = {}
    for _, part, row in sorted(ids)[:_MAX_DOCS]:
        wanted.setdefault(part, set()).add(row)
    shingles: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    total = 0
    for part, rows in sorted(wanted.items()):
        first = 0
        with storage.open_read(run.part(upstream, "docs", part)) as handle:
            parquet = pq.ParquetFile(handle)
            for group in range(parquet.num_row_groups):
                batch = parquet.read_row_group(group)
                take = [i for i in range(batch.num_rows) if first + i in rows]
                first += batch.num_rows
                units = units_of_batch(batch.take(take), 0, "file", 0)
                if total + len(units.shingles) > _MAX_SHINGLES:
                    break
                total += len(units.shingles)
                shingles.append(units.shingles)
                lengths.append(np.diff(units.offsets))
    if not shingles:
        return np.zeros(0, np.uint64), np.zeros(1, np.int64)
    return np.concatenate(shingles), np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
