"""Tables with odd rows: each costs itself, its neighbors are read, and what metadata does not convert is null and counted."""

import datetime
import decimal
import gzip
import hashlib
import json
import lzma

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
import zstandard
from opencoder_data.refinecode.config import load
from opencoder_data.refinecode.ledger import read_ledger
from opencoder_data.refinecode.pipeline import run_pipeline

CODE = [f"import os\nprint(os.getcwd(), {i})\n" for i in range(6)]
PATHS = [f"a{i}.py" for i in range(6)]


def ingest(source, output, *overrides):
    """(documents, ledger rows, summary), both in the order of the input."""
    config = load(None, ["stages=ingest,preprocess", "engine.workers=1", "engine.progress=false", *overrides])
    summary = run_pipeline(config, [str(source)], str(output))
    documents = [r for p in sorted((output / "documents").iterdir()) for r in pq.read_table(p).to_pylist()]
    ledger = read_ledger(str(output)).to_pylist()
    assert summary["files_in"] == len(ledger) == len({r["doc_id"] for r in ledger})
    return documents, ledger, summary


def parquet(tmp_path, columns, **options):
    """What `ingest` gives of a table."""
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    pq.write_table(table, tmp_path / "t.parquet", **options)
    return ingest(tmp_path / "t.parquet", tmp_path / "out")


SECOND = 1_500_000_000
TIMES = {
    "seconds": (
        pa.array([SECOND, 10**12, -1, None, 0, 10**15], pa.timestamp("s")),
        [SECOND, None, None, None, 0, None],
        3,
    ),
    "milliseconds": (pa.array([SECOND * 1000 + 7, 10**18], pa.timestamp("ms")), [SECOND, None], 1),
    "microseconds": (pa.array([SECOND * 10**6 + 1, -(2**62)], pa.timestamp("us")), [SECOND, None], 1),
    "nanoseconds": (pa.array([SECOND * 10**9 + 1, 2**63 - 1], pa.timestamp("ns")), [SECOND, None], 1),
    "zone": (pa.array([SECOND * 10**6], pa.timestamp("us", tz="Asia/Kolkata")), [SECOND], 0),
    "unknown zone": (pa.array([SECOND], pa.timestamp("s", tz="Mars/Olympus")), [SECOND], 0),
    "date32": (pa.array([17_000, 10_000_000, -5], pa.date32()), [17_000 * 86_400, None, None], 2),
    "date64": (pa.array([17_000 * 86_400_000, 2**62], pa.date64()), [17_000 * 86_400, None], 1),
    "epochs": (
        pa.array([SECOND, SECOND * 1000, SECOND * 10**6, SECOND * 10**9, 0, 2**63 - 1], pa.int64()),
        [SECOND, SECOND, SECOND, SECOND, 0, None],
        1,
    ),
    "text": (
        ["2017-07-14T02:40:00Z", "2017-07-14 02:40:00 UTC", "2017-07-14T04:40:00+02:00", str(SECOND), "soon", ""],
        [SECOND, SECOND, SECOND, SECOND, None, None],
        1,
    ),
    "floats": (pa.array([SECOND + 0.5, float("nan"), float("inf"), -1e300]), [SECOND, None, None, None], 2),
    "bool": ([True, False], [None, None], 2),
    "decimal": (pa.array([decimal.Decimal(SECOND), decimal.Decimal("1E+30")], pa.decimal128(38)), [SECOND, None], 1),
    "struct": ([{"a": 1}], [None], 1),
    "list": ([[SECOND], None], [None, None], 1),
    "duration": (pa.array([5], pa.duration("s")), [None], 1),
    "dictionary": (
        pa.array([SECOND, 10**12, SECOND], pa.timestamp("s")).dictionary_encode(),
        [SECOND, None, SECOND],
        1,
    ),
    "binary": (pa.array([b"2017-07-14T02:40:00Z", b"\xff"]), [SECOND, None], 1),
}


