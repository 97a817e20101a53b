"""Downloads against a made-up server: whole and checked, or nothing."""

from __future__ import annotations

import gzip
import hashlib
import sys
from pathlib import Path

import pytest
from opencoder_eval.benchmarks import data, download
from opencoder_eval.commands import main

sys.path.insert(0, str(Path(__file__).parent))
import made_up

TEXT = '{"task_id": 1}\n'


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    with made_up.endpoint(lambda path, body, number: (404 if "gone" in path else 200, TEXT, {})) as server:
        monkeypatch.setattr(
            download, "ADDRESSES", {"mbpp/a.jsonl": f"{server.url}/a", "gone/b.jsonl": f"{server.url}/gone"}
        )
        monkeypatch.setattr(
            data, "CHECKSUMS", {"mbpp/a.jsonl": hashlib.sha256(TEXT.encode()).hexdigest(), "gone/b.jsonl": "0"}
        )
        yield server


def test_a_file_is_fetched_once(server: made_up.Endpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for _ in range(2):
        assert main(["download", "--benchmarks=mbpp", f"--to={tmp_path}"]) == 0
    assert len(server.requests) == 1
    assert gzip.decompress((tmp_path / "mbpp/a.jsonl.gz").read_bytes()).decode() == TEXT
    assert "a.jsonl.gz" in capsys.readouterr().out


def test_another_content_is_not_written(server: made_up.Endpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data.CHECKSUMS["mbpp/a.jsonl"] = "1" * 64
    assert main(["download", "--benchmarks=mbpp", f"--to={tmp_path}"]) == 2
    assert "nothing was written" in capsys.readouterr().err
    assert list(tmp_path.rglob("*.gz")) == []


@pytest.mark.parametrize(("name", "text"), [("gone", "404"), ("mbp", "there are gone, mbpp")])
def test_what_cannot_be_had_is_one_line(
    server: made_up.Endpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str
):
    assert main(["download", f"--benchmarks={name}", f"--to={tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert text in said


def test_every_address_has_a_checksum():
    assert set(download.ADDRESSES) <= set(data.CHECKSUMS)


def test_another_file_than_the_published_one_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "mbpp/mbpp.jsonl"
    made_up.write_rows(path, [{"task_id": 1}])
    for _ in range(2):
        data.rows(path)
    assert capsys.readouterr().err.count("not the published file") == 1
