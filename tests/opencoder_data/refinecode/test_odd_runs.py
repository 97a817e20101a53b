"""Runs under odd conditions: memory bounds, Ctrl-C, a second run on the same output, few open files, locale, user."""

import contextlib
import dataclasses
import gzip
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from opencoder_data.refinecode import lock
from opencoder_data.refinecode.__main__ import main
from opencoder_data.refinecode.config import IngestConfig
from opencoder_data.refinecode.ingest.bounds import within_memory
from opencoder_data.refinecode.ingest.raw_file import RawFile
from opencoder_data.refinecode.ledger import read_ledger

from .test_killed import digest, session_members
from .test_odd_archives import bounded
from .test_odd_tables import ingest

ROOT = Path(__file__).parents[3]
OPTIONS = (
    "--engine.progress=false",
    "--stages=ingest,preprocess,exact_dedup,transform,sample",
    "--layout.partition_mb=0.02",
)


def command(source, output, *options):
    return [
        sys.executable,
        "-m",
        "opencoder_data.refinecode",
        f"--input={source}",
        f"--output={output}",
        *OPTIONS,
        *options,
    ]


def gz_lines(path, *pieces):
    """Pieces of bytes, or numbers of letters x, as lines in gzip without holding them."""
    with gzip.open(path, "wb", compresslevel=1) as out:
        for piece in pieces:
            if isinstance(piece, int):
                for _ in range(piece >> 20):
                    out.write(b"x" * (1 << 20))
            else:
                out.write(piece)


def test_tables_that_unfold_cost_their_rows_and_no_memory(tmp_path):
    """A line of 512 MiB, a dictionary of 8 kB that unfolds to 40 GB, a line of JSON that is 20 times as large in memory."""
    root = tmp_path / "in"
    root.mkdir()
    line = json.dumps({"text": "a = 1\n", "path": "a.py"}).encode() + b"\n"
    last = json.dumps({"text": "z = 1\n", "path": "z.py"}).encode() + b"\n"
    gz_lines(root / "line.jsonl.gz", line, b'{"text": "', 1 << 29, b'"}\n', last)
    gz_lines(root / "amplified.jsonl.gz", line, b'{"text": "b", "n": [' + b"{}," * 8_000_000 + b"{}]}\n", last)
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), pa.array(["y" * 20_000_000]))
    pq.write_table(pa.table({"content": text}), root / "dictionary.parquet", compression="zstd", store_schema=False)
    small = pa.DictionaryArray.from_arrays(pa.array([0] * 9000, pa.int32()), pa.array(["y = 1\n" * 1_300_000]))
    pq.write_table(pa.table({"content": small}), root / "small.parquet", compression="zstd", store_schema=False)
    assert (root / "dictionary.parquet").stat().st_size < 20_000
    code, errors = bounded(root, tmp_path / "out")
    assert code == 0, errors
    rows = read_ledger(str(tmp_path / "out")).to_pylist()
    of = lambda name: [r for r in rows if r["source"] == f"in/{name}"]  # noqa: E731
    assert [(r["path"], r["rule"]) for r in of("line.jsonl.gz")] == [
        ("a.py", None),
        ("line 2", "size_limit"),
        ("z.py", None),
    ]
    amplified = [(r["path"], r["rule"]) for r in of("amplified.jsonl.gz")]
    assert amplified[0] == ("a.py", None) and amplified[2:] == [("z.py", None)]
    fates = {(r["stage"], r["rule"]) for r in of("dictionary.parquet")}
    assert fates == {("ingest", "size_limit"), ("ingest", "archive_limit")}
    assert len(of("dictionary.parquet")) == 2000 and len(of("small.parquet")) == 9000
    assert "archive_limit" in {r["rule"] for r in of("small.parquet")}


def test_what_a_reader_allocates_beyond_the_bound_costs_one_row():
    """Whatever allocates: the bound is the operating system's. Afterwards it is gone."""

    def reader():
        yield RawFile("s", "", "first")
        yield RawFile("s", "", f"{len(bytearray(600_000_000))}")

    config = dataclasses.replace(IngestConfig(), max_memory_mb=300)
    before = resource.getrlimit(resource.RLIMIT_AS)
    found = list(within_memory(reader(), config, "s"))
    assert [(r.path, r.rule) for r in found] == [("first", ""), ("", "memory_limit")]
    assert resource.getrlimit(resource.RLIMIT_AS) == before and len(bytearray(600_000_000)) == 600_000_000


@pytest.fixture
def corpus(tmp_path, corpus_writer):
    corpus_writer(tmp_path / "in", families=4)
    return tmp_path / "in"


