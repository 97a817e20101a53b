"""Exact Jaccard similarity: of given pairs, and of all pairs of a corpus above a level (what recall is measured against).

All pairs by prefix filter (Chaudhuri et al. 2006, Bayardo et al. 2007): with elements in one global order, rarest first,
two sets of similarity >= t share an element among the first n - ceil(t n) + 1 of each.
"""

import numpy as np
from numba import njit


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


def all_pairs(shingles: np.ndarray, offsets: np.ndarray, minimum: float) -> tuple[np.ndarray, np.ndarray]:
    """(pairs int64 [P, 2], jaccard float64 [P]) of all sets with similarity >= `minimum`.

    `shingles` uint64 [S] with `offsets` int64 [N+1]; memory about 40 bytes a shingle.
    """
    if len(shingles) == 0:
        return np.zeros((0, 2), np.int64), np.zeros(0)
    _, inverse, count = np.unique(shingles, return_inverse=True, return_counts=True)
    rank_of = np.empty(len(count), np.int64)
    rank_of[np.argsort(count, kind="stable")] = np.arange(len(count))
    ranks = rank_of[inverse].astype(np.int64)
    sort_each(ranks, offsets)
    pairs, values = _search(ranks, offsets, minimum, len(count))
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order], values[order]


@njit(cache=True)
def sort_each(values, offsets):
    """Sorts each set, values[offsets[i] : offsets[i + 1]], in place."""
    for i in range(len(offsets) - 1):
        values[offsets[i] : offsets[i + 1]].sort()


@njit(cache=True)
def _search(ranks, offsets, minimum, num_elements):
    num = len(offsets) - 1
    # Linked lists: for each element the documents that have it in their prefix.
    head = np.full(num_elements, -1, np.int64)
    total = 0
    for i in range(num):
        n = offsets[i + 1] - offsets[i]
        total += n - int(np.ceil(minimum * n - 1e-9)) + 1 if n else 0
    follow = np.empty(total, np.int64)
    owner = np.empty(total, np.int64)
    used = 0
    seen = np.full(num, -1, np.int64)
    out = np.empty((1024, 2), np.int64)
    values = np.empty(1024)
    found = 0
    for i in range(num):
        begin, end = offsets[i], offsets[i + 1]
        n = end - begin
        if n == 0:
            continue
        prefix = n - int(np.ceil(minimum * n - 1e-9)) + 1
        for k in range(begin, begin + prefix):
            entry = head[ranks[k]]
            while entry >= 0:
                j = owner[entry]
                entry = follow[entry]
                if seen[j] == i:
                    continue
                seen[j] = i
                m = offsets[j + 1] - offsets[j]
                if min(n, m) < minimum * max(n, m) - 1e-9:
                    continue
                common = 0
                a, b, b_end = begin, offsets[j], offsets[j + 1]
                while a < end and b < b_end:
                    if ranks[a] == ranks[b]:
                        common += 1
                        a += 1
                        b += 1
                    elif ranks[a] < ranks[b]:
                        a += 1
                    else:
                        b += 1
                value = common / (n + m - common)
                if value >= minimum:
                    if found == len(out):
                        more = np.empty((2 * found, 2), np.int64)
                        more[:found] = out
                        out = more
                        more_values = np.empty(2 * found)
                        more_values[:found] = values
                        values = more_values
                    out[found, 0], out[found, 1], values[found] = j, i, value
                    found += 1
        for k in range(begin, begin + prefix):
            owner[used] = i
            follow[used] = head[ranks[k]]
            head[ranks[k]] = used
            used += 1
    return out[:found].copy(), values[:found].copy()
