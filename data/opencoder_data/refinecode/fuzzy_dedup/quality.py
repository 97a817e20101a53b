"""Recall and precision of the sketch and its banding against exact Jaccard similarity, on documents of this run."""

from typing import Any

import numpy as np
import pyarrow.parquet as pq

from opencoder_data.refinecode import storage
from opencoder_data.refinecode.fuzzy_dedup import candidates, kernels
from opencoder_data.refinecode.fuzzy_dedup.exact_pairs import all_pairs
from opencoder_data.refinecode.fuzzy_dedup.settings import PRESETS, Banding, banding
from opencoder_data.refinecode.fuzzy_dedup.units import units_of_batch
from opencoder_data.refinecode.run import Run

LEVELS = (0.7, 0.8, 0.9, 0.95)
_MINIMUM = 0.5
_MAX_DOCS = 40_000
_MAX_SHINGLES = 40_000_000


def measure_recall(run: Run, stage: str) -> None:
    """Writes `components/recall.json`: for each preset and the configured banding, recall by similarity, precision.

    Takes documents in the order of their ids, which is random, until 40,000 documents or 40 million shingles.
    """
    target = storage.join(run.directory(stage), "components", "recall.json")
    if storage.exists(target):
        return
    sets = _sample(run, stage)
    config = run.config.fuzzy_dedup
    chosen = {"configured": banding(config)} | {name: Banding(*numbers) for name, numbers in PRESETS.items()}
    storage.write_json(target, recall_table(*sets, chosen, config.sketch, config.seed))


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


def recall_table(
    shingles: np.ndarray, offsets: np.ndarray, bandings: dict[str, Banding], sketch: str, seed: int
) -> dict[str, Any]:
    """Measures each banding on one corpus of shingle sets.

    Returns counts of true pairs by similarity and, per banding, candidate pairs, recall at each level, precision at 0.7
    and the recall that the S-curve predicts for the same pairs.
    """
    truth, jaccard = all_pairs(shingles, offsets, _MINIMUM)
    num = len(offsets) - 1
    key_of_truth = truth[:, 0] * num + truth[:, 1]
    filled = np.flatnonzero(np.diff(offsets))
    result: dict[str, Any] = {
        "documents": num,
        "shingles": len(shingles),
        "pairs": {str(level): int((jaccard >= level).sum()) for level in LEVELS},
        "bandings": {},
    }
    for name, band in bandings.items():
        keys = []
        for begin in range(0, len(filled), 4_096):
            part = filled[begin : begin + 4_096]
            low, high = int(part[0]), int(part[-1]) + 1
            local = offsets[low : high + 1] - offsets[low]
            found = kernels.sketches(shingles[offsets[low] : offsets[high]], local, sketch, band.slots, seed)[
                part - low
            ]
            keys.append(kernels.band_keys(found, band.bands, band.rows))
        flat = np.concatenate(keys).ravel() if keys else np.zeros(0, np.uint64)
        units = np.repeat(filled, band.bands)
        pairs = candidates.pairs_of_groups(flat, units, units.astype(np.uint64), all_pairs=True)
        hit = np.isin(key_of_truth, pairs[:, 0] * num + pairs[:, 1])
        curve = np.array([kernels.collision_probability(j, band.bands, band.rows) for j in jaccard])
        levels = {str(level): jaccard >= level for level in LEVELS}
        result["bandings"][name] = {
            "slots": band.slots,
            "bands": band.bands,
            "rows": band.rows,
            "threshold": round(kernels.threshold(band.bands, band.rows), 4),
            "candidate_pairs": len(pairs),
            "recall": {k: round(float(hit[m].mean()), 4) if m.any() else None for k, m in levels.items()},
            "recall_predicted": {k: round(float(curve[m].mean()), 4) if m.any() else None for k, m in levels.items()},
            "precision_at_0.7": round(float((hit & (jaccard >= 0.7)).sum() / len(pairs)), 4) if len(pairs) else None,
        }
    return result
