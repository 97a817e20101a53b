"""Ingest, languages, exact de-duplication, ledger: on small trees built by hand."""

import io
import json
import os
import subprocess
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pygit2
import pytest
from opencoder_data.refinecode import storage
from opencoder_data.refinecode.config import load
from opencoder_data.refinecode.ledger import read_ledger
from opencoder_data.refinecode.pipeline import run_pipeline

THIN = ("ingest", "preprocess", "exact_dedup")


def config(*overrides, stages=THIN):
    return load(None, [f"stages={','.join(stages)}", "engine.workers=1", "engine.progress=false", *overrides])


def documents(output):
    directory = os.path.join(output, "documents")
    return pa.concat_tables([pq.read_table(os.path.join(directory, n)) for n in sorted(os.listdir(directory))])


def fates(output):
    rows = read_ledger(str(output)).to_pylist()
    return {r["path"]: (r["stage"], r["rule"]) if r["status"] == "dropped" else "kept" for r in rows}


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "corpus"
    files = {
        "a/main.py": b"print('a')\n",
        "b/copy.py": b"print('a')\n",
        "a/Makefile": b"all:\n\techo\n",
        "a/run": b"#!/usr/bin/env python3\nprint(1)\n",
        "a/lib.so": b"\x7fELF\0\0",
        "a/binary.py": b"x = 1\0\0",
        "a/empty.py": b"",
        "a/latin.py": "# Größe und Maß, für ältere Rechner übertragen\nx = 'äöü'\n".encode("latin-1"),
        "a/wide.js": "let a = 'ü';\n".encode("utf-16"),
        "a/table.csv": b"a,b\n1,2\n",
        "a/what.qqq": b"???",
        "a/big.py": b"#" * 9_000_000,
        "__pycache__/x.py": b"never",
        ".git_not/x.c": b"int main(void) { return 0; }\n",
    }
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    os.symlink("main.py", root / "a" / "link.py")
    os.symlink("..", root / "a" / "loop")
    os.mkfifo(root / "a" / "pipe.py")
    with open(os.fsencode(root / "a") + b"/caf\xe9.py", "wb") as file:
        file.write(b"y = 2\n")
    return root


def test_every_file_has_one_fate(tree, tmp_path):
    output = str(tmp_path / "out")
    summary = run_pipeline(config(), [str(tree)], output)
    assert fates(output) == {
        "a/main.py": "kept",
        "b/copy.py": ("exact_dedup", "exact_duplicate"),
        "a/Makefile": "kept",
        "a/run": "kept",
        "a/lib.so": ("ingest", "unknown_language"),
        "a/binary.py": ("ingest", "binary"),
        "a/empty.py": ("ingest", "empty"),
        "a/latin.py": "kept",
        "a/wide.js": "kept",
        "a/table.csv": ("ingest", "excluded_language"),
        "a/what.qqq": ("ingest", "unknown_language"),
        "a/big.py": ("ingest", "size_limit"),
        ".git_not/x.c": "kept",
        "a/link.py": ("ingest", "symlink"),
        "a/loop": ("ingest", "symlink"),
        "a/pipe.py": ("ingest", "not_a_file"),
        "a/caf\\xe9.py": "kept",
    }
    assert summary["files_in"] == 17 and summary["files_kept"] == 7
    text = {r["path"]: r for r in documents(output).to_pylist()}
    assert text["a/latin.py"]["content"].endswith("x = 'äöü'\n")
    assert text["a/wide.js"]["content"] == "let a = 'ü';\n"
    assert text["a/run"]["language"] == "python" and text["a/Makefile"]["language"] == "makefile"


def test_two_processes_and_resume_give_the_same_bytes(tree, tmp_path):
    def digest(output):
        found = {}
        for directory, _, names in os.walk(output):
            for name in names:
                path = os.path.join(directory, name)
                if name not in ("timings.json", "run.json"):
                    with open(path, "rb") as file:
                        found[os.path.relpath(path, output)] = file.read()
        return found

    small = ("layout.partition_mb=0.004",)
    run_pipeline(config(*small), [str(tree)], str(tmp_path / "one"))
    run_pipeline(config(*small, "engine.workers=2"), [str(tree)], str(tmp_path / "two"))
    whole = digest(tmp_path / "one")
    assert sum("/docs/part" in k for k in whole) > 6
    assert digest(tmp_path / "two") == whole
    # What a killed run leaves: partitions without their mark, a stray temporary file, no ledger.
    os.unlink(tmp_path / "two/02-preprocess/done/docs/00001.json")
    (tmp_path / "two/03-exact_dedup/docs/.tmp-part-00000.parquet-abc").write_bytes(b"half")
    os.unlink(tmp_path / "two/03-exact_dedup/done/docs/00000.json")
    run_pipeline(config(*small), [str(tree)], str(tmp_path / "two"))
    assert digest(tmp_path / "two") == whole


