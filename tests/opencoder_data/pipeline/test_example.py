"""The pipeline printed in the guide: it runs embedded and on Ray, and a run killed in the middle ends with the same bytes."""

import importlib.util
import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from opencoder_data.pipeline.config import EngineConfig, LayoutConfig
from opencoder_data.pipeline.engine import run_pipeline
from opencoder_data.pipeline.ledger import read_ledger

from tests.opencoder_data.killing import SECONDS, digest, kill_when

ROOT = Path(__file__).parents[3]
GUIDE = ROOT / "docs" / "guides" / "add-a-pipeline.md"
DOCUMENTS = 3_000


def program() -> str:
    """The first Python block of the guide."""
    match = re.search(r"^```python\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    assert match
    return match[1]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A directory with the program and JSON lines of texts of 5 to 60 words, two of them empty."""
    root = tmp_path_factory.mktemp("example")
    (root / "word_pipeline.py").write_text(program())
    rng = random.Random(3)
    rows = [
        {"path": f"{i}.txt", "text": " ".join(rng.choices("abcdefgh", k=rng.randint(5, 60)))} for i in range(DOCUMENTS)
    ]
    rows[7]["text"] = rows[900]["text"] = ""
    (root / "in").mkdir()
    for half in range(2):
        lines = "".join(json.dumps(row) + "\n" for row in rows[half::2])
        (root / "in" / f"{half}.jsonl").write_text(lines)
    return root, rows


def start(world, output, executor="local"):
    command = [sys.executable, str(world[0] / "word_pipeline.py"), str(world[0] / "in"), str(output), executor]
    return subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def finish(process):
    _, errors = process.communicate(timeout=SECONDS * 3)
    assert process.returncode == 0, errors


@pytest.fixture(scope="module")
def whole(world):
    """What an undisturbed run with the process pool leaves."""
    finish(start(world, world[0] / "whole"))
    return digest(world[0] / "whole")


def finished_parts(output, stage):
    return len(list((output / stage / "done" / "docs").glob("*.json")))


def test_the_program_is_short():
    lines = [line for line in program().splitlines() if line.strip() and not line.startswith(("import", "from", '"""'))]
    assert len(lines) <= 40


def test_rows_ledger_and_summary_are_right(world, whole):
    output, rows = world[0] / "whole", world[1]
    counts = {row["path"]: len(row["text"].split()) for row in rows}
    documents = pq.read_table(output / "documents").to_pylist()
    assert {d["path"]: d["words"] for d in documents} == {p: n for p, n in counts.items() if n >= 20}
    assert {d["path"]: d["content"] for d in documents}.items() <= {r["path"]: r["text"] for r in rows}.items()
    ledger = read_ledger(str(output)).to_pylist()
    fates = {r["path"]: (r["status"], r["stage"], r["rule"], r["detail"]) for r in ledger}
    for path, n in counts.items():
        if n == 0:
            assert fates[path] == ("dropped", "read", "empty", None)
        elif n < 20:
            assert fates[path] == ("dropped", "count_words", "too_short", f"{n} words")
        else:
            assert fates[path] == ("kept", None, None, None)
    assert {r["source"] for r in ledger} == {"in/0.jsonl", "in/1.jsonl"} and len(ledger) == len(fates) == DOCUMENTS
    summary = json.loads((output / "summary.json").read_text())
    assert summary["files_in"] == DOCUMENTS and summary["files_kept"] == len(documents)
    assert set(summary) == {"files_in", "bytes_in", "files_kept", "bytes_kept", "files_dropped"}
    assert len(list((output / "documents").iterdir())) > 8
    done = [json.loads(p.read_text()) for p in (output / "02-count_words" / "done" / "docs").iterdir()]
    assert sum(d["words"] for d in done) == sum(counts.values())


@pytest.mark.parametrize("stage", ["01-read", "02-count_words"])
def test_a_run_killed_in_the_middle_ends_with_the_same_bytes(world, whole, stage, tmp_path):
    output = tmp_path / "out"
    process = start(world, output)
    assert kill_when(process, lambda: finished_parts(output, stage) >= 2, 0)
    assert finished_parts(output, stage) >= 2 and not (output / "summary.json").exists()
    kept = {p: p.stat().st_mtime_ns for p in output.rglob("done/docs/*.json")}
    finish(start(world, output))
    assert digest(output) == whole
    assert all(p.stat().st_mtime_ns == time for p, time in kept.items())


@pytest.mark.cluster
def test_on_ray_it_is_killed_and_resumed_with_the_same_bytes(world, whole, tmp_path):
    pytest.importorskip("ray")
    finish(start(world, tmp_path / "ray", "ray"))
    assert digest(tmp_path / "ray") == whole
    output = tmp_path / "killed"
    process = start(world, output, "ray")
    # Ray's own agents look for their parent once a minute.
    assert kill_when(process, lambda: finished_parts(output, "01-read") >= 2, 0, end_within=120)
    assert not (output / "summary.json").exists()
    finish(start(world, output, "ray"))
    assert digest(output) == whole


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def test_a_finished_run_is_not_stale_when_its_stages_move_to_another_file(world, whole, tmp_path):
    """The same stages out of another module: nothing is computed again. With another version all that follows is stale."""
    shutil.copytree(world[0] / "whole", tmp_path / "out")
    (tmp_path / "elsewhere_entirely.py").write_text(program())
    moved = load(tmp_path / "elsewhere_entirely.py")
    arguments = moved.PIPELINE, [str(world[0] / "in")], str(tmp_path / "out")
    options = {"engine": EngineConfig(workers=1, progress=False), "layout": LayoutConfig(partition_mb=0.02)}
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("0*/**/*") if p.is_file()}
    run_pipeline(*arguments, **options)
    assert {p: p.stat().st_mtime_ns for p in before} == before and digest(tmp_path / "out") == whole
    moved.CountWords.version = 2
    with pytest.raises(ValueError, match=r"stage count_words of another version .*\(stage count_words: 1, now 2\)"):
        run_pipeline(*arguments, **options)
    run_pipeline(*arguments, **options, overwrite=True)
    after = {p: p.stat().st_mtime_ns for p in before}
    assert {
        p.parts[-3 if p.parent.name in ("docs", "drops", "plan") else -2] for p in before if after[p] != before[p]
    } >= {"02-count_words"}
    assert all(after[p] == before[p] for p in before if "01-read" in p.parts)


