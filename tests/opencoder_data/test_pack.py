"""Packing: same bytes for any number of processes and after any kill; splits; errors in one line."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from opencoder_data import pack as pack_module
from opencoder_data.documents import Columns
from opencoder_data.pack import PackOptions, main, pack
from opencoder_data.shard_format import DOCUMENT_START, TOKEN_ID, ShardReader, ShardWriter

from tests.opencoder_data.test_documents import write_jsonl, write_parquet

OPTIONS = PackOptions(seq_len=64, source="tests", unit_mb=1)
LANGUAGES = ("python", "c++", "Objective-C/++", "")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, python_texts) -> Path:
    directory = tmp_path_factory.mktemp("corpus")
    rows = [{"content": t, "language": LANGUAGES[i % 4], "path": f"{i}.py"} for i, t in enumerate(python_texts)]
    write_parquet(directory / "a.parquet", rows[:100], row_group_size=10)
    write_parquet(directory / "b.parquet", rows[100:], row_group_size=10)
    return directory


def digest(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def documents_of(directory: Path, tokenizer) -> list[str]:
    """Texts of a shard directory, shard by shard."""
    reader = ShardReader(directory)
    texts = []
    first = 0
    for shard in reader.manifest.shards:
        records = np.stack([reader[i] for i in range(first, first + shard.num_records)])
        first += shard.num_records
        tokens = np.concatenate([records[0, :1], records[:, 1:].ravel()])
        for document in np.split(tokens & TOKEN_ID, np.flatnonzero(tokens >= DOCUMENT_START)[1:]):
            if document[0] == tokenizer.pad_id:
                continue
            assert document[-1] == tokenizer.endoftext_id
            texts.append(tokenizer.decode(document[:-1]))
    return texts


@pytest.fixture(scope="module")
def packed(tmp_path_factory, corpus, tokenizer) -> Path:
    output = tmp_path_factory.mktemp("packed") / "out"
    pack([corpus], tokenizer.path, output, OPTIONS, num_workers=1, progress=False)
    return output


def test_every_document_is_there_in_order(packed, tokenizer, python_texts):
    assert documents_of(packed, tokenizer) == [t for t in python_texts if t]
    manifest = ShardReader(packed).manifest
    assert manifest.text_bytes == sum(len(t.encode()) for t in python_texts)
    assert manifest.num_documents == len([t for t in python_texts if t])
    assert manifest.tokenizer_hash == tokenizer.hash
    assert manifest.source == "tests"
    assert len(manifest.shards) >= 2
    assert not (packed / ".work").exists()


def test_processes_do_not_change_a_byte(tmp_path, packed, corpus, tokenizer):
    pack([corpus], tokenizer.path, tmp_path / "out", OPTIONS, num_workers=2, progress=False)
    assert digest(tmp_path / "out") == digest(packed)


def test_the_slow_engine_does_not_change_a_byte(tmp_path, packed, corpus, tokenizer):
    pack([corpus], tokenizer.path, tmp_path / "out", OPTIONS, num_workers=1, engine="sentencepiece", progress=False)
    assert digest(tmp_path / "out") == digest(packed)


def test_a_finished_output_is_left_alone(packed, corpus, tokenizer):
    before = {path: path.stat().st_mtime_ns for path in packed.iterdir()}
    manifests = pack([corpus], tokenizer.path, packed, OPTIONS, progress=False)
    assert {path: path.stat().st_mtime_ns for path in packed.iterdir()} == before
    assert manifests["."].source == "tests"
    with pytest.raises(ValueError, match="other input, tokenizer or options"):
        pack([corpus], tokenizer.path, packed, PackOptions(seq_len=32), progress=False)


class Stop(BaseException):
    pass


def test_stopped_at_every_step_it_goes_on_to_the_same_bytes(tmp_path, packed, corpus, tokenizer, monkeypatch):
    """Every rename and every synced file is a moment at which the run is stopped once."""
    output = tmp_path / "out"
    left = [0]

    def interrupt(right):
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                raise Stop
            return right(*args, **kwargs)

        return call

    encoder = pack_module.FastEncoder(tokenizer)
    monkeypatch.setattr(pack_module, "FastEncoder", lambda *args, **kwargs: encoder)
    monkeypatch.setattr(os, "fsync", interrupt(os.fsync))
    monkeypatch.setattr(Path, "rename", interrupt(Path.rename))
    monkeypatch.setattr(Path, "replace", interrupt(Path.replace))
    # A killed process cleans nothing up.
    monkeypatch.setattr(ShardWriter, "abort", lambda self: self._file and self._file.close())
    monkeypatch.setattr(pack_module.shutil, "rmtree", interrupt(pack_module.shutil.rmtree))
    for stops in range(100):
        # A unit takes some ten of these steps, and one that is stopped begins again.
        left[0] = stops if stops < 12 else 11 + stops % 5
        try:
            pack([corpus], tokenizer.path, output, OPTIONS, num_workers=1, progress=False)
        except Stop:
            continue
        break
    assert 8 < stops < 99
    assert digest(output) == digest(packed)


@pytest.mark.slow
def test_killed_at_random_moments_it_goes_on_to_the_same_bytes(tmp_path, packed, corpus, tokenizer):
    rng = np.random.default_rng(0)
    command = [sys.executable, "-m", "opencoder_data.pack", "--input", str(corpus), "--output", str(tmp_path / "out")]
    command += ["--tokenizer", str(tokenizer.path), "--seq_len", "64", "--source", "tests", "--unit_mb", "1"]
    for delay in [*rng.uniform(0.5, 6, 8), None]:
        child = subprocess.Popen([*command, "--num_workers", "2"], start_new_session=True, stderr=subprocess.DEVNULL)
        if delay is None:
            assert child.wait(120) == 0
        else:
            time.sleep(delay)
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    assert digest(tmp_path / "out") == digest(packed)


def test_languages_and_holdout_split_the_documents(tmp_path, corpus, tokenizer, python_texts):
    options = PackOptions(seq_len=64, by_language=True, holdout=0.3)
    manifests = pack([corpus], tokenizer.path, tmp_path / "out", options, num_workers=1, progress=False)
    languages = {"python", "c++", "Objective-C_++", "unknown"}
    assert set(manifests) == {f"{part}/{language}" for part in ("train", "holdout") for language in languages}
    assert manifests["train/Objective-C_++"].language == "Objective-C/++"
    everything = [t for directory in manifests for t in documents_of(tmp_path / "out" / directory, tokenizer)]
    assert sorted(everything) == sorted(t for t in python_texts if t)
    held_out = sum(m.num_documents for directory, m in manifests.items() if directory.startswith("holdout"))
    assert 0.15 < held_out / len(everything) < 0.45
    # The same text goes the same way in any corpus.
    write_jsonl(tmp_path / "one.jsonl", [{"text": documents_of(tmp_path / "out" / "holdout" / "python", tokenizer)[0]}])
    manifests = pack([tmp_path / "one.jsonl"], tokenizer.path, tmp_path / "o2", options, num_workers=1, progress=False)
    assert set(manifests) == {"holdout/unknown"}


def test_command_line_errors_are_one_line(tmp_path, corpus, tokenizer, capsys):
    def run(**changes):
        given = {"input": str(corpus), "tokenizer": str(tokenizer.path), "output": str(tmp_path / "out"), **changes}
        code = main([a for name, value in given.items() for a in (f"--{name}", str(value))])
        captured = capsys.readouterr()
        error = captured.err.strip().splitlines()[-1] if code else captured.out
        return code, error

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    (tmp_path / "empty.jsonl").write_text('{"text": ""}\n')
    for changes, message in [
        ({"input": tmp_path / "none"}, "no such file or directory"),
        ({"tokenizer": tmp_path / "none"}, "No such file"),
        ({"text_column": "code"}, "no column 'code'"),
        ({"output": tmp_path / "full"}, "not empty"),
        ({"holdout": "1.5"}, "holdout in"),
        ({"seq_len": "0"}, "must be positive"),
        ({"engine": "x"}, "choose auto"),
        ({"input": tmp_path / "empty.jsonl"}, "no document with text"),
    ]:
        code, error = run(**changes)
        assert code == 2
        assert error.startswith("error: ")
        assert message in error
        assert not (tmp_path / "out" / "manifest.json").exists()
    code, out = run(unit_mb="1", num_workers="1", output=tmp_path / "good")
    assert code == 0
    assert "150 documents" in out or "documents" in out


def test_a_full_disk_leaves_no_half_written_unit(tmp_path, packed, corpus, tokenizer, monkeypatch, capsys):
    right = ShardWriter._write
    calls = [0]

    def write(self, records):
        calls[0] += 1
        if calls[0] > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return right(self, records)

    output = tmp_path / "out"
    monkeypatch.setattr(ShardWriter, "_write", write)
    arguments = ["--input", str(corpus), "--tokenizer", str(tokenizer.path), "--output", str(output)]
    arguments += ["--seq_len", "64", "--source", "tests", "--unit_mb", "1", "--num_workers", "1"]
    assert main(arguments) == 2
    assert "No space left on device" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (output / "manifest.json").exists()
    for unit in (output / ".work").glob("unit-*"):
        assert (unit / "done.json").exists()
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(arguments) == 0
    assert digest(output) == digest(packed)


def test_a_run_begun_with_other_options_is_rejected(tmp_path, corpus, tokenizer, monkeypatch):
    output = tmp_path / "out"
    right = pack_module._encode_unit
    monkeypatch.setattr(pack_module, "_encode_unit", lambda *args: right(*args) if args[2] == 0 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pack([corpus], tokenizer.path, output, OPTIONS, num_workers=1, progress=False)
    with pytest.raises(ValueError, match="begun with other input"):
        pack([corpus], tokenizer.path, output, PackOptions(seq_len=32), num_workers=1, progress=False)
    columns = Columns(language="path")
    with pytest.raises(ValueError, match="begun with other input"):
        pack([corpus], tokenizer.path, output, OPTIONS, columns=columns, num_workers=1, progress=False)
