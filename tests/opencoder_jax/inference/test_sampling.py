"""Drawing tokens: distributions, filters by count and by probability, ties, keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from opencoder_jax.inference.sampling import Sampling, keys_at, log_probs, sample


def draw(logits, keys, temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, kind="filtered"):
    """One value for all rows."""
    B = logits.shape[0]
    rows = [jnp.full(B, x, t) for x, t in ((temperature, "f4"), (top_p, "f4"), (top_k, "i4"), (min_p, "f4"))]
    return np.asarray(jax.jit(sample, static_argnames="kind")(logits, keys, *rows, kind=kind))


def test_sampling_follows_the_distribution():
    """20,000 draws: frequencies at temperature 2 within 3 %; top-p keeps the smallest set that reaches it."""
    p = np.array([0.5, 0.25, 0.15, 0.1])
    logits = jnp.tile(jnp.log(p), (20_000, 1))
    keys = jax.random.split(jax.random.key(0), 20_000)
    count = lambda **kw: np.bincount(draw(logits, keys, **kw), minlength=4) / 20_000  # noqa: E731
    flat = np.sqrt(p) / np.sqrt(p).sum()
    np.testing.assert_allclose(count(temperature=2.0, kind="plain"), flat, atol=0.015)
    np.testing.assert_allclose(count(temperature=2.0), flat, atol=0.015)
    np.testing.assert_allclose(count(top_p=0.7), [2 / 3, 1 / 3, 0, 0], atol=0.015)
    np.testing.assert_allclose(count(top_p=0.8), p * [1, 1, 1, 0] / 0.9, atol=0.015)
    np.testing.assert_allclose(count(top_p=0.01), [1, 0, 0, 0])
    np.testing.assert_allclose(count(top_k=2), [2 / 3, 1 / 3, 0, 0], atol=0.015)
    np.testing.assert_allclose(count(min_p=0.3), p * [1, 1, 1, 0] / 0.9, atol=0.015)
    np.testing.assert_allclose(count(top_k=3, top_p=0.8), [2 / 3, 1 / 3, 0, 0], atol=0.015)  # of what top_k left


def kept(p, **filters):
    """Seen from 4,000 draws, in which the rarest token kept is missed with probability below 1e-150."""
    keys = jax.random.split(jax.random.key(1), 4_000)
    return set(draw(jnp.tile(jnp.log(jnp.array(p)), (4_000, 1)), keys, **filters).tolist())


@pytest.mark.parametrize(
    ("p", "top_p", "expected"),
    [
        ([0.25] * 4, 0.5, [0, 1]),  # ties: no more than it takes, smaller ids first
        ([0.25] * 4, 0.51, [0, 1, 2]),
        ([0.1] * 10, 0.7, range(7)),  # 0.7 is not a sum of fp32 tenths
        ([0.1, 0.3, 0.3, 0.3], 0.3, [1]),
        ([0.1, 0.3, 0.3, 0.3], 0.6, [1, 2]),
        ([0.1, 0.3, 0.3, 0.3], 0.95, [0, 1, 2, 3]),
        ([1 / 3] * 3, 1e-45, [0]),  # 0 in fp32
        ([0.5, 0.5], 0.9999999, [0, 1]),
        ([0.4, 0.4, 0.2], 0.8, [0, 1]),
    ],
)
def test_top_p_keeps_the_fewest_tokens(p, top_p, expected):
    assert kept(p, top_p=top_p) == set(expected)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"top_k": 1}, [1]),
        ({"top_k": 2}, [1, 2]),  # of three equal ones those with the smaller ids
        ({"top_k": 3}, [1, 2, 3]),
        ({"top_k": 9}, [0, 1, 2, 3]),
        ({"min_p": 1.0}, [1, 2, 3]),
        ({"min_p": 0.3}, [0, 1, 2, 3]),
        ({"min_p": 0.4}, [1, 2, 3]),
        ({"top_k": 2, "top_p": 0.4}, [1]),
        ({"top_k": 2, "top_p": 0.6}, [1, 2]),
    ],
)
def test_top_k_and_min_p(filters, expected):
    assert kept([0.1, 0.3, 0.3, 0.3], **filters) == set(expected)


def test_filters_are_those_of_a_sort():
    """Random logits: what top-k and top-p keep, against numpy's sort."""
    rng = np.random.default_rng(0)
    for top_k, top_p in ((0, 0.5), (7, 1.0), (9, 0.6), (0, 0.99)):
        logits = rng.normal(0, 2, 50).astype(np.float32)
        order = np.argsort(-logits, kind="stable")[: top_k or 50]
        p = np.exp(logits[order] - logits.max())
        p /= p.sum()
        expected = order[: int(np.searchsorted(np.cumsum(p), top_p)) + 1] if top_p < 1 else order
        keys = jax.random.split(jax.random.key(3), 20_000)
        found = set(draw(jnp.tile(logits * 1e-3, (20_000, 1)), keys, 1e-3, top_p, top_k).tolist())
        assert found <= set(expected.tolist())
        assert len(found) >= 0.7 * len(expected)
        assert order[len(expected) - 1] in found or p[len(expected) - 1] < 1e-3


