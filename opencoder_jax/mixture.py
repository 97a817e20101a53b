"""Which source each record of a run comes from: exact shares, changing at given steps, by random access."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import grain.transforms
import numpy as np

from opencoder_jax.config import DataConfig
from opencoder_jax.written import MixtureChange

# Records after which the pattern of sources repeats; shares are rounded to multiples of its inverse.
PATTERN_LENGTH = 65_536


@dataclass(frozen=True)
class Stage:
    """Weights of the sources, in their order, from a global step on."""

    start_step: int
    weights: tuple[float, ...]


@dataclass(frozen=True)
class BatchSizes:
    """Records that a run has read before a step, whose global batch may have changed at a resume.

    changes: (from this step on, records of a step, tokens of a record), the first from step 0.
    """

    changes: tuple[tuple[int, int, int], ...]

    @classmethod
    def constant(cls, data: DataConfig) -> BatchSizes:
        return cls(((0, data.global_batch_size, data.seq_len),))

    def changed(self, step: int, data: DataConfig) -> BatchSizes:
        """From `step` on the sizes of `data`."""
        kept = tuple(change for change in self.changes if change[0] < step)
        sizes = (data.global_batch_size, data.seq_len)
        return BatchSizes(kept if kept and kept[-1][1:] == sizes else (*kept, (step if kept else 0, *sizes)))

    def records(self, step: int) -> int:
        return sum(steps * batch for steps, batch, _ in self._before(step))

    def tokens(self, step: int) -> int:
        return sum(steps * batch * seq_len for steps, batch, seq_len in self._before(step))

    def _before(self, step: int) -> Iterator[tuple[int, int, int]]:
        """(number of steps, records of each, tokens of a record) of the steps before `step`."""
        ends = [first for first, _, _ in self.changes[1:]] + [step]
        for (first, batch, seq_len), end in zip(self.changes, ends, strict=True):
            yield max(0, min(end, step) - first), batch, seq_len


class Mixture(grain.transforms.DatasetSelectionMap):
    """Grain's selection map: global record index -> (source, index in the endless stream of that source).

    Inside a stage the sources follow a fixed pattern in which each is spread evenly, so that every batch has nearly the
    exact composition; where the weights change, each source goes on with the record after its last.

    Raises: ValueError for weights that are negative, all zero or too small to be drawn, and stages out of order.
    """

    def __init__(self, stages: Sequence[Stage], global_batch_size: int | BatchSizes):
        """global_batch_size: records of a step, the same for all or by step."""
        assert stages[0].start_step == 0
        self.stages = tuple(stages)
        self._first: list[int] = []
        self._patterns: list[_Pattern] = []
        self._taken: list[list[int]] = []
        taken = [0] * len(stages[0].weights)
        for i, stage in enumerate(stages):
            if i and stage.start_step <= stages[i - 1].start_step:
                raise ValueError(
                    f"data.mixture_changes: step {stage.start_step} does not come after {stages[i - 1].start_step}"
                )
            first = (
                global_batch_size.records(stage.start_step)
                if isinstance(global_batch_size, BatchSizes)
                else stage.start_step * global_batch_size
            )
            if i:
                taken = _add(taken, self._patterns[-1].counts(first - self._first[-1]))
            self._first.append(first)
            self._taken.append(taken)
            self._patterns.append(_Pattern(stage.weights))

    def __len__(self) -> int:
        return 2**62  # endless; Grain computes with the length as an index

    def __getitem__(self, index: int) -> tuple[int, int]:
        stage = bisect.bisect_right(self._first, index) - 1
        source, place = self._patterns[stage].at(index - self._first[stage])
        return source, self._taken[stage][source] + place

    def counts(self, num_records: int) -> list[int]:
        """Records that the first `num_records` of the run take from each source."""
        stage = max(0, bisect.bisect_left(self._first, num_records) - 1)
        return _add(self._taken[stage], self._patterns[stage].counts(num_records - self._first[stage]))


class _Pattern:
    def __init__(self, weights: Sequence[float]):
        shares = np.asarray(weights, np.float64)
        if not np.isfinite(shares).all() or (shares < 0).any() or not shares.sum() > 0:
            raise ValueError(f"data.sources: weights must not be negative, nor all zero; got {shares.tolist()}")
        shares = shares / shares.sum()
        counts = np.floor(shares * PATTERN_LENGTH).astype(np.int64)
        rest = np.argsort(counts - shares * PATTERN_LENGTH, kind="stable")[: PATTERN_LENGTH - counts.sum()]
        counts[rest] += 1
        for source in np.flatnonzero((counts == 0) & (shares > 0)):
            raise ValueError(
                f"data.sources: source {source} has a share of {shares[source]:.2g}; the least is {1 / PATTERN_LENGTH:.2g}"
            )
        sources = np.repeat(np.arange(len(counts)), counts)
        ranks = np.concatenate([np.arange(n) for n in counts])
        order = np.lexsort((sources, (ranks + 0.5) / counts[sources]))
        self._counts = counts.tolist()
        self._sources = sources[order].tolist()
        self._ranks = ranks[order].tolist()

    def at(self, index: int) -> tuple[int, int]:
        block, slot = divmod(index, PATTERN_LENGTH)
        source = self._sources[slot]
        return source, block * self._counts[source] + self._ranks[slot]

    def counts(self, num: int) -> list[int]:
        block, slot = divmod(num, PATTERN_LENGTH)
        rest = np.bincount(self._sources[:slot], minlength=len(self._counts))
        return [block * n + int(r) for n, r in zip(self._counts, rest, strict=True)]


def stages(weights: Sequence[float], changes: Sequence[MixtureChange]) -> list[Stage]:
    """The stages of a run: `weights` from step 0, then each change. Raises: ValueError for another number of weights."""
    for change in changes:
        if len(change.weights) != len(weights):
            raise ValueError(
                f"data.mixture_changes: {str(change)!r} has {len(change.weights)} weights for {len(weights)} sources"
            )
    return [Stage(0, tuple(weights)), *(Stage(change.step, change.weights) for change in changes)]


def _add(a: list[int], b: list[int]) -> list[int]:
    return [x + y for x, y in zip(a, b, strict=True)]
