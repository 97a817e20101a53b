"""Text to shingle set to sketch to band keys, in numba over the UTF-8 bytes of an Arrow buffer.

A word is a maximal run of ASCII letters, digits, underscore and non-ASCII bytes; a shingle is the 64-bit hash of five
words in a row (a text of one to four words is one shingle; a text without words has none). The paper says 5-grams and
neither of what nor with which hash.

Fast Similarity Sketching: Dahlgaard, Knudsen, Thorup, FOCS 2017, figure 1: t bins; in round i < t each element enters a
bin drawn by hash with the value (i, hash), in round t + j bin j; a bin keeps its least value; rounds end when all bins
are filled. As an estimator it is at least as good as t independent MinHashes, at a cost of t log t + n in place of t n.
"""

import math

import numpy as np
from numba import njit

NGRAM = 5

_U = np.uint64
_MIX1, _MIX2 = _U(0xFF51AFD7ED558CCD), _U(0xC4CEB9FE1A85EC53)
_GOLDEN = _U(0x9E3779B97F4A7C15)
_WORD_SEED, _WORD_MUL = _U(0xCBF29CE484222325), _U(0x100000001B3)
_GRAM = np.array(
    [0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5], np.uint64
)
_IS_WORD = np.array([(chr(c).isalnum() and c < 128) or c == 95 or c >= 128 for c in range(256)])
_EMPTY = np.uint32(0xFFFFFFFF)
_CHUNK = 1024
_S33, _S32, _S29 = _U(33), _U(32), _U(29)
_LOW32 = _U(0xFFFFFFFF)


@njit(inline="always")
def _mix(h):
    h ^= h >> _S33
    h *= _MIX1
    h ^= h >> _S33
    h *= _MIX2
    return h ^ (h >> _S33)


@njit(cache=True)
def _words(data, start, end, out):
    """Word hashes of bytes [start, end); returns their number."""
    count = 0
    position = start
    while position < end:
        while position < end and not _IS_WORD[data[position]]:
            position += 1
        if position == end:
            break
        h = _WORD_SEED
        while position < end and _IS_WORD[data[position]]:
            h = (h ^ _U(data[position])) * _WORD_MUL
            position += 1
        out[count] = h ^ (h >> _S29)
        count += 1
    return count


@njit(cache=True)
def shingle_sets(data, starts, ends):
    """Distinct shingles of each text.

    Args:
      data: uint8 [bytes], UTF-8.
      starts, ends: int64 [N], byte ranges of the texts.

    Returns:
      (shingles uint64 [S], offsets int64 [N+1]); order within a text is that of first occurrence.
    """
    num = len(starts)
    longest = 1
    total = 0
    for i in range(num):
        length = ends[i] - starts[i]
        longest = max(longest, length)
        total += length // 2 + 1
    words = np.empty(longest // 2 + 1, np.uint64)
    out = np.empty(total, np.uint64)
    offsets = np.zeros(num + 1, np.int64)
    size = 16
    while size < longest + 2:
        size *= 2
    table = np.zeros(size, np.uint64)
    used = 0
    for i in range(num):
        count = _words(data, starts[i], ends[i], words)
        begin = used
        if count:
            grams = max(count - NGRAM + 1, 1)
            width = min(count, NGRAM)
            # A table at most half full, cleared by its own size rather than the largest.
            slots = 16
            while slots < 2 * grams:
                slots *= 2
            mask = _U(slots - 1)
            for s in range(slots):
                table[s] = _U(0)
            for g in range(grams):
                h = _U(width)
                for w in range(width):
                    h += words[g + w] * _GRAM[w]
                h = _mix(h)
                if h == _U(0):
                    h = _U(1)
                slot = h & mask
                while table[slot] != _U(0) and table[slot] != h:
                    slot = (slot + _U(1)) & mask
                if table[slot] == _U(0):
                    table[slot] = h
                    out[used] = h
                    used += 1
        offsets[i + 1] = offsets[i] + used - begin
    return out[:used].copy(), offsets


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
            key = (_U(r) + _U(seed)) * _GOLDEN
            start = begin
            while start < end:
                # Hashes first, then the scattered minima: the first loop is vectorised.
                size = min(_CHUNK, end - start)
                part = shingles[start : start + size]
                for s in range(size):
                    h = (part[s] ^ key) * _MIX1
                    h ^= h >> _S32
                    h *= _MIX2
                    h ^= h >> _S32
                    bins[0, s] = np.uint32(((h >> _S32) * num_bins) >> _S32)
                    values[0, s] = np.uint32(h >> _S32) & value_mask
                    bins[1, s] = np.uint32(((h & _LOW32) * num_bins) >> _S32)
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
                    key = (_U(slots + j) + _U(seed)) * _GOLDEN
                    least = _EMPTY
                    for s in range(begin, end):
                        h = _mix(shingles[s] ^ key)
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
            x = np.uint32(shingles[s] >> _S32)
            for j in range(slots):
                value = np.uint32((x ^ masks[j]) * multipliers[j])
                sketch[j] = min(sketch[j], value)
    return out


@njit(cache=True)
def band_keys(sketches, bands, rows):
    """uint64 [N, bands]: hash of the band's number and its rows. `sketches` uint32 [N, >= bands * rows]."""
    num = len(sketches)
    out = np.empty((num, bands), np.uint64)
    for i in range(num):
        for b in range(bands):
            h = _U(b + 1) * _GOLDEN
            for r in range(rows):
                h = (h ^ _U(sketches[i, b * rows + r])) * _MIX1
                h ^= h >> _S32
            out[i, b] = _mix(h)
    return out


@njit(cache=True)
def sort_sets(shingles, offsets):
    """Sort each set in place."""
    for i in range(len(offsets) - 1):
        shingles[offsets[i] : offsets[i + 1]].sort()


@njit(cache=True)
def jaccard_of_pairs(shingles, offsets, left, right):
    """Exact Jaccard similarity of sets left[i] and right[i], each sorted. Returns float64 [P]."""
    out = np.zeros(len(left))
    for p in range(len(left)):
        i, i_end = offsets[left[p]], offsets[left[p] + 1]
        j, j_end = offsets[right[p]], offsets[right[p] + 1]
        size = (i_end - i) + (j_end - j)
        common = 0
        while i < i_end and j < j_end:
            a, b = shingles[i], shingles[j]
            if a == b:
                common += 1
                i += 1
                j += 1
            elif a < b:
                i += 1
            else:
                j += 1
        if size:
            out[p] = common / (size - common)
    return out


def collision_probability(jaccard: float, bands: int, rows: int) -> float:
    """The S-curve: probability that at least one band of two sets agrees."""
    return 1.0 - (1.0 - jaccard**rows) ** bands


def threshold(bands: int, rows: int) -> float:
    """Jaccard similarity at the steepest point of the S-curve, (1/bands)^(1/rows)."""
    return math.pow(1.0 / bands, 1.0 / rows)


def sketches(shingles: np.ndarray, offsets: np.ndarray, sketch: str, slots: int, seed: int) -> np.ndarray:
    """uint32 [U, slots] by the configured method."""
    if sketch == "fss":
        return fast_similarity_sketch(shingles, offsets, slots, seed)
    return min_hash(shingles, offsets, *permutations(slots, seed))