def test_top_p_over_a_whole_vocabulary_of_ties():
    keys = jax.random.split(jax.random.key(1), 1_000)
    ids = draw(jnp.zeros((1_000, 1_024)), keys, top_p=0.5)
    assert ids.max() < 512
    assert len(set(ids.tolist())) > 400


@pytest.mark.parametrize("temperature", [1e-5, 1e-4, 0.01])
@pytest.mark.parametrize("scale", [1.0, 1e4, 1e30])
def test_small_temperatures_do_not_overflow(temperature, scale):
    logits = scale * jnp.array([[1.0, 3.0, 2.0, -3.0]] * 50)
    keys = jax.random.split(jax.random.key(2), 50)
    for kind in ("plain", "filtered"):
        assert set(draw(logits, keys, temperature, 0.9, kind=kind).tolist()) == {1}


def test_a_greedy_row_is_greedy_among_others_and_a_row_draws_the_same_under_every_kind():
    """Rows of one block share a program: that of the row that needs most."""
    logits = jax.random.normal(jax.random.key(0), (64, 40))
    keys = jax.random.split(jax.random.key(1), 64)
    greedy = draw(logits, keys, kind="greedy")
    np.testing.assert_array_equal(greedy, np.argmax(logits, -1))
    mixed = jnp.where(jnp.arange(64) % 2 == 0, 0.0, 1.0)
    rows = [mixed, *(jnp.full(64, x, t) for x, t in ((1.0, "f4"), (0, "i4"), (0.0, "f4")))]
    plain, filtered = (np.asarray(sample(logits, keys, *rows, kind=kind)) for kind in ("plain", "filtered"))
    np.testing.assert_array_equal(plain[::2], greedy[::2])
    np.testing.assert_array_equal(plain, filtered)
    assert (plain[1::2] != greedy[1::2]).any()


def test_logits_that_are_not_finite_give_no_token():
    logits = jnp.array([[0.0, 99.0], [jnp.nan, 0.0], [0.0, jnp.inf], [-jnp.inf, 1.0]])
    keys = jax.random.split(jax.random.key(1), 4)
    for kind in ("greedy", "plain", "filtered"):
        assert draw(logits, keys, kind=kind).tolist() == [1, -1, -1, 1]


def test_all_64_bits_of_a_seed_count():
    one = lambda seed: np.asarray(  # noqa: E731
        jax.random.key_data(keys_at(Sampling(seed=seed).key()[None], np.zeros(1, np.uint32), np.zeros(1, np.int32)))
    ).tolist()
    assert len({str(one(seed)) for seed in (0, 1, -1, 2**32, 2**40, 2**63 - 1, -(2**63))}) == 7
    seeds = np.zeros((4, 2), np.uint32)
    keys = keys_at(seeds, np.array([0, 0, 1, 1], np.uint32), np.array([3, 4, 3, 4], np.int32))
    assert len({str(k) for k in jax.random.key_data(keys).tolist()}) == 4


def test_log_probs_of_equal_tokens_are_equal_numbers():
    logits = 10 * jax.random.normal(jax.random.key(0), (200, 300))
    chosen, ids, top = log_probs(logits, jnp.argmax(logits, -1), 5)
    assert (np.asarray(chosen) == np.asarray(top)[:, 0]).all()
    assert (np.asarray(ids)[:, 0] == np.argmax(logits, -1)).all()
    np.testing.assert_allclose(chosen, jax.nn.log_softmax(logits).max(-1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", v) for v in (np.nan, -np.nan, np.inf, -np.inf, -1e-9, -1.0)]
    + [("top_p", v) for v in (0.0, -0.1, np.nan, np.inf, 1.0000001)]
    + [("min_p", v) for v in (-0.1, 1.1, np.nan)]
    + [("top_k", v) for v in (-1, 2**31)]
    + [("max_new_tokens", v) for v in (0, -1)]
    + [("seed", v) for v in (2**63, -(2**63) - 1)],
)
def test_values_that_cannot_be_are_rejected_by_name(field, value):
    with pytest.raises(ValueError, match=rf"^{field}="):
        Sampling(**{field: value})
