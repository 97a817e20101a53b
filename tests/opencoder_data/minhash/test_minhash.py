"""Shingles, sketches, banding, candidates and verification against definitions and brute force."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from opencoder_data.minhash import candidates
from opencoder_data.minhash.banding import PRESETS, Banding, band_keys, collision_probability, threshold
from opencoder_data.minhash.near_pairs import near_pairs
from opencoder_data.minhash.shingles import shingles_of
from opencoder_data.minhash.sketches import sketches
from opencoder_data.minhash.verification import all_pairs, jaccard_of_pairs


def sets_with_jaccard(rng, pairs, size, jaccard):
    """Pairs of random sets of `size` elements whose similarity is `jaccard` up to rounding; flat arrays and offsets."""
    common = round(2 * size * jaccard / (1 + jaccard))
    pool = rng.integers(1, 2**63, (pairs, 2 * size - common)).astype(np.uint64)
    left, right = pool[:, :size], np.concatenate([pool[:, :common], pool[:, size:]], 1)
    flat = np.stack([left, right], 1).reshape(-1)
    return flat, np.arange(2 * pairs + 1) * size, common / (2 * size - common)


def test_shingles_are_the_distinct_five_word_runs():
    flat, offsets = shingles_of(
        ["a b c d e f", "a.b(c,d)e\n", "a b c d e a b c d e a b c d e", "one two", "  \n", "größe b c d e"]
    )
    sets = [flat[s:e] for s, e in pairwise(offsets)]
    assert [len(s) for s in sets] == [2, 1, 5, 1, 0, 1]
    assert sets[1][0] == sets[0][0] == sets[2][0]  # punctuation and spacing do not count
    assert len(set(flat.tolist())) == 2 + 4 + 1 + 1


@pytest.mark.parametrize("sketch", ["fss", "minhash"])
@pytest.mark.parametrize("size", [3, 40, 900])
def test_sketch_estimates_jaccard(sketch, size):
    rng = np.random.default_rng(0)
    for jaccard in (0.2, 0.7):
        flat, offsets, true = sets_with_jaccard(rng, 150, size, jaccard)
        found = sketches(flat, offsets, sketch, 512, seed=3)
        equal = (found[0::2] == found[1::2]).mean(1)
        assert abs(equal.mean() - true) < 0.015
        # Root mean square error of t independent hashes; Fast Similarity Sketching is not worse.
        assert np.sqrt(np.mean((equal - true) ** 2)) < 1.2 * np.sqrt(true * (1 - true) / 512)


def test_sketch_ignores_order_repetition_and_batch():
    rng = np.random.default_rng(1)
    a = rng.integers(1, 2**63, 100).astype(np.uint64)
    other = rng.integers(1, 2**63, 5000).astype(np.uint64)
    alone = sketches(a, np.array([0, 100]), "fss", 256, 0)[0]
    shuffled = np.concatenate([other, rng.permutation(np.r_[a, a])])
    assert (sketches(shuffled, np.array([0, 5000, 5200]), "fss", 256, 0)[1] == alone).all()
    assert (alone != sketches(a, np.array([0, 100]), "fss", 256, 1)[0]).mean() > 0.9


@pytest.mark.parametrize(
    ("preset", "jaccard"), [("128x16", 0.7), ("128x16", 0.78), ("16x128", 0.97), ("16x128", 0.985), ("25x10", 0.7)]
)
def test_planted_pairs_are_found_at_the_rate_of_the_s_curve(preset, jaccard):
    slots, bands, rows = PRESETS[preset]
    flat, offsets, true = sets_with_jaccard(np.random.default_rng(2), 400, 600, jaccard)
    keys = band_keys(sketches(flat, offsets, "fss", slots, 5), bands, rows)
    rate = (keys[0::2] == keys[1::2]).any(1).mean()
    predicted = collision_probability(true, bands, rows)
    assert abs(rate - predicted) < 4 * np.sqrt(predicted * (1 - predicted) / 400) + 0.01


def test_exact_pairs_against_brute_force():
    rng = np.random.default_rng(3)
    sets = [np.unique(rng.integers(1, 14, rng.integers(0, 20)).astype(np.uint64)) for _ in range(120)]
    offsets = np.r_[0, np.cumsum([len(s) for s in sets])]
    pairs, values = all_pairs(np.concatenate(sets), offsets, 0.5)
    expected = {}
    for i in range(120):
        for j in range(i + 1, 120):
            union = len(np.union1d(sets[i], sets[j]))
            value = len(np.intersect1d(sets[i], sets[j])) / union if union else 0
            if value >= 0.5:
                expected[i, j] = value
    assert len(expected) > 20
    assert {tuple(p): v for p, v in zip(pairs.tolist(), values.tolist(), strict=True)} == pytest.approx(expected)


def test_jaccard_by_hand():
    """{1 2 3 4} and {3 4 5}: two shared of five; sets that are equal, apart, contained, empty."""
    sets = [[1, 2, 3, 4], [3, 4, 5], [6, 7], [3, 4, 5], [3], []]
    flat = np.array([value for values in sets for value in values], np.uint64)
    offsets = np.r_[0, np.cumsum([len(values) for values in sets])]
    pairs = np.array([(0, 1), (1, 0), (0, 2), (1, 3), (1, 4), (4, 0), (2, 5), (5, 5)])
    found = jaccard_of_pairs(flat, offsets, pairs[:, 0], pairs[:, 1])
    assert found.tolist() == [2 / 5, 2 / 5, 0, 1, 1 / 3, 1 / 4, 0, 0]


def test_components_and_groups():
    keys = np.array([7, 7, 7, 9, 9, 1], np.uint64)
    units = np.array([5, 2, 8, 8, 4, 6])
    order = np.array([0, 1, 2, 3, 4, 5], np.uint64)
    assert candidates.pairs_of_groups(keys, units, order, True).tolist() == [[2, 5], [2, 8], [4, 8], [5, 8]]
    assert candidates.pairs_of_groups(keys, units, order, False).tolist() == [[2, 5], [4, 8], [5, 8]]
    units, labels = candidates.components(np.array([[2, 5], [5, 8], [10, 11]]))
    assert units.tolist() == [2, 5, 8, 10, 11] and labels[0] == labels[1] == labels[2] != labels[3] == labels[4]


def test_presets_state_their_threshold():
    assert threshold(16, 128) == pytest.approx(0.9786, abs=1e-4)
    assert threshold(128, 16) == pytest.approx(0.7384, abs=1e-4)
    assert "probably swapped" in Banding(*PRESETS["128x16"]).note()


def runs_of(text, ngram):
    """Runs of words by the definition: letters, digits and underscores."""
    words = "".join(c if c.isalnum() or c == "_" else " " for c in text).split()
    return {tuple(words[i : i + ngram]) for i in range(len(words) - ngram + 1)} or ({tuple(words)} if words else set())


@pytest.mark.parametrize("ngram", [1, 2, 5, 8, 13])
def test_shingles_of_any_length_are_the_runs(ngram):
    """As many distinct shingles as distinct runs, and two texts share as many."""
    rng = np.random.default_rng(ngram)
    texts = [" ".join(rng.choice(list("abcd"), n)) for n in (0, 3, 12, 40, 200, 3000)]
    flat, offsets = shingles_of(texts, ngram)
    sets = [set(flat[s:e].tolist()) for s, e in pairwise(offsets)]
    runs = [runs_of(t, ngram) for t in texts]
    assert [len(s) for s in sets] == [len(r) for r in runs] == np.diff(offsets).tolist()
    assert [len(a & b) for a in sets for b in sets] == [len(a & b) for a in runs for b in runs]
    assert shingles_of(pa.chunked_array([texts[:2], texts[2:]]), ngram)[0].tolist() == flat.tolist()


def test_texts_may_be_any_column_of_strings():
    flat, offsets = shingles_of(["a b c d e", "", "x"])
    for column in (pa.array(["a b c d e", None, "x"]), pa.array(["-", "a b c d e", None, "x"], pa.large_string())[1:]):
        found = shingles_of(column)
        assert found[0].tolist() == flat.tolist() and found[1].tolist() == offsets.tolist()
    # A null may have bytes under it.
    full = pa.array(["a b c d e", "hidden words", "x"], pa.large_string())
    holes = pa.Array.from_buffers(full.type, 3, [pa.py_buffer(b"\x05"), *full.buffers()[1:]])
    assert holes.to_pylist() == ["a b c d e", None, "x"]
    assert shingles_of(holes)[1].tolist() == offsets.tolist()
    with pytest.raises(ValueError, match="at least 1"):
        shingles_of(["a"], 0)


def test_near_pairs_are_those_of_brute_force():
    """Families of texts with one word in 40 changed; the similarity is exact, and what is below the level is not told."""
    rng = np.random.default_rng(8)
    texts = []
    for family in range(30):
        words = [f"w{n}" for n in rng.integers(0, 10**6, 200)]
        for copy in range(3):
            changed = [f"x{family}.{copy}.{i}" if rng.random() < copy / 120 else w for i, w in enumerate(words)]
            texts.append(" ".join(changed))
    runs = [runs_of(t, 5) for t in texts]
    true = {
        (i, j): len(runs[i] & runs[j]) / len(runs[i] | runs[j])
        for i in range(len(texts))
        for j in range(i + 1, len(texts))
    }
    pairs, jaccard = near_pairs(texts, banding=Banding(512, 256, 2), min_jaccard=0.6)
    found = dict(zip(map(tuple, pairs.tolist()), jaccard.tolist(), strict=True))
    assert found == pytest.approx({k: v for k, v in true.items() if v >= 0.6}) and 30 < len(found) < 90
    assert near_pairs([])[0].shape == (0, 2) and near_pairs(["", ""])[0].shape == (0, 2)
