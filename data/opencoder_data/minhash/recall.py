"""Recall and precision of sketches and bandings against exact Jaccard similarity."""

from typing import Any

import numpy as np

from opencoder_data.minhash import candidates
from opencoder_data.minhash.banding import Banding, collision_probability, threshold
from opencoder_data.minhash.near_pairs import band_keys_of_sets
from opencoder_data.minhash.verification import all_pairs

LEVELS = (0.7, 0.8, 0.9, 0.95)
_MINIMUM = 0.5


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
    result: dict[str, Any] = {
        "documents": num,
        "shingles": len(shingles),
        "pairs": {str(level): int((jaccard >= level).sum()) for level in LEVELS},
        "bandings": {},
    }
    for name, band in bandings.items():
        flat, units = band_keys_of_sets(shingles, offsets, band, sketch, seed)
        pairs = candidates.pairs_of_groups(flat, units, units.astype(np.uint64), all_pairs=True)
        hit = np.isin(key_of_truth, pairs[:, 0] * num + pairs[:, 1])
        curve = np.array([collision_probability(j, band.bands, band.rows) for j in jaccard])
        levels = {str(level): jaccard >= level for level in LEVELS}
        result["bandings"][name] = {
            "slots": band.slots,
            "bands": band.bands,
            "rows": band.rows,
            "threshold": round(threshold(band.bands, band.rows), 4),
            "candidate_pairs": len(pairs),
            "recall": {k: round(float(hit[m].mean()), 4) if m.any() else None for k, m in levels.items()},
            "recall_predicted": {k: round(float(curve[m].mean()), 4) if m.any() else None for k, m in levels.items()},
            "precision_at_0.7": round(float((hit & (jaccard >= 0.7)).sum() / len(pairs)), 4) if len(pairs) else None,
        }
    return result
