"""Candidate pairs from band keys, and connected components of pairs."""

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

GROUP_LIMIT = 48
"""In a larger group of equal keys only pairs with its first member and with the next one are formed."""


def pairs_of_groups(keys: np.ndarray, units: np.ndarray, order: np.ndarray, all_pairs: bool) -> np.ndarray:
    """Pairs of units that share a key.

    Args:
      keys: uint64 [M]; units: int64 [M]; order: uint64 [M], ranks members within a group independently of partitioning.
      all_pairs: every pair of a group (needed when pairs are verified one by one), or only those with its first member
        (the same components when they are not).

    Returns:
      int64 [P, 2], distinct, smaller unit first, sorted.
    """
    sort = np.lexsort((order, keys))
    keys, units = keys[sort], units[sort]
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]]) if len(keys) else np.zeros(0, np.int64)
    sizes = np.diff(np.r_[starts, len(keys)])
    found: list[np.ndarray] = []
    for size in np.unique(sizes[sizes > 1]):
        first = starts[sizes == size]
        if not all_pairs:
            left, right = np.zeros(size - 1, np.int64), np.arange(1, size)
        elif size <= GROUP_LIMIT:
            left, right = np.triu_indices(size, 1)
        else:
            left = np.r_[np.zeros(size - 1, np.int64), np.arange(1, size - 1)]
            right = np.r_[np.arange(1, size), np.arange(2, size)]
        a, b = units[first[:, None] + left], units[first[:, None] + right]
        found.append(np.stack([np.minimum(a, b).ravel(), np.maximum(a, b).ravel()], 1))
    return distinct_pairs(found)


def distinct_pairs(found: list[np.ndarray]) -> np.ndarray:
    """Union of pair lists, each int64 [*, 2]."""
    found = [f for f in found if len(f)]
    if not found:
        return np.zeros((0, 2), np.int64)
    pairs = np.concatenate(found)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    keep = np.r_[True, np.any(pairs[1:] != pairs[:-1], 1)]
    pairs = pairs[keep]
    return pairs[pairs[:, 0] != pairs[:, 1]]


def components(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Connected components of a graph given by its edges.

    Returns:
      (units int64 [U], sorted, all that occur; component int64 [U], numbered from 0).
    """
    units, index = np.unique(pairs, return_inverse=True)
    if len(units) == 0:
        return units.astype(np.int64), np.zeros(0, np.int64)
    index = index.reshape(pairs.shape)
    graph = coo_matrix((np.ones(len(pairs), np.int8), (index[:, 0], index[:, 1])), shape=(len(units), len(units)))
    _, labels = connected_components(graph, directed=False)
    return units, labels.astype(np.int64)