@pytest.mark.parametrize("name", TIMES)
def test_a_time_that_is_none_is_null_and_counted(name, tmp_path):
    values, right, odd = TIMES[name]
    documents, ledger, summary = parquet(
        tmp_path, {"content": CODE[: len(right)], "path": PATHS[: len(right)], "committer_date": values}
    )
    assert [d["commit_time"] for d in documents] == right and [d["content"] for d in documents] == CODE[: len(right)]
    assert summary.get("odd_metadata", {}) == ({"commit_time": odd} if odd else {})
    assert [r["detail"] for r in ledger].count("not readable: commit_time") == odd
    assert {d["time_source"] for d in documents} <= {"column", None}


def bad_strings(kind, index=3):
    """Six texts as an array of text, one of which is not UTF-8."""
    data = [c.encode() for c in CODE]
    data[index] = b"x='\xff\xfe'\n"
    wide = kind == pa.large_string()
    array = pa.array(data, pa.large_binary() if wide else pa.binary())
    return pa.Array.from_buffers(kind, 6, array.buffers())


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
@pytest.mark.parametrize("dictionary", [True, False])
def test_one_invalid_string_costs_its_row_alone(kind, dictionary, tmp_path):
    documents, ledger, _ = parquet(
        tmp_path, {"content": bad_strings(kind), "path": PATHS}, use_dictionary=dictionary, row_group_size=4
    )
    assert [d["path"] for d in documents] == ["a0.py", "a1.py", "a2.py", "a4.py", "a5.py"]
    assert [r["rule"] for r in ledger] == [None, None, None, "undecodable", None, None] and ledger[3]["size"] == 7


def test_invalid_strings_in_metadata_cost_no_row(tmp_path):
    bad = bad_strings(pa.string())
    documents, ledger, summary = parquet(
        tmp_path, {"content": CODE, "path": PATHS, "repo_name": bad, "license": bad, "lang": bad, "stars": bad}
    )
    assert [d["content"] for d in documents] == CODE and documents[3]["repo"] == "x='\\xff\\xfe'\n"
    assert documents[3]["stars"] is None and summary["odd_metadata"]["stars"] == 6
    assert summary["odd_metadata"]["repo"] == 1 and "repo" in ledger[3]["detail"]


@pytest.mark.parametrize(
    "content",
    [
        pa.array(CODE).dictionary_encode(),
        pa.array(CODE, pa.large_string()),
        pa.array(CODE, pa.string_view()),
        pa.array([c.encode() for c in CODE]),
        pa.array([c.encode() for c in CODE], pa.large_binary()),
        pa.array([c.encode() for c in CODE]).dictionary_encode(),
    ],
    ids=lambda array: str(array.type),
)
def test_every_type_of_text_is_read(content, tmp_path):
    assert [d["content"] for d in parquet(tmp_path, {"content": content, "path": PATHS})[0]] == CODE


@pytest.mark.parametrize(
    "content", [list(range(6)), [[c] for c in CODE], [{"a": c} for c in CODE], [None] * 6, [1.5] * 6, [True] * 6]
)
def test_what_is_not_text_is_rejected_row_by_row(content, tmp_path):
    documents, ledger, _ = parquet(tmp_path, {"content": content, "path": PATHS})
    assert documents == [] and {r["rule"] for r in ledger} == {"unreadable_row"} and len(ledger) == 6
    assert [r["path"] for r in ledger] == PATHS


def test_a_column_that_cannot_be_text_is_not_the_content(tmp_path):
    documents, _, _ = parquet(tmp_path, {"content": [{"a": 1}] * 6, "text": CODE, "path": PATHS})
    assert [d["content"] for d in documents] == CODE


def test_metadata_of_every_odd_type(tmp_path):
    documents, _, summary = parquet(
        tmp_path,
        {
            "content": CODE,
            "path": [{"dir": "x", "name": p} for p in PATHS],
            "repo": [["r"]] * 6,
            "stars": pa.array(["7", "many", None, "", "1e3", "9" * 30]),
            "license": [{"key": "mit"}] * 6,
            "language": [["python"]] * 6,
        },
    )
    assert len(documents) == 0 and summary["files_in"] == 6  # no name and no language that can be told
    assert summary["odd_metadata"] == {"language": 6, "path": 6, "repo": 6, "stars": 3}


