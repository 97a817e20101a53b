"""Sketches, banding, verification and the stage at its three levels."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from opencoder_data.refinecode.config import load
from opencoder_data.refinecode.fuzzy_dedup import candidates, kernels
from opencoder_data.refinecode.fuzzy_dedup.exact_pairs import all_pairs
from opencoder_data.refinecode.fuzzy_dedup.kernels import sketches
from opencoder_data.refinecode.fuzzy_dedup.settings import PRESETS, banding
from opencoder_data.refinecode.ledger import read_ledger
from opencoder_data.refinecode.pipeline import run_pipeline


def sets_with_jaccard(rng, pairs, size, jaccard):
    """Pairs of random sets of `size` elements whose similarity is `jaccard` up to rounding; flat arrays and offsets."""
    common = round(2 * size * jaccard / (1 + jaccard))
    pool = rng.integers(1, 2**63, (pairs, 2 * size - common)).astype(np.uint64)
    left, right = pool[:, :size], np.concatenate([pool[:, :common], pool[:, size:]], 1)
    flat = np.stack([left, right], 1).reshape(-1)
    return flat, np.arange(2 * pairs + 1) * size, common / (2 * size - common)


def shingles_of(*texts):
    data = "".join(texts).encode()
    ends = np.cumsum([len(t.encode()) for t in texts])
    return kernels.shingle_sets(
        np.frombuffer(data, np.uint8), np.r_[0, ends[:-1]].astype(np.int64), ends.astype(np.int64)
    )


def test_shingles_are_the_distinct_five_word_runs():
    flat, offsets = shingles_of(
        "a b c d e f", "a.b(c,d)e\n", "a b c d e a b c d e a b c d e", "one two", "  \n", "größe b c d e"
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
    keys = kernels.band_keys(sketches(flat, offsets, "fss", slots, 5), bands, rows)
    rate = (keys[0::2] == keys[1::2]).any(1).mean()
    predicted = kernels.collision_probability(true, bands, rows)
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
    found = kernels.jaccard_of_pairs(flat, offsets, pairs[:, 0], pairs[:, 1])
    assert found.tolist() == [2 / 5, 2 / 5, 0, 1, 1 / 3, 1 / 4, 0, 0]


def test_components_and_groups():
    keys = np.array([7, 7, 7, 9, 9, 1], np.uint64)
    units = np.array([5, 2, 8, 8, 4, 6])
    order = np.array([0, 1, 2, 3, 4, 5], np.uint64)
    assert candidates.pairs_of_groups(keys, units, order, True).tolist() == [[2, 5], [2, 8], [4, 8], [5, 8]]
    assert candidates.pairs_of_groups(keys, units, order, False).tolist() == [[2, 5], [4, 8], [5, 8]]
    units, labels = candidates.components(np.array([[2, 5], [5, 8], [10, 11]]))
    assert units.tolist() == [2, 5, 8, 10, 11] and labels[0] == labels[1] == labels[2] != labels[3] == labels[4]


def words(rng, count):
    return " ".join(f"w{n}" for n in rng.integers(0, 10**6, count))


def corpus():
    """40 families of three: a text, a copy with one word in 400 changed, a text half as similar."""
    rng = np.random.default_rng(4)
    rows = []
    for family in range(40):
        text = words(rng, 400).split()
        near, far = text.copy(), text.copy()
        near[rng.integers(400)] = "changed"
        for i in rng.integers(0, 400, 60):
            far[i] = f"far{i}"
        for kind, stars, content in (("near", family % 3, near), ("text", 1, text), ("far", 5, far)):
            rows.append(
                {
                    "repo": f"r{family}",
                    "path": f"{kind}{family}.py",
                    "content": " ".join(content) + "\n",
                    "stars": stars,
                }
            )
    return rows


def run(tmp_path, name, rows, *overrides):
    directory = tmp_path / name
    directory.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), directory / "rows.parquet", row_group_size=25)
    stages = "stages=ingest,preprocess,exact_dedup,fuzzy_dedup"
    config = load(None, [stages, "engine.workers=1", "engine.progress=false", *overrides])
    output = str(tmp_path / f"{name}-out")
    summary = run_pipeline(config, [str(directory)], output)
    return summary, {(r["repo"], r["path"]): r for r in read_ledger(output).to_pylist()}, output


def kept(ledger):
    return {key for key, row in ledger.items() if row["status"] == "kept"}


def test_stage_drops_the_near_copies_for_any_order_and_partitioning(tmp_path):
    rows = corpus()
    rng = np.random.default_rng(5)
    _, first, _ = run(tmp_path, "a", rows)
    expected = {(f"r{f}", f"far{f}.py") for f in range(40)}
    # Copies of one word in 400 are kept only when they have more stars than the text.
    expected |= {(f"r{f}", ("near" if f % 3 == 2 else "near" if f % 3 == 1 else "text") + f"{f}.py") for f in range(40)}
    assert kept(first) == expected
    assert {r["rule"] for r in first.values() if r["status"] == "dropped"} == {"near_duplicate"}
    shuffled = [rows[i] for i in rng.permutation(len(rows))]
    _, second, _ = run(tmp_path, "b", shuffled, "layout.partition_mb=0.02", "layout.shuffle_rows=500")
    assert kept(second) == expected
    _, third, _ = run(
        tmp_path, "c", rows, "fuzzy_dedup.preset=16x128", "fuzzy_dedup.verify=false", "fuzzy_dedup.sketch=minhash"
    )
    assert expected < kept(third) or expected == kept(third)


def test_min_jaccard_decides(tmp_path):
    wide = ("fuzzy_dedup.preset=14x8", "fuzzy_dedup.bands=56", "fuzzy_dedup.rows=2")
    _, loose, _ = run(tmp_path, "a", corpus(), "fuzzy_dedup.min_jaccard=0.2", *wide)
    assert len(kept(loose)) == 40  # the half-similar ones go too, and the most stars stay
    assert all(path.startswith("far") for _, path in kept(loose))
    _, strict, _ = run(tmp_path, "b", corpus(), "fuzzy_dedup.min_jaccard=0.999", *wide)
    assert len(kept(strict)) == 120


def test_repository_level(tmp_path):
    rng = np.random.default_rng(6)
    shared = [words(rng, 300) for _ in range(5)]
    rows = [
        {"repo": r, "path": f"{i}.py", "content": t + f" tail{r}", "stars": s}
        for r, s in (("fork", 1), ("origin", 9))
        for i, t in enumerate(shared)
    ]
    rows += [{"repo": "other", "path": "0.py", "content": shared[0] + " more", "stars": 50}]
    rows += [{"repo": "other", "path": f"{i}.py", "content": words(rng, 300), "stars": 50} for i in (1, 2)]
    _, ledger, _ = run(tmp_path, "a", rows, "fuzzy_dedup.level=repo", "layout.partition_mb=0.008")
    assert {r for r, _ in kept(ledger)} == {"origin", "other"} and len(kept(ledger)) == 8


def test_chunk_level_cuts_the_repeated_chunk(tmp_path):
    rng = np.random.default_rng(7)
    block = [words(rng, 10) + "\n" for _ in range(30)]
    own = [[words(rng, 10) + "\n" for _ in range(30)] for _ in range(3)]
    size = len("".join(block).encode())
    rows = [{"repo": "r", "path": f"{i}.py", "content": "".join(block + own[i]), "stars": i} for i in range(3)]
    rows += [{"repo": "r", "path": "only.py", "content": "".join(block), "stars": None}]
    _, ledger, output = run(tmp_path, "a", rows, "fuzzy_dedup.level=chunk", f"fuzzy_dedup.chunk_bytes={size + 20}")
    assert ledger["r", "only.py"]["rule"] == "near_duplicate"
    text = {r["path"]: r["content"] for r in pq.read_table(output + "/documents").to_pylist()}
    assert text["2.py"] == "".join(block + own[2])
    assert all("".join(own[i])[-900:] in text[f"{i}.py"] and block[3] not in text[f"{i}.py"] for i in (0, 1))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("fuzzy_dedup.preset=8x8", "unknown; presets"),
        ("fuzzy_dedup.bands=200", "need 3200 slots"),
        ("fuzzy_dedup.sketch=sim", "fss or minhash"),
        ("fuzzy_dedup.level=line", "one of file, chunk, repo"),
        ("fuzzy_dedup.min_jaccard=1.5", "in \\(0, 1\\]"),
    ],
)
def test_bad_settings(override, message):
    with pytest.raises(ValueError, match=message):
        banding(load(None, [override]).fuzzy_dedup)


def test_presets_state_their_threshold():
    assert kernels.threshold(16, 128) == pytest.approx(0.9786, abs=1e-4)
    assert kernels.threshold(128, 16) == pytest.approx(0.7384, abs=1e-4)
    assert "probably swapped" in banding(load().fuzzy_dedup).note()
