"""From a finished run to training and held-out directories, their weights, a tokenizer and shards."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from opencoder_data.refinecode import handover
from opencoder_data.refinecode.config import load
from opencoder_data.refinecode.handover import hand_over, main
from opencoder_data.refinecode.held_out import HoldOut, OverlapIndex
from opencoder_data.refinecode.pipeline import run_pipeline
from opencoder_data.shard_format import ShardReader
from opencoder_data.tokenizer.__main__ import main as tokenizer_main


def rows_of(directory):
    return pa.concat_tables([pq.read_table(p) for p in sorted(Path(directory).rglob("*.parquet"))]).to_pylist()


def runs_of(text):
    """Five-word runs, by the definition (not the kernel): words are letters, digits and underscores."""
    words = "".join(c if c.isalnum() or c == "_" else " " for c in text).split()
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)} or {tuple(words)}


def test_every_document_once_with_weights_of_the_training_text(finished_run, tmp_path):
    output, summary = finished_run
    report = hand_over(output, str(tmp_path / "out"))
    assert report["held_out"] == {} and report["left_out_for_overlap"] == 0
    documents = rows_of(Path(output, "documents"))
    sizes = Counter()
    for row in documents:
        sizes[row["language"]] += len(row["content"].encode())
    assert {k: v["bytes"] for k, v in report["train"].items()} == sizes and len(sizes) == 2
    assert {k: v["weight"] for k, v in report["train"].items()} == pytest.approx(
        {k: n / sizes.total() for k, n in sizes.items()}
    )
    handed = rows_of(tmp_path / "out" / "train")
    assert sorted(r["doc_id"] for r in handed) == sorted(r["doc_id"] for r in documents)
    assert summary["files_kept"] == len(handed)
    by_directory = {r["language"] for r in rows_of(tmp_path / "out" / "train" / "java")}
    assert by_directory == {"java"}


def test_held_out_files_have_no_near_copy_in_training(tmp_path, corpus_writer):
    """The run's own near-duplicates stay in (fuzzy de-duplication is left out), so the hand-over must find them."""
    corpus_writer(tmp_path / "in", families=60)
    stages = "stages=ingest,preprocess,exact_dedup"
    config = load(None, [stages, "engine.workers=1", "engine.progress=false", "layout.partition_mb=0.1"])
    output = str(tmp_path / "run")
    run_pipeline(config, [str(tmp_path / "in")], output)
    held = HoldOut(share=0.15, min_files=5, max_bytes=40_000)
    report = hand_over(output, str(tmp_path / "out"), group=("input", "doc_type"), hold_out=held)
    train, out = rows_of(tmp_path / "out" / "train"), rows_of(tmp_path / "out" / "held_out")
    documents = rows_of(Path(output, "documents"))
    assert len(train) + len(out) + report["left_out_for_overlap"] == len(documents)
    assert not {r["doc_id"] for r in train} & {r["doc_id"] for r in out}
    assert set(report["train"]) == {"in.code"} and set(report["held_out"]) == {"java", "python"}
    assert 10 < len(out) < 60 and report["left_out_for_overlap"] > 5

    def largest_share(rows):
        runs = [runs_of(r["content"]) for r in rows]
        return max((len(a & b) / len(a)) for a in (runs_of(r["content"]) for r in out) for b in runs)

    assert largest_share(train) < held.overlap
    gone = {r["doc_id"] for r in documents} - {r["doc_id"] for r in [*train, *out]}
    assert all(largest_share([r]) >= held.overlap for r in documents if r["doc_id"] in gone)
    # Each language's held-out text ends with the file that reaches the limit.
    for values in report["held_out"].values():
        assert values["bytes"] < held.max_bytes + 10_000


def test_a_language_with_few_files_trains():
    candidates = [(f"{i:064x}", "python", 100) for i in range(9)] + [("f" * 64, "sql", 9_999)]
    assert HoldOut(0.5, min_files=2).choose(candidates) == {f"{i:064x}" for i in range(9)}
    assert HoldOut(0.5, max_bytes=250).choose(reversed(candidates)) == {f"{i:064x}" for i in range(3)} | {"f" * 64}
    assert HoldOut(0.5, min_bytes=1_000).choose(candidates) == {"f" * 64}
    with pytest.raises(ValueError, match="share must be"):
        HoldOut(1.5)


