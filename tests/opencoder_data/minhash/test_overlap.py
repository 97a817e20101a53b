"""Which texts repeat an indexed one, by the definition and at the edges."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from opencoder_data.minhash.overlap import OverlapIndex


def words_of(text):
    return "".join(c if c.isalnum() or c == "_" else " " for c in text).split()


def runs_of(text, ngram):
    words = words_of(text)
    return {tuple(words[i : i + ngram]) for i in range(len(words) - ngram + 1)} or ({tuple(words)} if words else set())


def test_overlap_is_the_share_of_the_indexed_text():
    words = [f"w{i}" for i in range(104)]
    held = [" ".join(words), "other text of five words here"]
    texts = [
        " ".join(words[:54]),  # 50 of its 100 runs
        " ".join([f"x{i}" for i in range(3_000)] + words),  # contained in a long file
        " ".join(w for pair in pairwise(words) for w in pair),
        "",
        "Other TEXT of five words here",
    ]
    found = OverlapIndex(pa.array(held, pa.large_string())).overlap(pa.array(texts, pa.large_string()))
    assert found.tolist()[:4] == [0.5, 1.0, 0.0, 0.0]
    assert OverlapIndex(pa.array([], pa.large_string())).overlap(pa.array(texts, pa.large_string())).tolist() == [0] * 5


@pytest.mark.parametrize("ngram", [2, 5, 10, 13])
def test_all_pairs_against_the_definition(ngram):
    """Random texts over few words: every pair with a run in common, the number of them and their share."""
    rng = np.random.default_rng(ngram)
    vocabulary = ["a", "bb", "größe", "d_1"][: 2 if ngram > 5 else 4]
    indexed = [" ".join(rng.choice(vocabulary, n)) for n in (0, 1, 20, 60, 30)] + ["nothing like the others"]
    texts = [", ".join(rng.choice(vocabulary, n)) for n in (40, 0, 80, 1, 15)] + [indexed[2] + "."]
    found = OverlapIndex(indexed, ngram).overlaps(texts)
    expected = {}
    for i, text in enumerate(texts):
        for j, other in enumerate(indexed):
            shared = len(runs_of(text, ngram) & runs_of(other, ngram))
            if shared:
                expected[i, j] = (shared, shared / len(runs_of(other, ngram)))
    rows = zip(*(column.tolist() for column in found), strict=True)
    assert {(i, j): (shared, pytest.approx(share)) for i, j, shared, share in rows} == expected and len(expected) > 1
    assert list(zip(found.text.tolist(), found.indexed.tolist(), strict=True)) == sorted(expected)
    best = OverlapIndex(indexed, ngram).overlap(texts)
    assert best.tolist() == [
        max((v[1] for k, v in expected.items() if k[0] == i), default=0) for i in range(len(texts))
    ]