def test_kept_copy_has_most_stars_then_latest_commit_for_any_order(tmp_path):
    rows = [
        {"repo_name": "r/few", "path": "x.py", "content": "a = 1\n", "star_events_count": 3, "committer_date": "2020-01-01T00:00:00"},
        {"repo_name": "r/many", "path": "x.py", "content": "a = 1\n", "star_events_count": 9, "committer_date": "2019-01-01T00:00:00"},
        {"repo_name": "r/later", "path": "x.py", "content": "a = 1\n", "star_events_count": 9, "committer_date": "2021-01-01T00:00:00"},
        {"repo_name": "r/none", "path": "x.py", "content": "a = 1\n", "star_events_count": None, "committer_date": "2023-01-01T00:00:00"},
        {"repo_name": "r/b", "path": "y.py", "content": "b = 1\n"},
        {"repo_name": "r/a", "path": "y.py", "content": "b = 1\n"},
    ]  # fmt: skip
    for number, order in enumerate([rows, rows[::-1], rows[3:] + rows[:3]]):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "data.jsonl").write_text("".join(json.dumps(r) + "\n" for r in order) + "{broken\n")
        output = str(tmp_path / f"out{number}")
        run_pipeline(config("layout.shuffle_rows=2"), [str(tmp_path / f"{number}")], output)
        kept = {(r["repo"], r["stars"]) for r in documents(output).to_pylist()}
        assert kept == {("r/later", 9), ("r/a", None)}
        assert fates(output)["line 7"] == ("ingest", "unreadable_row")