def test_bad_pipelines_and_configurations_are_one_line(tmp_path, world):
    words = load(world[0] / "word_pipeline.py")
    with pytest.raises(ValueError, match="names of their own"):
        words.Pipeline("twice", (words.ReadDocuments(), words.ReadDocuments()))
    with pytest.raises(ValueError, match="core column size"):
        words.DocumentSchema(words.CORE.remove(4))
    with pytest.raises(ValueError, match="identity of documents: colour"):
        words.DocumentSchema(identity=("doc_id", "source", "path", "size", "colour"))
    with pytest.raises(ValueError, match="label words is not"):
        words.DocumentSchema(words.SCHEMA.documents, labels=("words",))
    stages = (words.ReadDocuments(), words.CountWords(words.WordsConfig(-1)))
    with pytest.raises(ValueError, match="must not be negative"):
        run_pipeline(words.Pipeline("words", stages, words.SCHEMA), [str(world[0] / "in")], str(tmp_path / "out"))
    with pytest.raises(ValueError, match="'colour' is not a stage; the stages are read, count_words"):
        run_pipeline(words.PIPELINE, [str(world[0] / "in")], str(tmp_path / "out"), stages=["colour"])
    assert not (tmp_path / "out").exists()


def test_ids_do_not_depend_on_partitions_nor_on_where_the_input_is(world, tmp_path):
    words = load(world[0] / "word_pipeline.py")
    rows = [{"content": f"word {i} " * 30, "path": "same"} for i in range(100)]
    (tmp_path / "a" / "in").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a" / "in" / "rows.parquet", row_group_size=10)
    (tmp_path / "a" / "in" / "more").mkdir()
    pq.write_table(pa.Table.from_pylist(rows[:3]), tmp_path / "a" / "in" / "more" / "rows.parquet")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    found = []
    for place, size in (("a", 0.001), ("b", 64.0)):
        output = str(tmp_path / f"{place}-out")
        layout, engine = LayoutConfig(partition_mb=size), EngineConfig(workers=1, progress=False)
        run_pipeline(words.PIPELINE, [str(tmp_path / place / "in")], output, engine=engine, layout=layout)
        found.append(read_ledger(output).sort_by("doc_id").to_pylist())
    assert found[0] == found[1] and len({r["doc_id"] for r in found[0]}) == 103
    assert {r["source"] for r in found[0]} == {"in/rows.parquet", "in/more/rows.parquet"}


def test_input_that_changed_under_a_run_is_an_error(world, tmp_path):
    words = load(world[0] / "word_pipeline.py")
    shutil.copytree(world[0] / "in", tmp_path / "in")
    arguments = words.PIPELINE, [str(tmp_path / "in")], str(tmp_path / "out")
    options = {"engine": EngineConfig(workers=1, progress=False), "stages": ["read"]}
    run_pipeline(*arguments, **options)
    next((tmp_path / "out/01-read/done/docs").iterdir()).unlink()
    with (tmp_path / "in" / "0.jsonl").open("a") as file:
        file.write('{"text": "more"}\n')
    with pytest.raises(ValueError, match=r"0\.jsonl changed since the run"):
        run_pipeline(*arguments, **options)
