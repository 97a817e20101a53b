"""Linear-time loops over code points, compiled by numba: character counts, lines, words, word n-grams.

Every function takes text as a uint32 array of code points (one specialisation serves ASCII and Unicode) and runs in
time proportional to its length, so that no input can make one of them slow.
"""

import numpy as np
from numba import njit

# Classes of code points, as bits of one uint8 table (see `document_view.class_table`).
# WORD: \w of the module `regex` (Unicode), RE_WORD: \w of `re`; CAPITAL and SMALL as `str.isupper` has them.
SPACE, ALPHA, DIGIT, WORD, DELETED, RE_WORD, CAPITAL, SMALL = (1 << i for i in range(8))

_MIX1 = np.uint64(0x9E3779B97F4A7C15)
_MIX2 = np.uint64(0xD6E8FEB86659FD93)
_S32 = np.uint64(32)
_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)


@njit(cache=True, inline="always")
def mix(x):
    x ^= x >> _S32
    x *= _MIX2
    x ^= x >> _S32
    return x


@njit(cache=True, inline="always")
def hash_step(h, c):
    """Hash of a text and one more character; `mix` ends it."""
    return (h ^ np.uint64(c)) * _MIX1


@njit(cache=True)
def depth(cp):
    """Largest excess of opening over closing brackets of any prefix, or of closing over opening ones of any suffix."""
    level = 0
    low = 0
    best = 0
    for i in range(cp.size):
        c = cp[i]
        if c == 40 or c == 91 or c == 123:
            level += 1
            best = max(best, level - low)
        elif c == 41 or c == 93 or c == 125:
            level -= 1
            low = min(low, level)
    return max(best, -low)


@njit(cache=True)
def operator_run(cp, mask):
    """Longest run of one of ~ + - * ! & < outside comments and strings (mask 0), whitespace between apart."""
    best = 0
    run = 0
    last = 0
    for i in range(cp.size):
        if mask[i] != 0:
            continue
        c = cp[i]
        if c == 32 or c == 9 or c == 10 or c == 13:
            continue
        if c == last:
            run += 1
        else:
            run = 1
            last = c
        if c == 126 or c == 43 or c == 45 or c == 42 or c == 33 or c == 38 or c == 60:
            best = max(best, run)
    return best


@njit(cache=True)
def line_spans(cp):
    """Start and end of every line; the end includes its newline; a text without trailing newline ends in a line too."""
    n = cp.size
    count = 0
    for i in range(n):
        if cp[i] == 10:
            count += 1
    if n and cp[n - 1] != 10:
        count += 1
    spans = np.empty((count, 2), np.int64)
    start = 0
    k = 0
    for i in range(n):
        if cp[i] == 10:
            spans[k, 0] = start
            spans[k, 1] = i + 1
            k += 1
            start = i + 1
    if start < n:
        spans[k, 0] = start
        spans[k, 1] = n
    return spans


@njit(cache=True)
def line_hashes(cp, spans, table, inner_space):
    """Per line: hash and number of characters after whitespace is removed (everywhere, or at both ends only).

    Returns (hash uint64[L], length int64[L]); a line of whitespace has length 0.
    """
    num = spans.shape[0]
    hashes = np.empty(num, np.uint64)
    lengths = np.empty(num, np.int64)
    for k in range(num):
        a, b = spans[k, 0], spans[k, 1]
        while a < b and table[cp[a]] & SPACE:
            a += 1
        while b > a and table[cp[b - 1]] & SPACE:
            b -= 1
        h = np.uint64(0x243F6A8885A308D3)
        m = 0
        for i in range(a, b):
            c = cp[i]
            if not inner_space and table[c] & SPACE:
                continue
            h = hash_step(h, c)
            m += 1
        hashes[k] = mix(h)
        lengths[k] = m
    return hashes, lengths


@njit(cache=True)
def _slots(n):
    """Size of a hash table for n keys: a power of two, at least 2 n."""
    size = 16
    while size < 2 * n:
        size *= 2
    return size


@njit(cache=True)
def _group(keys, slots, owners, ids, first, counts):
    """`group_ids` into arrays that are there: ids, first (position of the first occurrence) and counts hold an entry per
    key; slots uint64 and owners int32 at least `_slots(keys.size)`. Returns the number of distinct keys."""
    n = keys.size
    size = _slots(n)
    slots[:size] = _EMPTY
    mask = np.uint64(size - 1)
    u = 0
    for i in range(n):
        key = keys[i]
        if key == _EMPTY:
            key = np.uint64(0)
        j = key * _MIX1
        j = (j ^ (j >> _S32)) & mask
        while slots[j] != key and slots[j] != _EMPTY:
            j = (j + np.uint64(1)) & mask
        if slots[j] == _EMPTY:
            slots[j] = key
            owners[j] = u
            first[u] = i
            counts[u] = 0
            u += 1
        s = owners[j]
        ids[i] = s
        counts[s] += 1
    return u