def interrupted(corpus, output, workers, delay):
    """(exit code, standard error) of a run to whose group Ctrl-C was sent after `delay` seconds; nobody of it is left."""
    process = subprocess.Popen(
        command(corpus, output, f"--engine.workers={workers}"), start_new_session=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    time.sleep(delay)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    end = time.monotonic() + 10
    while session_members(process.pid):
        assert time.monotonic() < end, "children outlive the run"
        time.sleep(0.02)
    return process.returncode, errors


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_ctrl_c_ends_with_one_line_and_a_rerun_gives_equal_bytes(workers, corpus, tmp_path):
    whole = tmp_path / "whole"
    subprocess.run(command(corpus, whole, "--engine.workers=1"), check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    stopped = 0
    for delay in (0.4, 1.6):
        code, errors = interrupted(corpus, tmp_path / "out", workers, delay)
        if code == 0:
            break
        assert (code, errors) == (130, "stopped; the same command resumes\n"), errors
        assert not [p for p in (tmp_path / "out").rglob(".*")], "temporary files or a lock are left"
        stopped += 1
    assert stopped
    subprocess.run(
        command(corpus, tmp_path / "out", f"--engine.workers={workers}"),
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=ROOT,
    )
    assert digest(tmp_path / "out") == digest(whole)


def test_a_second_run_on_the_same_output_is_rejected_and_touches_nothing(corpus, tmp_path, capsys):
    output = tmp_path / "out"
    output.mkdir()
    arguments = command(corpus, output, "--engine.workers=1")[3:]
    temporary = output / ".tmp-part-00000.parquet-x"
    with lock.held(str(output)):
        temporary.write_text("in writing")
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert f"in use by another run (process {os.getpid()} on " in error and error.count("\n") == 1
        assert temporary.read_text() == "in writing" and (output / ".lock").exists()
    assert not (output / ".lock").exists()
    assert main(arguments) == 0 and not temporary.exists()


def test_a_lock_left_by_a_killed_run_does_not_hold(tmp_path):
    output = tmp_path / "out"
    hold = f"from opencoder_data.refinecode import lock; import time\nwith lock.held({str(output)!r}): print(1, flush=True); time.sleep(99)"
    holder = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, cwd=ROOT)
    assert holder.stdout and holder.stdout.readline()
    with pytest.raises(ValueError, match=f"process {holder.pid} on"), lock.held(str(output)):
        pass
    holder.kill()
    holder.wait()
    assert (output / ".lock").exists()
    with lock.held(str(output)):
        pass
    assert not (output / ".lock").exists()


def limit_files(soft, hard):
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_few_open_files(corpus, tmp_path):
    done = subprocess.run(
        command(corpus, tmp_path / "out", "--engine.workers=2"), capture_output=True, text=True, cwd=ROOT,
        preexec_fn=limit_files(24, 24),
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "ulimit -n" in done.stderr
    assert not (tmp_path / "out").exists()
    raised = "from opencoder_data.refinecode.engine import need_open_files as n; import resource; n(2); print(resource.getrlimit(7))"
    done = subprocess.run(
        [sys.executable, "-c", raised], capture_output=True, text=True, cwd=ROOT, preexec_fn=limit_files(24, 4096)
    )
    assert done.stdout == "(80, 4096)\n", done.stderr


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({"LC_ALL": "C"}, marks=pytest.mark.slow),
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_names_beyond_ascii_in_the_c_locale(environment, tmp_path):
    root = tmp_path / "größe-中"
    root.mkdir()
    (root / "ü中.py").write_text("x = 'ü'\n", encoding="utf-8")
    line = json.dumps({"text": "y = 'é中'\n", "path": "é中.py"}, ensure_ascii=False).encode() + b"\n"
    (tmp_path / "täble.jsonl").write_bytes(line)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHONUTF8"))}
    done = subprocess.run(
        [*command(root, tmp_path / "aus-é", "--engine.workers=2"), f"--input={tmp_path / 'täble.jsonl'}"], cwd=ROOT,
        capture_output=True, env={**clean, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = read_ledger(str(tmp_path / "aus-é")).to_pylist()
    assert {(r["source"], r["path"]) for r in rows} == {("größe-中", "ü中.py"), ("täble.jsonl", "é中.py")}
    documents, _, _ = ingest(root, tmp_path / "again")
    assert {r["doc_id"] for r in rows} >= {d["doc_id"] for d in documents}


def test_as_another_user(corpus, tmp_path):
    """Without a home, without the right to write to the program's directory; what may not be read has a row."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    as_other = {"user": 65534, "group": 65534, "extra_groups": []}
    try:
        subprocess.run([sys.executable, "-c", "import opencoder_data, pyarrow"], cwd="/", check=True, **as_other)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("the program cannot be read by others")
    (corpus / "closed.py").write_text("c = 1\n")
    (corpus / "closed.py").chmod(0)
    (corpus / "closed").mkdir(mode=0)
    output = tmp_path / "out"
    output.mkdir(mode=0o777)
    output.chmod(0o777)
    for directory in [tmp_path, *tmp_path.parents][:3]:
        directory.chmod(directory.stat().st_mode | 0o055)
    environment = {**os.environ, "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
    whole = [a for a in command(corpus, output, "--engine.workers=2") if not a.startswith("--stages")]
    done = subprocess.run(whole, cwd="/", capture_output=True, text=True, env=environment, **as_other)
    assert done.returncode == 0, done.stderr
    rules = {r["path"]: r["rule"] for r in read_ledger(str(output)).to_pylist()}
    assert (rules["closed.py"] == "unreadable" and rules["closed"] == "unreadable") or "closed" in rules
    output.chmod(0o755)
    (output / "summary.json").chmod(0o600)
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o755)
    rejected = subprocess.run(
        [a if not a.startswith("--output") else f"--output={locked}" for a in whole], cwd="/", capture_output=True, text=True,
        env=environment, **as_other,
    )  # fmt: skip
    assert rejected.returncode == 2 and rejected.stderr.count("\n") == 1 and "Permission denied" in rejected.stderr
