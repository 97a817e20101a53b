"""Which of many texts repeat much of one of a few others: held-out files in training text, benchmarks in a corpus.

Exact, by the runs of words (n-grams) of both. Unlike Jaccard similarity the measure, shared runs / runs of the indexed text,
does not fall when the indexed text is a part of a longer one.
"""

from typing import NamedTuple

import numpy as np

from opencoder_data.minhash.shingles import NGRAM, Texts, shingles_of


class Overlaps(NamedTuple):
    """Pairs of a text and an indexed text with runs in common, one row each, by text and then by indexed text.

    text, indexed: int64 [P], positions; shared: int64 [P], distinct runs in common; share: float64 [P], of the indexed
    text's runs.
    """

    text: np.ndarray
    indexed: np.ndarray
    shared: np.ndarray
    share: np.ndarray


class OverlapIndex:
    """Index of the distinct runs of `ngram` words of some texts (40 bytes a run). Build it once, ask for batches."""

    def __init__(self, texts: Texts, ngram: int = NGRAM):
        self.ngram = ngram
        shingles, offsets = shingles_of(texts, ngram)
        self.sizes = np.diff(offsets)
        """int64 [N]: runs of each indexed text."""
        owner = np.repeat(np.arange(len(self.sizes)), self.sizes)
        order = np.argsort(shingles, kind="stable")
        self._owner = owner[order]
        self._values, self._starts = np.unique(shingles[order], return_index=True)
        self._ends = np.append(self._starts[1:], len(order))

    def overlaps(self, texts: Texts) -> Overlaps:
        """All pairs of a text and an indexed text that share a run."""
        return self._pairs(*shingles_of(texts, self.ngram))

    def overlap(self, texts: Texts) -> np.ndarray:
        """float64 [N]: the largest share of one indexed text's runs that each text holds."""
        shingles, offsets = shingles_of(texts, self.ngram)
        result = np.zeros(len(offsets) - 1)
        found = self._pairs(shingles, offsets)
        np.maximum.at(result, found.text, found.share)
        return result

    def _pairs(self, shingles: np.ndarray, offsets: np.ndarray) -> Overlaps:
        if not len(self._values) or not len(shingles):
            none = np.zeros(0, np.int64)
            return Overlaps(none, none, none, np.zeros(0))
        text = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        at = np.minimum(np.searchsorted(self._values, shingles), len(self._values) - 1)
        hit = self._values[at] == shingles
        at, text = at[hit], text[hit]
        counts = self._ends[at] - self._starts[at]
        first = np.repeat(self._starts[at] - np.cumsum(counts) + counts, counts)
        owner = self._owner[first + np.arange(int(counts.sum()))]
        pair, shared = np.unique(np.repeat(text, counts) * len(self.sizes) + owner, return_counts=True)
        indexed = pair % len(self.sizes)
        return Overlaps(pair // len(self.sizes), indexed, shared, shared / self.sizes[indexed])