def test_overlap_is_the_share_of_the_held_out_file():
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


def test_a_training_file_exactly_at_the_overlap_limit_goes(tmp_path, monkeypatch):
    """10 five-word runs held out: with a limit of 0.5 a file with 5 of them goes and one with 4 stays; with 0.51 both stay."""
    words = [f"w{i}" for i in range(14)]
    files = {"held": words, "five": [*words[:9], "x"], "four": [*words[:8], "y"], "none": ["z"] * 9}
    rows = [{"path": f"{name}.txt", "content": " ".join(text) + "\n"} for name, text in files.items()]
    (tmp_path / "in").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in" / "rows.parquet")
    config = load(None, ["stages=ingest,preprocess", "engine.workers=1", "engine.progress=false"])
    run_pipeline(config, [str(tmp_path / "in")], str(tmp_path / "run"))
    held = next(r["sha256"] for r in rows_of(tmp_path / "run" / "documents") if r["path"] == "held.txt")
    monkeypatch.setattr(HoldOut, "candidate", lambda self, sha256: sha256 == held)
    for limit, left in ((0.5, {"four.txt", "none.txt"}), (0.51, {"five.txt", "four.txt", "none.txt"})):
        target = str(tmp_path / f"out{limit}")
        report = hand_over(str(tmp_path / "run"), target, hold_out=HoldOut(share=0.5, overlap=limit))
        assert {r["path"] for r in rows_of(Path(target, "train"))} == left
        assert report["left_out_for_overlap"] == 3 - len(left)


def test_tokenizer_and_shards_from_the_command_line(finished_run, tmp_path, capsys):
    output, target = finished_run[0], str(tmp_path / "out")
    command = [f"--run={output}", f"--output={target}", "--holdout=0.3", "--group=doc_type"]
    assert main(command) == 0
    tokenizer = str(tmp_path / "tokenizer")
    assert tokenizer_main(["train", f"--input={target}/train", "--vocab_size=512", f"--output={tokenizer}"]) == 0
    capsys.readouterr()
    assert main([*command, f"--tokenizer={tokenizer}", "--seq_len=128"]) == 0
    printed = dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines() if line.startswith("--data"))
    path, weight = printed["--data.sources"].rsplit(":", 1)
    assert float(weight) == 1.0 and path == f"{target}/shards/train/code"
    manifest = ShardReader(path).manifest
    assert manifest.num_documents == len(rows_of(Path(target, "train")))
    held_out = printed["--data.eval_sources"].split(",")
    assert sum(ShardReader(p).manifest.num_documents for p in held_out) == len(rows_of(Path(target, "held_out"))) > 0


def test_interrupted_hand_over_begins_anew_and_others_are_rejected(finished_run, tmp_path, monkeypatch, capsys):
    output, target = finished_run[0], str(tmp_path / "out")
    hold_out = HoldOut(share=0.3)
    whole = hand_over(output, str(tmp_path / "whole"), hold_out=hold_out)
    with monkeypatch.context() as patch:

        def stop(*_):
            raise KeyboardInterrupt

        patch.setattr(handover, "write_training", stop)
        with pytest.raises(KeyboardInterrupt):
            hand_over(output, target, hold_out=hold_out)
    assert Path(target, "held_out").exists()
    assert hand_over(output, target, hold_out=hold_out) == whole
    files = {p.relative_to(target): p.read_bytes() for p in Path(target).rglob("*.parquet")}
    assert files == {p.relative_to(tmp_path / "whole"): p.read_bytes() for p in (tmp_path / "whole").rglob("*.parquet")}
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    for arguments, message in (
        ([f"--output={target}"], "another run or other options"),
        ([f"--output={tmp_path / 'thesis'}"], "holds other files"),
        ([f"--output={tmp_path / 'new'}", "--group=colour"], "choose among"),
        ([f"--output={tmp_path / 'new'}", "--holdout=2"], "share must be"),
        ([f"--output={tmp_path / 'new'}", f"--run={tmp_path / 'thesis'}"], "run.json is missing"),
    ):
        assert main([f"--run={output}", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
