"""Near-duplicates: the stage at its three levels."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from opencoder_data.pipeline.ledger import read_ledger
from opencoder_data.refinecode.config import load
from opencoder_data.refinecode.fuzzy_dedup.settings import banding
from opencoder_data.refinecode.pipeline import run_pipeline


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