def test_stars_that_are_bool_decimal_or_float(tmp_path):
    for number, (values, right) in enumerate(
        [
            ([True, False], [None, None]),
            (pa.array([decimal.Decimal("7.00"), None], pa.decimal128(9, 2)), [7, None]),
            (pa.array([7.0, float("nan")]), [7, None]),
            (pa.array([2**64 - 1, 5], pa.uint64()), [None, 5]),
        ]
    ):
        directory = tmp_path / str(number)
        directory.mkdir()
        documents, _, _ = parquet(directory, {"content": CODE[:2], "path": PATHS[:2], "stars": values})
        assert [d["stars"] for d in documents] == right


def test_duplicate_column_names(tmp_path):
    fields = [pa.field("content", pa.string()), pa.field("path", pa.string()), pa.field("content", pa.string()),
              pa.field("stars", pa.int64()), pa.field("stars", pa.string())]  # fmt: skip
    arrays = [pa.array(v) for v in (CODE, PATHS, ["other"] * 6, [1] * 6, ["x"] * 6)]
    documents, _, _ = parquet(tmp_path, pa.Table.from_arrays(arrays, schema=pa.schema(fields)))
    assert [d["content"] for d in documents] == CODE and {d["stars"] for d in documents} == {1}


@pytest.mark.parametrize("column", ["language", "lang", "programming_language"])
@pytest.mark.parametrize(("written", "right"), [("Python", "python"), ("C++", "cpp"), ("C#", "csharp"), ("Go", "go")])
def test_the_language_column_is_used_where_the_name_says_nothing(column, written, right, tmp_path):
    documents, _, _ = parquet(tmp_path, {"content": CODE, column: [written] * 6})
    assert {d["language"] for d in documents} == {right} and len(documents) == 6


def test_the_name_goes_before_the_language_column_and_bytes_are_read_for_it(tmp_path):
    data = [c.encode() for c in CODE]
    paths = ["a.py", "b.strange", "c", "d.go", "e.png", "f.py"]
    documents, _, _ = parquet(tmp_path, {"content": data, "path": paths, "lang": ["Ruby"] * 6})
    found = {d["path"]: d["language"] for d in documents}
    assert found["a.py"] == "python" and found["d.go"] == "go" and found["c"] == found["b.strange"] == "ruby"


GERMAN = "/* Größe für die Übergabe */\nint x;\n"


@pytest.mark.parametrize(
    ("declared", "data", "right"),
    [
        ("ISO-8859-1", GERMAN.encode("latin-1"), GERMAN),
        ("windows-1251", "// Привет\nint x;\n".encode("cp1251"), "// Привет\nint x;\n"),
        ("UTF-16LE", "int x; // ü\n".encode("utf-16-le"), "int x; // ü\n"),
        ("ISO-2022-JP", "// 日本\nint x;\n".encode("iso2022_jp"), "// 日本\nint x;\n"),
        ("ISO-8859-1", GERMAN.encode(), GERMAN),  # UTF-8 in truth
        ("EUC-JP", GERMAN.encode("latin-1"), None),  # does not fit: detection decides
        ("none-such", b"int x;\n", "int x;\n"),
        ("unicode_escape", b'char *s = "\\n";\n', 'char *s = "\\n";\n'),
        ("base64", b"int x;\n", "int x;\n"),
        ("undefined", b"int x;\n", "int x;\n"),
    ],
)
def test_the_declared_encoding_is_used_where_the_bytes_allow_it(declared, data, right, tmp_path):
    documents, ledger, _ = parquet(tmp_path, {"content": [data], "src_encoding": [declared], "path": ["a.c"]})
    assert len(ledger) == 1
    if right is not None:
        assert [d["content"] for d in documents] == [right]


OWN = {
    "repo": "r", "source": "s", "sha256": "1", "encoding": "utf-8", "language": "python", "doc_type": "code",
    "time_source": None, "size": 9,
}  # fmt: skip


