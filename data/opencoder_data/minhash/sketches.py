"""Sets of shingles to sketches: the share of equal slots of two sketches estimates the Jaccard similarity of the sets.

Fast Similarity Sketching: Dahlgaard, Knudsen, Thorup, FOCS 2017, figure 1: t bins; in round i < t each element enters a
bin drawn by hash with the value (i, hash), in round t + j bin j; a bin keeps its least value; rounds end when all bins
are filled. As an estimator it is at least as good as t independent MinHashes, at a cost of t log t + n in place of t n.
"""

import numpy as np
from numba import njit

from opencoder_data.minhash.hashing import GOLDEN, MIX1, MIX2, S32, mix

METHODS = ("fss", "minhash")

_U = np.uint64
_EMPTY = np.uint32(0xFFFFFFFF)
_CHUNK = 1024
_LOW32 = _U(0xFFFFFFFF)


def sketches(shingles: np.ndarray, offsets: np.ndarray, sketch: str, slots: int, seed: int) -> np.ndarray:
    """uint32 [N, slots] by Fast Similarity Sketching (``fss``) or classic MinHash (``minhash``).

    shingles uint64 [S] with offsets int64 [N+1]; an empty set has all slots at 2**32 - 1.
    """
    if sketch == "fss":
        return fast_similarity_sketch(shingles, offsets, slots, seed)
    return min_hash(shingles, offsets, *permutations(slots, seed))


@njit(cache=True, error_model="numpy")
def fast_similarity_sketch(shingles, offsets, slots, seed):
    """Fast Similarity Sketching.

    Args:
      shingles: uint64 [S]; offsets: int64 [N+1].
      slots: number of bins t, at most 2**15.
      seed: any uint64.

    Returns:
      uint32 [N, t]. Of two sketches the share of equal bins estimates the Jaccard similarity of the sets. An empty set
      has all bins at 2**32 - 1.
    """
    num = len(offsets) - 1
    out = np.full((num, slots), _EMPTY, np.uint32)
    round_bits = 1
    while (1 << round_bits) < 2 * slots:
        round_bits += 1
    shift = _U(32 - round_bits)
    value_mask = np.uint32((_U(1) << shift) - _U(1))
    num_bins = _U(slots)
    bins = np.empty((2, _CHUNK), np.uint32)
    values = np.empty((2, _CHUNK), np.uint32)
    for i in range(num):
        begin, end = offsets[i], offsets[i + 1]
        if begin == end:
            continue
        sketch = out[i]
        filled = 0
        r = 0
        # Two rounds from one 64-bit hash: each half draws a bin by its high bits and a value by its low bits. Both
        # rounds are finished before the count is looked at: a bin keeps its value of the first round that filled it.
        while filled < slots and r < slots:
            key = (_U(r) + _U(seed)) * GOLDEN
            start = begin
            while start < end:
                # Hashes first, then the scattered minima: the first loop is vectorised.
                size = min(_CHUNK, end - start)
                part = shingles[start : start + size]
                for s in range(size):
                    h = (part[s] ^ key) * MIX1
                    h ^= h >> S32
                    h *= MIX2
                    h ^= h >> S32
                    bins[0, s] = np.uint32(((h >> S32) * num_bins) >> S32)
                    values[0, s] = np.uint32(h >> S32) & value_mask
                    bins[1, s] = np.uint32(((h & _LOW32) * num_bins) >> S32)
                    values[1, s] = np.uint32(h) & value_mask
                for half in range(2):
                    first = np.uint32(_U(r + half) << shift)
                    for s in range(size):
                        place = bins[half, s]
                        value = first | values[half, s]
                        held = sketch[place]
                        if value < held:
                            filled += held == _EMPTY
                            sketch[place] = value
                start += size
            r += 2
        if filled < slots:
            for j in range(slots):
                if sketch[j] == _EMPTY:
                    key = (_U(slots + j) + _U(seed)) * GOLDEN
                    least = _EMPTY
                    for s in range(begin, end):
                        h = mix(shingles[s] ^ key)
                        least = min(least, np.uint32(_U(slots + j) << shift) | (np.uint32(h) & value_mask))
                    sketch[j] = least
    return out


def permutations(slots: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks and odd multipliers of `min_hash`, uint32 [slots] each."""
    rng = np.random.default_rng(seed)
    return (
        rng.integers(0, 2**32, slots, np.uint32),
        rng.integers(0, 2**31, slots, np.uint32) * np.uint32(2) + np.uint32(1),
    )


@njit(cache=True)
def min_hash(shingles, offsets, masks, multipliers):
    """Classic MinHash, the published method: slot j holds the least of `(x ^ mask_j) * multiplier_j` modulo 2**32.

    Returns uint32 [N, slots].
    """
    num, slots = len(offsets) - 1, len(masks)
    out = np.full((num, slots), _EMPTY, np.uint32)
    for i in range(num):
        sketch = out[i]
        for s in range(offsets[i], offsets[i + 1]):
            x = np.uint32(shingles[s] >> S32)
            for j in range(slots):
                value = np.uint32((x ^ masks[j]) * multipliers[j])
                sketch[j] = min(sketch[j], value)
    return out
