"""pass@k: the probability that at least one of k samples passes (Chen et al. 2021, section 2.1)."""

from __future__ import annotations

import math
from collections.abc import Iterable


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """The unbiased estimate from `samples` of which `passed` pass: 1 - C(n-c, k) / C(n, k), without large factorials.

    Raises: ValueError for k > samples, which has no unbiased estimate, and for impossible counts.
    """
    if not 0 <= passed <= samples or k < 1:
        raise ValueError(f"pass@{k} of {passed} passed out of {samples} samples")
    if k > samples:
        raise ValueError(f"pass@{k} needs at least {k} samples a task, there are {samples}; generate more or lower k")
    if samples - passed < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(samples - passed + 1, samples + 1))


def mean_pass_at_k(counts: Iterable[tuple[int, int]], k: int) -> float:
    """The mean over tasks of (samples, passed); NaN without tasks."""
    values = [pass_at_k(n, c, k) for n, c in counts]
    return math.fsum(values) / len(values) if values else math.nan