def own_rows(ids, paths=None):
    return [{**OWN, "doc_id": i, "content": CODE[n % 6], "path": (paths or PATHS)[n % 6]} for n, i in enumerate(ids)]


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_ids_that_repeat_in_the_input_are_made_anew(form, tmp_path):
    rows = own_rows(["x", "x", "y", "z", "z", "z"], ["a.py"] * 6)
    (tmp_path / "in").mkdir()
    for name in ("one", "two"):
        if form == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in" / f"{name}.parquet", row_group_size=2)
        else:
            (tmp_path / "in" / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    documents, _, _ = ingest(tmp_path / "in", tmp_path / "out", "layout.partition_mb=0.0001")
    assert len({d["doc_id"] for d in documents}) == 12 and {d["source"] for d in documents} == {"s"}


@pytest.mark.parametrize("stated", ["1", "0" * 64, "not a sum", ""])
@pytest.mark.parametrize("form", ["parquet", "jsonl", "arrow"])
@pytest.mark.parametrize("own", [True, False])
def test_a_sha256_that_a_table_brings_is_not_believed(own, form, stated, tmp_path):
    """Believed, it would drop every file but one as an exact copy, or keep copies."""
    rows = [{**row, "sha256": stated} for row in own_rows(["a", "b", "c", "d"])] + [
        {**own_rows(["e"])[0], "sha256": "another", "path": "copy.py"}
    ]
    if not own:
        rows = [{k: row[k] for k in ("content", "path", "sha256")} | {"content_id": "7", "hash": "7"} for row in rows]
    path = tmp_path / f"t.{form}"
    if form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        pyarrow.feather.write_feather(pa.Table.from_pylist(rows), path)
    config = load(None, ["stages=ingest,preprocess,exact_dedup", "engine.workers=1", "engine.progress=false"])
    run_pipeline(config, [str(path)], str(tmp_path / "out"))
    documents = [r for p in sorted((tmp_path / "out" / "documents").iterdir()) for r in pq.read_table(p).to_pylist()]
    assert sorted(d["content"] for d in documents) == CODE[:4]
    assert all(d["sha256"] == hashlib.sha256(d["content"].encode()).hexdigest() for d in documents)


@pytest.mark.parametrize(
    "encoding", ["cp1252", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-8", "rot13", "none-such"]
)
def test_a_stated_sha256_counts_where_it_is_that_of_the_files_bytes(encoding, tmp_path):
    text = "x = 'größe'\n"
    bytes_ = {
        "utf-16": b"\xff\xfe" + text.encode("utf-16-le"), "utf-32": b"\0\0\xfe\xff" + text.encode("utf-32-be"),
        "utf-16-be": b"\xfe\xff" + text.encode("utf-16-be"), "rot13": b"x", "none-such": b"x",
    }.get(encoding) or text.encode(encoding)  # fmt: skip
    stated = hashlib.sha256(bytes_).hexdigest()
    name = encoding.removesuffix("-be")
    row = {**own_rows(["a"])[0], "content": text, "encoding": name, "sha256": stated}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "t.parquet")
    documents, _, _ = ingest(tmp_path / "t.parquet", tmp_path / "out")
    known = encoding not in ("rot13", "none-such")
    assert documents[0]["sha256"] == (stated if known else hashlib.sha256(text.encode()).hexdigest())


def test_ids_that_differ_in_all_inputs_stay(tmp_path):
    for name, ids in (("one", ["a", "b"]), ("two", ["c", "d"])):
        pq.write_table(pa.Table.from_pylist(own_rows(ids)), tmp_path / f"{name}.parquet")
    config = load(None, ["stages=ingest,preprocess", "engine.workers=1", "engine.progress=false"])
    inputs = [str(tmp_path / "one.parquet"), str(tmp_path / "two.parquet")]
    run_pipeline(config, inputs, str(tmp_path / "out"))
    assert set(read_ledger(str(tmp_path / "out")).column("doc_id").to_pylist()) == {"a", "b", "c", "d"}
    pq.write_table(pa.Table.from_pylist(own_rows(["c", "a"])), tmp_path / "two.parquet")
    run_pipeline(config, inputs, str(tmp_path / "again"))
    found = read_ledger(str(tmp_path / "again")).column("doc_id").to_pylist()
    assert len(set(found)) == 4 and not set(found) & {"a", "b", "c"}


def test_names_that_print_alike_are_two_files(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    for name in (b"a\xff.py", b"a\\xff.py", "a\u00ff.py".encode(), b"\xc3\x28.py"):
        (root / "x").write_bytes(b"print(%d)\n" % len(name))
        (root / "x").rename(str(root).encode().decode() + "/" + name.decode("utf-8", "surrogateescape"))
    # Each in a partition of its own.
    documents, _, _ = ingest(root, tmp_path / "out", "layout.partition_mb=0.0001")
    assert len(documents) == 4 and sorted(d["path"] for d in documents)[:2] == ["\\xc3(.py", "a\\xff.py"]


def test_archives_whose_names_print_alike_hold_different_files(tmp_path):
    import zipfile

    (tmp_path / "in").mkdir()
    for number, name in enumerate((b"z\xff.zip", b"z\\xff.zip")):
        with zipfile.ZipFile(tmp_path / "in" / name.decode("utf-8", "surrogateescape"), "w") as archive:
            archive.writestr("a.py", f"x = {number}\n")
    (tmp_path / "in" / "b.py").write_text("y = 1\n")
    assert len(ingest(tmp_path / "in", tmp_path / "out", "layout.partition_mb=0.0001")[0]) == 3


LINES = {
    "byte-order mark": b'\xef\xbb\xbf{"text": "x = 1\\n", "path": "a.py"}\n{"text": "y = 1\\n", "path": "b.py"}\n',
    "carriage returns": b'{"text": "x = 1\\n", "path": "a.py"}\r\n\r\n{"text": "y = 1\\n", "path": "b.py"}\r\n',
    "carriage returns alone": b'{"text": "x = 1\\n", "path": "a.py"}\r{"text": "y = 1\\n", "path": "b.py"}\r',
    "blank lines and spaces": b'\n  \n{"text": "x = 1\\n", "path": "a.py"}  \n\t\n {"text": "y = 1\\n", "path": "b.py"}',
    "not a number": b'{"text": "x = 1\\n", "path": "a.py", "stars": NaN, "commit_time": Infinity}\n'
    b'{"text": "y = 1\\n", "path": "b.py", "stars": 1e400}\n',
    "trailing comma": b'{"text": "x = 1\\n", "path": "a.py"}\n{"text": "z",}\n{"text": "y = 1\\n", "path": "b.py"}\n',
    "rows that are none": b'[]\n3\nnull\n"x"\n{"text": "x = 1\\n", "path": "a.py"}\n{}\n{"text": "y = 1\\n", "path": "b.py"}',
    "mixed types": b'{"text": 5, "path": "n.py"}\n{"text": "x = 1\\n", "path": "a.py", "stars": "7"}\n'
    b'{"text": ["q"], "path": 4}\n{"text": "y = 1\\n", "path": "b.py", "stars": {"n": 1}, "repo": 7, "lang": 3}\n',
    "surrogates": b'{"text": "\\ud800", "path": "s.py"}\n{"text": "x = 1\\n", "path": "a.py", "repo": "\\ud800"}\n'
    b'{"text": "y = 1\\n", "path": "b.py", "\\udfff": 1, "license": "\\udc00"}\n',
    "bytes that are not UTF-8": b'{"text": "\xff"}\n{"text": "x = 1\\n", "path": "a.py"}\n{"text": "y = 1\\n", "path": "b.py"}\n',
    "deep nesting": b'{"text": "x = 1\\n", "path": "a.py"}\n'
    + b"[" * 100_000
    + b'\n{"text": "y = 1\\n", "path": "b.py"}\n',
    "huge number": b'{"text": "x = 1\\n", "path": "a.py", "n": '
    + b"9" * 5_000
    + b'}\n{"text": "y = 1\\n", "path": "b.py"}\n'
    b'{"text": "x = 1\\n", "path": "a.py"}\n',
}


@pytest.mark.parametrize("name", LINES)
def test_odd_lines_cost_themselves(name, tmp_path):
    (tmp_path / "t.jsonl").write_bytes(LINES[name])
    documents, ledger, _ = ingest(tmp_path / "t.jsonl", tmp_path / "out")
    found = {(d["path"], d["content"]) for d in documents}
    assert found == {("a.py", "x = 1\n"), ("b.py", "y = 1\n")}
    assert len(ledger) >= 2


PACK = {
    "gz": gzip.compress, "zst": zstandard.compress, "xz": lzma.compress,
    "bz2": lambda data: __import__("bz2").compress(data),
}  # fmt: skip


@pytest.mark.parametrize(
    "suffix", [".json.gz", ".JSONL.GZ", ".json.zst", ".json.bz2", ".json.xz", ".ndjson.xz", ".jsonl.zst"]
)
def test_compressed_lines_in_several_streams(suffix, tmp_path):
    pack = PACK[suffix.lower().rsplit(".", 1)[-1]]
    lines = [json.dumps({"text": c, "path": p}).encode() + b"\n" for c, p in zip(CODE, PATHS, strict=True)]
    (tmp_path / f"t{suffix}").write_bytes(pack(b"".join(lines[:3])) + pack(b"".join(lines[3:])))
    assert [d["content"] for d in ingest(tmp_path / f"t{suffix}", tmp_path / "out")[0]] == CODE


def test_what_is_compressed_is_known_by_its_content(tmp_path):
    line = json.dumps({"text": CODE[0], "path": "a.py"}).encode() + b"\n"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_bytes(gzip.compress(line))
    (tmp_path / "in" / "b.jsonl.gz").write_bytes(line)
    assert len(ingest(tmp_path / "in", tmp_path / "out")[0]) == 2


@pytest.mark.parametrize("form", ["stream", "file", "feather"])
def test_arrow_files(form, tmp_path):
    table = pa.table(
        {"content": bad_strings(pa.string()), "path": PATHS, "commit_time": pa.array([10**12] * 6, pa.timestamp("s"))}
    )
    path = tmp_path / ("t.feather" if form == "feather" else "t.arrow")
    if form == "feather":
        pyarrow.feather.write_feather(table, path, compression="zstd")
    else:
        writer = pyarrow.ipc.new_stream if form == "stream" else pyarrow.ipc.new_file
        with writer(path, table.schema) as out:
            out.write_table(table, max_chunksize=4)
    documents, ledger, summary = ingest(path, tmp_path / "out")
    assert [d["path"] for d in documents] == ["a0.py", "a1.py", "a2.py", "a4.py", "a5.py"]
    assert len(ledger) == 6 and summary["odd_metadata"] == {"commit_time": 6}


def test_a_cut_arrow_file_keeps_what_came_before(tmp_path):
    table = pa.table({"content": CODE, "path": PATHS})
    with pyarrow.ipc.new_stream(tmp_path / "t.arrow", table.schema) as out:
        out.write_table(table, max_chunksize=2)
    data = (tmp_path / "t.arrow").read_bytes()
    (tmp_path / "t.arrow").write_bytes(data[: int(len(data) * 0.8)])
    documents, ledger, _ = ingest(tmp_path / "t.arrow", tmp_path / "out")
    assert 2 <= len(documents) < 6 and [r["rule"] for r in ledger].count("unreadable_table") == 1


def test_corruption_in_a_metadata_column_costs_no_row(tmp_path):
    rng = np.random.default_rng(0)
    stars = [int(v) for v in rng.integers(0, 2**60, 400)]
    content = [f"x = {i}\n" for i in range(400)]
    table = pa.table({"stars": stars, "content": content, "path": [f"{i}.py" for i in range(400)]})
    pq.write_table(table, tmp_path / "t.parquet", use_dictionary=False, compression="snappy", row_group_size=200)
    data = bytearray((tmp_path / "t.parquet").read_bytes())
    meta = pq.read_metadata(tmp_path / "t.parquet").row_group(1).column(0)
    data[meta.data_page_offset : meta.data_page_offset + 100] = b"\xff" * 100
    (tmp_path / "t.parquet").write_bytes(data)
    documents, _, summary = ingest(tmp_path / "t.parquet", tmp_path / "out")
    assert [d["content"] for d in documents] == content and summary["odd_metadata"] == {"stars": 200}
    assert [d["stars"] for d in documents] == stars[:200] + [None] * 200


def test_a_rejected_table_counts_its_rows(tmp_path):
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"body": CODE, "path": PATHS}), tmp_path / "in" / "column.parquet", row_group_size=4)
    table = pa.table({"content": [f"x = {i}\n" * 9 for i in range(50)]})
    pq.write_table(table, tmp_path / "in" / "page.parquet", row_group_size=25, use_dictionary=False)
    data = bytearray((tmp_path / "in" / "page.parquet").read_bytes())
    data[4:24] = b"\xff" * 20
    (tmp_path / "in" / "page.parquet").write_bytes(data)
    _, ledger, summary = ingest(tmp_path / "in", tmp_path / "out")
    rejected = [r for r in ledger if r["rule"] == "unreadable_table"]
    assert len(rejected) == 6 + 25 and summary["files_in"] == 6 + 50
    assert len({(r["source"], r["path"]) for r in rejected}) == 31


