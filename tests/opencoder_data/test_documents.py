"""Reading Parquet, JSON lines and directories of text; units; errors that name the file."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from opencoder_data.documents import Columns, Skipped, open_corpus

ROWS = [{"content": f"print({i})\n" * (i % 7 + 1), "language": "python", "path": f"{i}.py"} for i in range(300)]


def texts(corpus, skipped=None):
    return [d.text for d in corpus.documents(skipped)]


def write_parquet(path, rows, row_group_size=32):
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=row_group_size)


def write_jsonl(path, rows):
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if path.name.endswith(".gz"):
        data = gzip.compress(data)
    if path.name.endswith(".zst"):
        data = zstandard.compress(data)
    path.write_bytes(data)


@pytest.mark.parametrize("unit_bytes", [1, 100, 777, 1 << 20])
@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_all_rows_once_in_order_whatever_the_units(tmp_path, name, unit_bytes):
    write = write_parquet if name.endswith("parquet") else write_jsonl
    write(tmp_path / name, ROWS[:200])
    write(tmp_path / name.replace("a", "b", 1), ROWS[200:])
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / "stats.json").write_text("{}")
    corpus = open_corpus([tmp_path], unit_bytes=unit_bytes)
    documents = list(corpus.documents())
    assert [(d.text, d.language, d.path) for d in documents] == [tuple(row.values()) for row in ROWS]
    if unit_bytes == 100 and not name.endswith(("gz", "zst")):
        assert len(corpus.units) > 10


def test_a_directory_of_text_files(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    for name, data in [
        ("a.py", b"x = 1\r\n"),
        ("b/c.txt", "ü\n".encode()),
        ("z.bin", b"\xff\xfe"),
        ("empty", b""),
        (".git/config", b"no"),
        ("data.jsonl", b"not json\n"),
    ]:
        (tmp_path / name).write_bytes(data)
    skipped = Skipped()
    assert texts(open_corpus([tmp_path]), skipped) == ["x = 1\r\n", "ü\n", "not json\n"]
    assert skipped.counts == {"not valid UTF-8": 1, "empty": 1}


def test_rows_that_are_not_text_are_counted(tmp_path):
    rows = [{"text": "a"}, {"text": ""}, {"text": None}, {"text": "\ud800"}, {"text": 5}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n\n")
    skipped = Skipped()
    assert texts(open_corpus([tmp_path / "a.jsonl"]), skipped) == ["a"]
    assert skipped.counts == {"empty": 2, "not valid UTF-8": 2}


def test_binary_parquet_column(tmp_path):
    write_parquet(tmp_path / "a.parquet", [{"text": b"abc"}, {"text": b"\xff"}])
    skipped = Skipped()
    assert texts(open_corpus([tmp_path]), skipped) == ["abc"]
    assert skipped.counts == {"not valid UTF-8": 1}


def test_wrong_columns_are_named(tmp_path):
    write_parquet(tmp_path / "a.parquet", [{"body": "x", "n": 1}])
    with pytest.raises(ValueError, match=r"a\.parquet: no column 'content' or 'text'; it has body, n"):
        open_corpus([tmp_path])
    with pytest.raises(ValueError, match=r"no column 'code'"):
        open_corpus([tmp_path], columns=Columns(text="code"))
    assert texts(open_corpus([tmp_path], columns=Columns(text="body"))) == ["x"]
    write_parquet(tmp_path / "b.parquet", [{"other": "x"}])
    with pytest.raises(ValueError, match=r"b\.parquet: no column 'body'"):
        open_corpus([tmp_path], columns=Columns(text="body"))
    write_jsonl(tmp_path / "c.jsonl", [{"text": "x"}, {"txt": "x"}])
    with pytest.raises(ValueError, match=r"c\.jsonl: line at byte 14 has no field 'content' or 'text'; it has txt"):
        texts(open_corpus([tmp_path / "c.jsonl"]))


def test_corrupt_and_missing_input_is_named(tmp_path):
    with pytest.raises(ValueError, match="no such file or directory"):
        open_corpus([tmp_path / "none"])
    with pytest.raises(ValueError, match="no text files found"):
        open_corpus([tmp_path])
    with pytest.raises(ValueError, match="choose one of"):
        open_corpus([tmp_path], format="csv")
    write_parquet(tmp_path / "a.parquet", ROWS)
    path = tmp_path / "a.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"a\.parquet: cannot be read as Parquet"):
        open_corpus([path])
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "a"}\n{"text": \n')
    with pytest.raises(ValueError, match=r"b\.jsonl: line at byte 14 is not JSON"):
        texts(open_corpus([tmp_path / "b.jsonl"]))
    (tmp_path / "c.jsonl.zst").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"c\.jsonl\.zst: cannot be read"):
        texts(open_corpus([tmp_path / "c.jsonl.zst"]))
