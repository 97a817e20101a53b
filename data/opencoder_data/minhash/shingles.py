"""Texts to sets of shingles, in numba over the UTF-8 bytes of an Arrow buffer.

A word is a maximal run of ASCII letters, digits, underscore and non-ASCII bytes; a shingle is the 64-bit hash of n words in
a row (a text of fewer words is one shingle; a text without words has none). The paper says 5-grams and neither of what nor
with which hash.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numba import njit

from opencoder_data.minhash.hashing import S29, mix

NGRAM = 5

_U = np.uint64
_WORD_SEED, _WORD_MUL = _U(0xCBF29CE484222325), _U(0x100000001B3)
_GRAM = np.array(
    [0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5], np.uint64
)
_IS_WORD = np.array([(chr(c).isalnum() and c < 128) or c == 95 or c >= 128 for c in range(256)])

Texts = pa.ChunkedArray | pa.Array | Sequence[str]


def text_buffer(column: pa.ChunkedArray | pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """UTF-8 bytes uint8 [*] and offsets int64 [N+1] of a large_string column, without a copy where it has one chunk."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], pa.large_string())
    buffers = array.buffers()
    offsets = np.frombuffer(buffers[1], np.int64)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(buffers[2], np.uint8) if buffers[2] is not None else np.zeros(0, np.uint8)
    if len(offsets) == 0:
        offsets = np.zeros(1, np.int64)
    return data, offsets


def shingles_of(texts: Texts, ngram: int = NGRAM) -> tuple[np.ndarray, np.ndarray]:
    """`shingle_sets` of whole texts: Arrow strings or a sequence of str; null is an empty text."""
    column = pa.array(texts, pa.large_string()) if isinstance(texts, Sequence) else texts.cast(pa.large_string())
    data, offsets = text_buffer(column.fill_null("") if column.null_count else column)
    return shingle_sets(data, offsets[:-1].copy(), offsets[1:].copy(), ngram)


def shingle_sets(
    data: np.ndarray, starts: np.ndarray, ends: np.ndarray, ngram: int = NGRAM
) -> tuple[np.ndarray, np.ndarray]:
    """Distinct shingles of each text.

    Args:
      data: uint8 [bytes], UTF-8.
      starts, ends: int64 [N], byte ranges of the texts.
      ngram: words in a shingle.

    Returns:
      (shingles uint64 [S], offsets int64 [N+1]); order within a text is that of first occurrence.

    Raises: ValueError for an `ngram` below 1.
    """
    if ngram < 1:
        raise ValueError(f"ngram must be at least 1, not {ngram}")
    return _shingle_sets(data, starts, ends, _factors(ngram))


def _factors(ngram: int) -> np.ndarray:
    """An odd factor for each place in a run, uint64 [ngram]: the five published primes of xxHash, then drawn ones."""
    if ngram <= len(_GRAM):
        return _GRAM[:ngram]
    more = np.random.default_rng(0).integers(0, 2**64, ngram - len(_GRAM), np.uint64)
    return np.concatenate([_GRAM, more | _U(1)])


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
        out[count] = h ^ (h >> S29)
        count += 1
    return count


@njit(cache=True)
def _shingle_sets(data, starts, ends, grams):
    """As `shingle_sets`; `grams` uint64 [n]: a factor for each place in a run."""
    num, ngram = len(starts), len(grams)
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
            runs = max(count - ngram + 1, 1)
            width = min(count, ngram)
            # A table at most half full, cleared by its own size rather than the largest.
            slots = 16
            while slots < 2 * runs:
                slots *= 2
            mask = _U(slots - 1)
            for s in range(slots):
                table[s] = _U(0)
            for g in range(runs):
                h = _U(width)
                for w in range(width):
                    h += words[g + w] * grams[w]
                h = mix(h)
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