def test_dates_as_python_has_them(tmp_path):
    when = [datetime.datetime(2017, 7, 14, 2, 40, tzinfo=datetime.UTC)] * 2
    documents, _, _ = parquet(tmp_path, {"content": CODE[:2], "path": PATHS[:2], "revision_date": when})
    assert {d["commit_time"] for d in documents} == {SECOND}


def test_all_worksheets_of_an_old_notebook(tmp_path):
    def sheet(source):
        return {"cells": [{"cell_type": "code", "input": [source], "outputs": []}]}

    for number, sheets in enumerate(
        ([sheet("a = 1\n"), sheet("b = 2\n")], [sheet("a = 1\n"), {"cells": None}, "odd", {}, sheet("b = 2\n")])
    ):
        notebook = {"nbformat": 3, "metadata": {}, "worksheets": sheets}
        (tmp_path / f"{number}.ipynb").write_text(json.dumps(notebook))
    (tmp_path / "none.ipynb").write_text(json.dumps({"nbformat": 3, "worksheets": [{}]}))
    documents, ledger, _ = ingest(tmp_path, tmp_path.parent / f"{tmp_path.name}-out")
    assert len(documents) == 2 and all("a = 1" in d["content"] and "b = 2" in d["content"] for d in documents)
    assert [r["rule"] for r in ledger if r["rule"]] == ["unreadable_notebook"]


