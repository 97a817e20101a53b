"""Held-out files, and training files that give them away."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from opencoder_data.refinecode.fuzzy_dedup import kernels
from opencoder_data.refinecode.fuzzy_dedup.units import text_buffer


@dataclass(frozen=True)
class HoldOut:
    """What is held out for evaluation; the default holds out nothing."""

    share: float = 0.0
    """Of the files, by a hash of their content."""
    min_files: int = 1
    """A language with fewer files in the share is not a sample: it trains."""
    min_bytes: int = 0
    """As `min_files`, in bytes of text."""
    max_bytes: int = 0
    """Per language; what is beyond trains. 0 = no limit."""
    overlap: float = 0.5
    """Training files that hold this share of a held-out file's five-word runs are left out of training."""

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1 or not 0 < self.overlap <= 1:
            raise ValueError(f"hold out: share must be in [0, 1) and overlap in (0, 1], got {self}")

    def candidate(self, sha256: str) -> bool:
        return int(sha256[:13], 16) < self.share * 16**13

    def choose(self, candidates: Iterable[tuple[str, str, int]]) -> set[str]:
        """Keys of the files to hold out, out of (key, language, bytes) of all candidates."""
        by_language: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for key, language, size in sorted(candidates):
            by_language[language].append((key, size))
        chosen: set[str] = set()
        for files in by_language.values():
            total = sum(size for _, size in files)
            if len(files) < self.min_files or total < self.min_bytes:
                continue
            held = 0
            for key, size in files:
                if self.max_bytes and held >= self.max_bytes:
                    break
                held += size
                chosen.add(key)
        return chosen


class OverlapIndex:
    """Which documents repeat much of one of a few others; exact, by the five-word runs of both.

    Unlike Jaccard similarity the measure, shared runs / runs of the held-out document, does not fall when the held-out
    document is a part of a longer one.
    """

    def __init__(self, texts: pa.ChunkedArray | pa.Array):
        shingles, offsets = _shingles(texts)
        self._sizes = np.diff(offsets)
        owner = np.repeat(np.arange(len(self._sizes)), self._sizes)
        order = np.argsort(shingles, kind="stable")
        self._owner = owner[order]
        self._values, self._starts = np.unique(shingles[order], return_index=True)
        self._ends = np.append(self._starts[1:], len(order))

    def overlap(self, texts: pa.ChunkedArray | pa.Array) -> np.ndarray:
        """float64 [N]: the largest share of one indexed document's runs that each text holds."""
        shingles, offsets = _shingles(texts)
        result = np.zeros(len(offsets) - 1)
        if not len(self._values) or not len(shingles):
            return result
        document = np.repeat(np.arange(len(result)), np.diff(offsets))
        at = np.minimum(np.searchsorted(self._values, shingles), len(self._values) - 1)
        hit = self._values[at] == shingles
        at, document = at[hit], document[hit]
        counts = self._ends[at] - self._starts[at]
        first = np.repeat(self._starts[at] - np.cumsum(counts) + counts, counts)
        owner = self._owner[first + np.arange(int(counts.sum()))]
        pair, shared = np.unique(np.repeat(document, counts) * len(self._sizes) + owner, return_counts=True)
        np.maximum.at(result, pair // len(self._sizes), shared / self._sizes[pair % len(self._sizes)])
        return result


def _shingles(texts: pa.ChunkedArray | pa.Array) -> tuple[np.ndarray, np.ndarray]:
    data, offsets = text_buffer(texts.cast(pa.large_string()))
    return kernels.shingle_sets(data, offsets[:-1].copy(), offsets[1:].copy())
