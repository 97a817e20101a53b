"""Bad input at the command line: one clear line; the rest is processed and the bad item is in the ledger."""

import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from opencoder_data.refinecode.__main__ import main
from opencoder_data.refinecode.ledger import read_ledger

QUICK = ("--engine.workers=1", "--engine.progress=false", "--stages=ingest,preprocess,exact_dedup,sample")
WHOLE = ("--engine.workers=1", "--engine.progress=false", "--filter.time_limit_s=0")


def rows(count):
    return {
        "path": [f"{i}.py" for i in range(count)],
        "content": [f"def f{i}(a):\n    return a + {i}\n" * 30 for i in range(count)],
    }


@pytest.fixture
def corpus(tmp_path):
    """Good files beside one of each broken kind."""
    root = tmp_path / "in"
    root.mkdir()
    (root / "good.py").write_text("x = 1\n")
    (root / "noise.tar.gz").write_bytes(os.urandom(3_000))
    (root / "noise.zip").write_bytes(os.urandom(3_000))
    with tarfile.open(root / "half.tar", "w") as archive:
        for i in range(10):
            info = tarfile.TarInfo(f"member{i}.py")
            info.size = 4_000
            archive.addfile(info, io.BytesIO(f"y{i} = 1\n".ljust(4_000, "#").encode()))
    whole = (root / "half.tar").read_bytes()
    (root / "half.tar").write_bytes(whole[: len(whole) // 2])
    return root


def ledger_of(output):
    return read_ledger(str(output)).to_pylist()


def rejected(arguments, capsys):
    """The one line on standard error of a command that exits with 2."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1 and captured.out == ""
    return captured.err


def test_unreadable_archives(corpus, tmp_path, capsys):
    assert main([f"--input={corpus}", f"--output={tmp_path / 'out'}", *QUICK]) == 0
    assert "unreadable_archive" in capsys.readouterr().out
    ledger = ledger_of(tmp_path / "out")
    bad = {r["source"]: r["detail"] for r in ledger if r["rule"] == "unreadable_archive"}
    assert set(bad) == {"in/noise.tar.gz", "in/noise.zip", "in/half.tar"} and all(bad.values())
    # What could be read before the end is kept.
    kept = {r["path"] for r in ledger if r["status"] == "kept"}
    assert {"good.py", "member0.py", "member1.py"} <= kept and "member9.py" not in kept


def test_sizes_that_a_header_only_declares_are_not_counted(tmp_path):
    """A tar that names 64 GiB and ends after 30,720 bytes of them, a sparse one, and a zip whose index lies."""
    root = tmp_path / "in"
    root.mkdir()

    def header(path, size, mtime=1_700_000_000, **pax_headers):
        info = tarfile.TarInfo(path)
        info.size, info.mtime, info.pax_headers = size, mtime, pax_headers
        return info.tobuf(tarfile.PAX_FORMAT)

    small = b"x = 1\n".ljust(512, b"#")
    (root / "huge.tar").write_bytes(
        header("first.py", 512, mtime=2**40) + small
        + header("real.py", 9_000_064) + b"#" * 9_000_064 + bytes(-9_000_064 % 512)
        + header("huge.py", 2**36 + 1) + b"#" * 30_720
    )  # fmt: skip
    # "mtime" in place of a keyword of the same length, which the writer lets pass.
    endless = header("when.py", 512, gname="inf").replace(b"gname=inf", b"mtime=inf")
    (root / "time.tar").write_bytes(endless + small + bytes(1024))
    sparse = {"GNU.sparse.size": str(2**40), "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,512"}
    info = tarfile.TarInfo("holes.py")
    info.size, info.pax_headers = 512, sparse
    (root / "sparse.tar").write_bytes(info.tobuf(tarfile.PAX_FORMAT) + small + bytes(1024))
    # Pieces that are declared and not there, and a member of no known type: nobody may wait for their 8 EiB.
    info.name, info.size, info.pax_headers = "piece.py", 2**62, {**sparse, "GNU.sparse.map": f"0,{2**62}"}
    (root / "pieces.tar").write_bytes(info.tobuf(tarfile.PAX_FORMAT) + small)
    info = tarfile.TarInfo("odd.py")
    info.size, info.type = 2**62, b"Z"
    (root / "type.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + small)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("z.py", small)
    index = packed.getvalue().replace((512).to_bytes(4, "little"), (2**32 - 2).to_bytes(4, "little"))
    assert index != packed.getvalue()
    (root / "index.zip").write_bytes(index)

    assert main([f"--input={root}", f"--output={tmp_path / 'out'}", *QUICK]) == 0
    found = {r["path"] or r["source"]: (r["rule"], r["size"]) for r in ledger_of(tmp_path / "out")}
    assert found == {
        "first.py": (None, 512), "when.py": ("exact_duplicate", 512), "real.py": ("size_limit", 9_000_064),
        "huge.py": ("size_limit", 30_720), "in/huge.tar": ("unreadable_archive", 0), "holes.py": ("size_limit", 512),
        "z.py": ("size_limit", 512), "piece.py": ("size_limit", 512), "in/pieces.tar": ("unreadable_archive", 0),
        "odd.py": ("not_a_file", 0), "in/type.tar": ("unreadable_archive", 0),
    }  # fmt: skip
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["bytes_in"] == 9_000_064 + 30_720 + 4 * 512 + 512
    documents = pq.read_table(tmp_path / "out/documents").to_pylist()
    assert [d["commit_time"] for d in documents] == [None]


def test_tables_with_values_out_of_range_or_of_the_wrong_type(tmp_path):
    good = {"path": "a.py", "content": "x = 1\n"}
    own = {
        "doc_id": "0",
        "source": "s",
        "language": None,
        "doc_type": None,
        "size": 6,
        "sha256": "0",
        "encoding": "utf-8",
    }
    lines = [
        {**good, "stars": 10**30, "commit_time": 1e300, "licence": "\ud800"},
        {**good, "path": "b.py", "content": "y = 1\n", "stars": "many", "commit_time": {"a": 1}, "licence": 3},
        {**good, **own, "path": "c.py", "content": "z = 1\n", "time_source": 3},
        {**good, **own, "path": "d.py", "content": "u = 1\n", "time_source": None, "size": 10**30},
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main([f"--input={tmp_path / 'in.jsonl'}", f"--output={tmp_path / 'out'}", *QUICK]) == 0
    documents = pq.read_table(tmp_path / "out/documents").to_pylist()
    assert {d["path"] for d in documents} == {"a.py", "b.py", "c.py", "d.py"}
    assert {d["stars"] for d in documents} == {d["commit_time"] for d in documents} == {None}


def test_truncated_and_corrupt_parquet(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    pq.write_table(pa.table(rows(200)), root / "good.parquet", row_group_size=20)
    data = (root / "good.parquet").read_bytes()
    (root / "cut.parquet").write_bytes(data[: len(data) // 2])
    corrupt = bytearray(data)
    corrupt[300:900] = b"\xff" * 600
    (root / "page.parquet").write_bytes(corrupt)
    (root / "none.parquet").write_bytes(b"")
    pq.write_table(pa.table({"path": ["z.py"]}), root / "column.parquet")
    assert main([f"--input={root}", f"--output={tmp_path / 'out'}", *QUICK]) == 0
    ledger = ledger_of(tmp_path / "out")
    bad = {r["source"]: r["detail"] for r in ledger if r["rule"] == "unreadable_table"}
    assert set(bad) == {"in/cut.parquet", "in/page.parquet", "in/none.parquet", "in/column.parquet"}
    assert "20 rows from row 0" in bad["in/page.parquet"] and "no column content" in bad["in/column.parquet"]
    assert "footer" in bad["in/cut.parquet"] and "0 bytes" in bad["in/none.parquet"]
    # Each row of a rejected row group counts; the other row groups are read: copies of the good file's rows.
    copies = [r for r in ledger if r["source"] == "in/page.parquet" and r["rule"] != "unreadable_table"]
    assert len(copies) == 180 and len({r["doc_id"] for r in ledger}) == len(ledger) == 200 + 180 + 20 + 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("filter.thresholds.code/python.qsc_code_num_linez=x < 3", "did you mean 'qsc_code_num_lines'"),
        ("filter.thresholds.code/python.qsc_code_num_lines=less than 3", "'less than 3' does not parse"),
        ("filter.thresholds.code/python=5", "takes a table of signals"),
        ("fuzzy_dedup.preset=9x9", "presets: 128x16"),
        ("sample.sizes=java=many", "sample.sizes.java: 'many' is not a size"),
        ("sample.ratios=java=1.5", "must be in [0, 1]"),
        ("ingest.kind=cobol", "ingest.kind is one of"),
        ("layout.batch_mb=0", "layout.batch_mb must be positive"),
        ("engine.memory_mb=100", "too little for one worker"),
    ],
)
def test_bad_configuration_stops_before_any_work(override, message, corpus, tmp_path, capsys):
    output = tmp_path / "out"
    error = rejected([f"--input={corpus}", f"--output={output}", f"--{override}", *WHOLE], capsys)
    assert message in error and not output.exists()


def test_bad_rule_in_a_file(corpus, tmp_path, capsys):
    file = tmp_path / "c.toml"
    file.write_text('[filter.thresholds."code/python"]\nqsc_code_num_lines = "x <"\n')
    error = rejected([f"--input={corpus}", f"--output={tmp_path / 'out'}", f"--config={file}", *WHOLE], capsys)
    assert "code/python/qsc_code_num_lines: 'x <' does not parse" in error


def test_output_directories(corpus, tmp_path, capsys):
    output = str(tmp_path / "out")
    assert main([f"--input={corpus}", f"--output={output}", *QUICK]) == 0
    capsys.readouterr()
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.py").write_text("a = 1\n")
    before = {p: p.read_bytes() for p in Path(output).rglob("*") if p.is_file()}
    assert "holds stage ingest of a run with another input" in rejected(
        [f"--input={other}", f"--output={output}", *QUICK], capsys
    )
    assert "holds stage sample of a run with another input or configuration" in rejected(
        [f"--input={corpus}", f"--output={output}", "--sample.seed=5", *QUICK], capsys
    )
    assert {p: p.read_bytes() for p in Path(output).rglob("*") if p.is_file()} == before
    assert "holds other files" in rejected([f"--input={corpus}", f"--output={other}", *QUICK], capsys)
    assert "is in the input" in rejected([f"--input={corpus}", f"--output={corpus / 'out'}", *QUICK], capsys)
    # Another width of the engine is no other run.
    assert main([f"--input={corpus}", f"--output={output}", *QUICK, "--engine.workers=2"]) == 0


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/nowhere/at/all", "does not exist"),
        ("memory://nothing-here", "does not exist"),
        ("foo://x", "Protocol not known: foo"),
        ("{empty}", "nothing to read"),
        ("{file}", "of no known kind"),
    ],
)
def test_bad_inputs(source, message, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.xyz").write_text("?")
    source = source.format(empty=tmp_path / "empty", file=tmp_path / "file.xyz")
    assert message in rejected([f"--input={source}", f"--output={tmp_path / 'out'}", *QUICK], capsys)


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_object_store_without_its_package(scheme, package, tmp_path, capsys):
    import importlib.util

    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    error = rejected([f"--input={scheme}://bucket/x", f"--output={tmp_path / 'out'}", *QUICK], capsys)
    assert package in error


def test_an_overwritten_run_leaves_nothing_of_the_one_before(tmp_path, monkeypatch):
    """Fewer partitions than before: no document of the old ones stays, and a stopped rerun is not finished."""
    from opencoder_data.refinecode import pipeline
    from opencoder_data.refinecode.report.collect import open_run

    (tmp_path / "in").mkdir()
    for i in range(30):
        (tmp_path / "in" / f"{i}.py").write_text(f"x = {i}\n")
    output = str(tmp_path / "out")
    arguments = [f"--input={tmp_path / 'in'}", f"--output={output}", *QUICK]
    assert main([*arguments, "--layout.partition_mb=0.01"]) == 0
    assert len(list(Path(output, "documents").iterdir())) > 4
    with monkeypatch.context() as patch:
        patch.setitem(pipeline.RUN, "sample", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        patch.setattr(pipeline, "code_version", lambda _: "")
        assert main([*arguments, "--overwrite"]) == 130
    with pytest.raises(ValueError, match="not finished"):
        open_run(output)
    assert main([*arguments, "--overwrite"]) == 0
    assert [p.name for p in Path(output, "documents").iterdir()] == ["part-00000.parquet"]
    assert len([r for r in ledger_of(output) if r["status"] == "kept"]) == 30
