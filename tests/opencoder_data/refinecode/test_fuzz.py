"""Spoiled files of every language through the pipeline: none crashes it, each has one row in the ledger."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from opencoder_data.refinecode.config import load
from opencoder_data.refinecode.languages import tables
from opencoder_data.refinecode.ledger import read_ledger
from opencoder_data.refinecode.pipeline import run_pipeline
from opencoder_data.refinecode.transform import transform_text

ROOT = Path(__file__).parents[3]
_SUFFIXES = {
    ".py",
    ".md",
    ".toml",
    ".json",
    ".sh",
    ".yml",
    ".c",
    ".cpp",
    ".cs",
    ".go",
    ".html",
    ".java",
    ".js",
    ".rs",
    ".sql",
}
_PIECES = [
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r\n", b"\r", b"/*", b"*/", b"//", b'"""', b"'", b'"', b"`", b"<!--", b"(" * 700,
    b"~" * 700, b"/* Copyright 2020 A */\n", b"# Licensed under the MIT license.\n", "é中文\u2028𝐓İΣ\ufffd".encode(),
    b"-----BEGIN RSA PRIVATE KEY-----\n" + b"Ab1/" * 30 + b"\n-----END RSA PRIVATE KEY-----", b"jane.roe@acmeworks.de",
    b"93.184.216.34", b"password = 'k3Jx9Qz7Lp2'", b"\xed\xa0\x80", b"<?php", b"?>", b"${", b"}", b"\\", b"<<<<<<< HEAD\n",
    b"__author__ = 'Jane Roe'", b"0x" * 200, b"\\u1234" * 50, b"\t" * 300, b"a" * 1200,
]  # fmt: skip


def bases() -> list[bytes]:
    """Real files: the samples of the filter's tests and this project's own."""
    directories = (
        ROOT / "tests" / "opencoder_data",
        ROOT / "data",
        ROOT / "docs",
        ROOT / "scripts",
        ROOT / "opencoder_jax",
    )
    paths = sorted(
        p for directory in directories for p in directory.rglob("*") if p.suffix in _SUFFIXES and p.stat().st_size < 1e5
    )
    return [p.read_bytes() for p in paths]


def spoiled(rng: np.random.Generator, texts: list[bytes]) -> bytes:
    """Random bytes, or a piece of a real file after one to four mutations."""
    kind = rng.integers(20)
    if kind == 0:
        return rng.integers(0, 256, rng.integers(0, 3000), np.uint8).tobytes()
    if kind == 1:  # text without sense
        return rng.integers(9, 127, rng.integers(1, 3000), np.uint8).tobytes()
    text = texts[rng.integers(len(texts))]
    start = rng.integers(len(text)) if rng.random() < 0.5 and text else 0
    data = bytearray(text[start : start + int(rng.integers(1, 6000))])
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(len(data) + 1))
        match rng.integers(7):
            case 0:  # bytes changed
                for i in rng.integers(0, max(len(data), 1), 5):
                    data[i : i + 1] = bytes([rng.integers(256)])
            case 1:  # cut out
                del data[at : at + int(rng.integers(1, 200))]
            case 2:  # repeated
                data[at:at] = data[at : at + int(rng.integers(1, 80))] * int(rng.integers(2, 30))
            case 3:  # another file's piece
                other = texts[rng.integers(len(texts))]
                data[at:at] = other[: int(rng.integers(1, 1500))]
            case 4:  # all in one line, or line ends of other systems
                data = bytearray(bytes(data).replace(b"\n", (b" ", b"\r\n", b"\r")[rng.integers(3)]))
            case _:
                data[at:at] = _PIECES[rng.integers(len(_PIECES))]
    return bytes(data)


def write_tar(path: Path, rng: np.random.Generator, count: int, names: list[str], texts: list[bytes]) -> None:
    """Tar of `count` spoiled files, under a name of each language in turn."""
    with tarfile.open(path, "w") as tar:
        for i in range(count):
            data = spoiled(rng, texts)
            name = names[i % len(names)]
            info = tarfile.TarInfo(f"d{i}/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def language_names() -> list[str]:
    """A file name for every extension and every file name that means a language."""
    t = tables()
    return sorted({f"a.{e}" for e in [*t.extensions, *t.compound]} | set(t.filenames) | {"script"})


def fuzz(tmp_path: Path, count: int, seed: int, *overrides: str) -> None:
    """`count` files through the map stages; the claims of the module's docstring, and that the transformation is
    idempotent on what it wrote."""
    source = tmp_path / "in"
    source.mkdir()
    names = language_names()
    rng = np.random.default_rng(seed)
    write_tar(source / "a.tar", rng, count, [names[i] for i in rng.permutation(len(names))], bases())
    output = str(tmp_path / "out")
    config = load(None, ["stages=ingest,preprocess,transform,filter", "engine.progress=false", *overrides])
    summary = run_pipeline(config, [str(source)], output)
    ledger = read_ledger(output).to_pylist()
    assert len(ledger) == count == summary["files_in"]
    assert len({row["path"] for row in ledger}) == count
    assert all((row["status"] == "kept") == (row["rule"] in (None, "")) for row in ledger)
    signals = [r for p in sorted(Path(output, "06-filter", "signals").iterdir()) for r in pq.read_table(p).to_pylist()]
    assert [r["errors"] for r in signals if r["errors"]] == []
    transformed = 0
    for part in sorted(Path(output, "05-transform", "docs").iterdir()):
        for row in pq.read_table(part, columns=["path", "language", "content"]).to_pylist():
            again, _ = transform_text(row["content"], row["language"], row["path"], config.transform)
            assert again == row["content"], row["path"]
            transformed += 1
    assert transformed == len(signals) > count // 4


def test_spoiled_files_have_one_fate_each(tmp_path):
    fuzz(tmp_path, 800, 1, "engine.workers=1", "filter.time_limit_s=0")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_spoiled_files(tmp_path):
    for seed in range(10):
        (tmp_path / str(seed)).mkdir()
        fuzz(tmp_path / str(seed), 10_000, 100 + seed)
