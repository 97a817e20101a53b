"""pass@k against counting all subsets."""

from __future__ import annotations

import itertools
import math

import pytest
from opencoder_eval.passk import mean_pass_at_k, pass_at_k


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_pass_at_k_is_the_share_of_subsets_with_a_pass(n: int):
    for c in range(n + 1):
        for k in range(1, n + 1):
            subsets = list(itertools.combinations([1] * c + [0] * (n - c), k))
            assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_large_numbers_stay_finite():
    assert pass_at_k(10_000, 1, 100) == pytest.approx(0.01)
    assert pass_at_k(200, 200, 100) == 1.0


@pytest.mark.parametrize(("n", "c", "k"), [(3, 1, 4), (3, 4, 1), (3, -1, 1), (3, 1, 0)])
def test_impossible_counts_are_errors(n: int, c: int, k: int):
    with pytest.raises(ValueError, match="pass@"):
        pass_at_k(n, c, k)


def test_the_mean_is_over_tasks():
    assert mean_pass_at_k([(1, 1), (4, 1)], 1) == pytest.approx((1 + 0.25) / 2)
    assert math.isnan(mean_pass_at_k([], 1))
