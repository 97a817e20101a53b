"""Near-duplicate pairs of texts in memory: shingles, sketches, bands, candidates, verification in one call."""

import numpy as np

from opencoder_data.minhash.banding import PRESETS, Banding, band_keys
from opencoder_data.minhash.candidates import pairs_of_groups
from opencoder_data.minhash.shingles import NGRAM, Texts, shingles_of
from opencoder_data.minhash.sketches import sketches
from opencoder_data.minhash.verification import jaccard_of_pairs, sort_each

_SLICE = 4_096


def near_pairs(
    texts: Texts,
    *,
    ngram: int = NGRAM,
    banding: Banding | None = None,
    method: str = "fss",
    min_jaccard: float = 0.7,
    seed: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of texts whose sets of runs have at least `min_jaccard` in common, as far as the banding finds them.

    Args:
      texts: N texts; about 8 bytes of memory for each of their runs.
      banding: default the preset ``128x16``.
      method: of the sketches, ``fss`` or ``minhash``.

    Returns:
      (pairs int64 [P, 2], distinct and sorted; Jaccard similarity float64 [P], exact).
    """
    band = banding or Banding(*PRESETS["128x16"])
    shingles, offsets = shingles_of(texts, ngram)
    keys, units = band_keys_of_sets(shingles, offsets, band, method, seed)
    pairs = pairs_of_groups(keys, units, units.astype(np.uint64), all_pairs=True)
    sort_each(shingles, offsets)
    jaccard = jaccard_of_pairs(shingles, offsets, pairs[:, 0], pairs[:, 1])
    keep = jaccard >= min_jaccard
    return pairs[keep], jaccard[keep]


def band_keys_of_sets(
    shingles: np.ndarray, offsets: np.ndarray, band: Banding, method: str, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(keys uint64 [K], units int64 [K]): every band of every set that is not empty, sets in order; bands per set."""
    keys, units = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    filled = np.flatnonzero(np.diff(offsets))
    # In slices: 2,048 slots are 8 KB a set.
    for begin in range(0, len(filled), _SLICE):
        chosen = filled[begin : begin + _SLICE]
        low, high = int(chosen[0]), int(chosen[-1]) + 1
        part = shingles[offsets[low] : offsets[high]]
        sketch = sketches(part, offsets[low : high + 1] - offsets[low], method, band.slots, seed)[chosen - low]
        keys.append(band_keys(sketch, band.bands, band.rows).ravel())
        units.append(np.repeat(chosen, band.bands))
    return np.concatenate(keys), np.concatenate(units)