def test_archives_git_and_tables(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    with tarfile.open(root / "p.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("p-1.0/mod.py")
        info.size, info.mtime = 6, 1_600_000_000
        archive.addfile(info, io.BytesIO(b"z = 1\n"))
    with zipfile.ZipFile(root / "q.zip", "w") as archive:
        archive.writestr("q/mod.go", "package q\n")
    (root / "broken.tar.gz").write_bytes((root / "p.tar.gz").read_bytes()[:60])
    (root / "broken.zip").write_bytes(b"PK\x03\x04 not")
    pq.write_table(pa.table({"x": [1]}), root / "ignored.parquet")
    repo = pygit2.init_repository(str(root / "repo"))
    author = pygit2.Signature("A", "a@b.c", 1_000, 0)
    parents = []
    for time, files in ((1_000, {"old.py": "o = 1\n", "new.py": "n = 0\n"}), (2_000, {"new.py": "n = 1\n"})):
        for name, text in files.items():
            (root / "repo" / name).write_text(text)
            repo.index.add(name)
        signature = pygit2.Signature("A", "a@b.c", time, 0)
        parents = [repo.create_commit("HEAD", author, signature, "m", repo.index.write_tree(), parents)]
    output = str(tmp_path / "out")
    run_pipeline(config(), [str(root)], output)
    found = {r["path"]: (r["source"], r["commit_time"], r["time_source"]) for r in documents(output).to_pylist()}
    assert found["old.py"] == ("in/repo", 1_000, "commit") and found["new.py"] == ("in/repo", 2_000, "commit")
    assert found["p-1.0/mod.py"] == ("in/p.tar.gz", 1_600_000_000, "archive") and found["q/mod.go"][0] == "in/q.zip"
    bad = {r["source"]: r["rule"] for r in read_ledger(output).to_pylist() if r["rule"] and r["path"] == ""}
    assert bad == {"in/broken.tar.gz": "unreadable_archive", "in/broken.zip": "unreadable_archive"}


def test_truncated_parquet_and_missing_column_do_not_stop_the_rest(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    pq.write_table(pa.table({"path": ["a.py", "b.py"], "text": ["a = 1\n", "b = 1\n"]}), root / "good.parquet")
    (root / "cut.parquet").write_bytes((root / "good.parquet").read_bytes()[:-20])
    pq.write_table(pa.table({"path": ["a.py"]}), root / "nocontent.parquet")
    output = str(tmp_path / "out")
    summary = run_pipeline(config(), [str(root)], output)
    bad = {r["source"]: r["detail"] for r in read_ledger(output).to_pylist() if r["rule"] == "unreadable_table"}
    assert set(bad) == {"in/cut.parquet", "in/nocontent.parquet"} and "no column content" in bad["in/nocontent.parquet"]
    assert summary["files_kept"] == 2


def test_stage_by_itself_reads_the_parquet_of_an_earlier_run(tree, tmp_path):
    run_pipeline(config(stages=("ingest", "preprocess")), [str(tree)], str(tmp_path / "one"))
    run_pipeline(
        config(stages=("ingest", "exact_dedup")), [str(tmp_path / "one/02-preprocess/docs")], str(tmp_path / "two")
    )
    run_pipeline(config(), [str(tree)], str(tmp_path / "whole"))
    assert documents(tmp_path / "two").to_pylist() == documents(tmp_path / "whole").to_pylist()


def test_a_single_stage_is_enough_and_a_missing_language_is_named(tree, tmp_path, capsys):
    from opencoder_data.refinecode.__main__ import main

    quick = ["--engine.workers=1", "--engine.progress=false", "--filter.time_limit_s=0"]
    assert main([f"--input={tree}", f"--output={tmp_path / 'one'}", "--stages=preprocess", *quick]) == 0
    directory = tmp_path / "one/02-preprocess/docs"
    assert main([f"--input={directory}", f"--output={tmp_path / 'two'}", "--stages=exact_dedup", *quick]) == 0
    run_pipeline(config(), [str(tree)], str(tmp_path / "whole"))
    assert documents(tmp_path / "two").to_pylist() == documents(tmp_path / "whole").to_pylist()
    assert main([f"--input={tree}", f"--output={tmp_path / 'filtered'}", "--stages=filter", *quick]) == 0
    lines = [r for r in read_ledger(str(tmp_path / "filtered")).to_pylist() if r["stage"] == "filter"]
    assert lines and {r["rule"] for r in lines} == {"no_language"} and "preprocess" in lines[0]["detail"]


def test_help_names_every_field(capsys):
    from opencoder_data.refinecode.__main__ import main
    from opencoder_data.refinecode.config import fields_and_defaults, load

    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"--{line}" in shown for line in fields_and_defaults())
    # What is shown is what the command line takes.
    assert load(None, fields_and_defaults()) == load()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input=/nowhere/at/all"], "does not exist"),
        (["--input={tree}", "--layout.batchmb=3"], "did you mean layout.batch_mb"),
        (["--input={tree}", "--layout.batch_mb=big"], "takes float"),
        (["--input={tree}", "--stages=ingest,cook"], "is not a stage"),
        (["--input={tree}", "--engine.executor=spark"], "local or ray"),
        (["--input={tree}", "--stages="], "stages is empty"),
        (["--input={tree}", "--input={tree}/"], "is given twice"),
        (["--input={tree}", "--config={tree}/a/main.py"], "not valid TOML"),
    ],
)
def test_bad_command_line(arguments, message, tree, tmp_path, capsys):
    from opencoder_data.refinecode.__main__ import main

    arguments = [a.format(tree=tree) for a in arguments]
    assert main([*arguments, f"--output={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_output_of_another_run_is_rejected_and_overwrite_redoes_what_changed(tree, tmp_path):
    output = str(tmp_path / "out")
    run_pipeline(config(), [str(tree)], output)
    ingest_file = os.path.join(output, "01-ingest/docs/part-00000.parquet")
    before = os.stat(ingest_file).st_mtime_ns
    changed = config("preprocess.languages=c")
    with pytest.raises(ValueError, match="stage preprocess"):
        run_pipeline(changed, [str(tree)], output)
    assert run_pipeline(changed, [str(tree)], output, overwrite=True)["files_kept"] == 1
    assert os.stat(ingest_file).st_mtime_ns == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.txt").write_text("keep me")
    with pytest.raises(ValueError, match="holds other files"):
        run_pipeline(config(), [str(tree)], str(tmp_path / "other"))


def test_command_line_runs_in_a_process_of_its_own(tree, tmp_path):
    import sys

    command = [sys.executable, "-m", "opencoder_data.refinecode", f"--input={tree}", f"--output={tmp_path / 'out'}"]
    done = subprocess.run(
        [*command, f"--stages={','.join(THIN)}", "--engine.workers=2"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "files kept           7" in done.stdout
    assert storage.exists(str(tmp_path / "out/summary.json"))