@pytest.mark.parametrize("longest", [10, 300_000, 3_000_000])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_binary()])
def test_a_dictionary_of_any_width_is_read_row_by_row(longest, kind, tmp_path, monkeypatch):
    from opencoder_data.refinecode.ingest import table_files

    monkeypatch.setattr(table_files, "_ROWS", 7)  # so that pieces refer to parts of the dictionary
    texts = [f"x = {i % 13}\n" + "#" * (longest if i % 13 == 5 else 0) for i in range(60)]
    texts[20] = None
    column = pa.array([t if t is None or kind == pa.string() else t.encode() for t in texts], kind)
    paths = [f"{'p' * (longest // 1000)}/{i % 10}.py" for i in range(60)]
    table = pa.table({"content": column, "path": paths})
    pq.write_table(
        table, tmp_path / "t.parquet", row_group_size=40, compression="zstd", dictionary_pagesize_limit=1 << 24
    )
    documents, ledger, _ = ingest(tmp_path / "t.parquet", tmp_path / "out")
    assert [d["content"] for d in documents] == [t for t in texts if t is not None]
    assert [r["path"] for r in ledger] == paths and ledger[20]["rule"] == "unreadable_row"


def test_pieces_of_a_table_are_unfolded_up_to_a_bound(tmp_path):
    from opencoder_data.refinecode.ingest import table_files

    texts = ["y" * 400_000, "x = 1\n"]
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1] * 1_000, pa.int32()), pa.array(texts))
    pq.write_table(pa.table({"content": column}), tmp_path / "t.parquet", compression="zstd", store_schema=False)
    with table_files._Table(str(tmp_path / "t.parquet")) as table:
        plain = list(table.arrays(0, "content", 512, 64_000_000))
        folded = list(table.arrays(0, "content", 512, 8_000_000))
    assert max(a.nbytes for a in plain) < 70_000_000 and sum(len(a) for a in plain) == 2_000
    assert max(a.nbytes for a in folded) < 1_000_000 and all(isinstance(a, pa.DictionaryArray) for a in folded)


def test_table_bounds_count_rows_and_bytes_of_whole_pieces(tmp_path):
    table = pa.table({"content": CODE * 20, "path": PATHS * 20})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=30)
    for number, (override, right) in enumerate((("max_table_rows=50", 50), ("max_archive_bytes=1000", 31))):
        documents, ledger, _ = ingest(tmp_path / "t.parquet", tmp_path / str(number), f"ingest.{override}")
        assert len(documents) == right and len(ledger) == 120
        assert {r["rule"] for r in ledger[right:]} == {"archive_limit"}