@njit(cache=True)
def group_ids(keys):
    """Dense ids in order of first occurrence and their counts: (ids int32[n], counts int32[u])."""
    n = keys.size
    size = _slots(n)
    ids = np.empty(n, np.int32)
    counts = np.empty(n, np.int32)
    u = _group(keys, np.empty(size, np.uint64), np.empty(size, np.int32), ids, np.empty(n, np.int32), counts)
    return ids, counts[:u].copy()


@njit(cache=True)
def words(cp, table, lower):
    """Split into runs of word characters and runs of other visible characters, as NLTK's word-punct does.

    `table` bits: SPACE separates, DELETED is skipped (it neither separates nor counts), WORD marks word characters.
    `lower` folds A-Z. Returns (hash uint64[W], length int32[W]).
    """
    n = cp.size
    hashes = np.empty(n, np.uint64)
    lengths = np.empty(n, np.int32)
    w = 0
    kind = 0  # 0 outside, 1 word, 2 other
    h = np.uint64(0)
    m = 0
    for i in range(n):
        c = cp[i]
        k = table[c]
        if k & DELETED:
            continue
        now = 0 if k & SPACE else (1 if k & WORD else 2)
        if now != kind:
            if kind:
                hashes[w] = mix(h)
                lengths[w] = m
                w += 1
            kind = now
            h = np.uint64(0x13198A2E03707344)
            m = 0
        if now:
            if lower and c >= 65 and c <= 90:
                c += np.uint32(32)
            h = hash_step(h, c)
            m += 1
    if kind:
        hashes[w] = mix(h)
        lengths[w] = m
        w += 1
    return hashes[:w].copy(), lengths[:w].copy()


@njit(cache=True)
def ngram_shares(ids, counts, lengths):
    """Shares of word characters in repeated word n-grams.

    ids int32[W]: dense word ids, counts int32[U], lengths int32[W] in characters.
    Returns float64[11]: entry n (2..4) is the share of the most frequent n-gram (characters x count / word characters,
    the first of equals; 0 when nothing repeats), entry n (5..10) the share covered by n-grams that occur at least
    twice, overlaps counted once. An n-gram can repeat only where its first n-1 words repeat, so each level looks only
    at the survivors of the one before; ids make the comparison exact.
    """
    out = np.zeros(11)
    num = ids.size
    before = np.empty(num + 1, np.int64)  # characters of the words before this one
    before[0] = 0
    at = np.empty(num, np.int32)  # where the n-grams that occur again start, and their ids
    gram = np.empty(num, np.int32)
    m = 0
    for i in range(num):
        before[i + 1] = before[i] + lengths[i]
        if counts[ids[i]] > 1:
            at[m] = i
            gram[m] = ids[i]
            m += 1
    total = before[num]
    if total == 0 or m == 0:
        return out
    keys = np.empty(m, np.uint64)
    sub, first, count = np.empty(m, np.int32), np.empty(m, np.int32), np.empty(m, np.int32)
    slots, owners = np.empty(_slots(m), np.uint64), np.empty(_slots(m), np.int32)
    for n in range(2, 11):
        k = 0
        for j in range(m - 1):
            # the n-gram's tail must repeat too; after n = 2 it is the next entry, if that starts at the next word
            if at[j + 1] == at[j] + 1 and at[j] + n <= num:
                keys[k] = (np.uint64(gram[j]) << _S32) | np.uint64(ids[at[j] + n - 1])
                at[k] = at[j]
                k += 1
        u = _group(keys[:k], slots, owners, sub, first, count)
        best = 0
        for s in range(1, u):
            if count[s] > count[best]:
                best = s
        if u == 0 or count[best] < 2:
            break
        if n <= 4:
            start = at[first[best]]
            out[n] = (before[start + n] - before[start]) * count[best] / total
        m = 0
        reach = 0  # first word not covered by a repeated n-gram seen so far
        chars = 0
        for j in range(k):
            if count[sub[j]] > 1:
                start = at[j]
                chars += before[start + n] - before[max(start, reach)]
                reach = start + n
                at[m] = start
                gram[m] = sub[j]
                m += 1
        if n > 4:
            out[n] = chars / total
    return out
