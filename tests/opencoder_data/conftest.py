"""A small tokenizer trained on the standard library and a small corpus of many files, shared by the data tests."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest
from opencoder_data.refinecode.config import load
from opencoder_data.refinecode.pipeline import run_pipeline
from opencoder_data.tokenizer import Tokenizer
from opencoder_data.tokenizer.train import train

from tests.opencoder_data.refine_corpus import write_corpus

VOCAB_SIZE = 2_048


def real_files(*suffixes: str, limit: int, max_bytes: int = 200_000) -> list[str]:
    """Texts of real files of this Python: standard library first, then installed packages, in a fixed order."""
    texts: list[str] = []
    for root in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")):
        for path in sorted(Path(root).rglob("*")):
            if path.suffix in suffixes and path.is_file() and 0 < path.stat().st_size < max_bytes:
                try:
                    texts.append(path.read_bytes().decode())
                except UnicodeDecodeError:
                    continue
                if len(texts) == limit:
                    return texts
    return texts


@pytest.fixture(scope="session")
def python_texts() -> list[str]:
    return real_files(".py", limit=150)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory, python_texts) -> Tokenizer:
    extra = ["中文注释：计算平均值 你好 世界 你好 世界 é ü Ω"] * 20
    path = train(
        [*python_texts[:80], *extra],
        VOCAB_SIZE,
        tmp_path_factory.mktemp("tokenizer"),
        character_coverage=0.9999,
        num_threads=1,
        progress=False,
    )
    return Tokenizer(path)


@pytest.fixture
def corpus_writer():
    """`write_corpus`."""
    return write_corpus


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """(output directory, summary) of all stages over 24 families, in several partitions."""
    root = tmp_path_factory.mktemp("finished")
    write_corpus(root / "in", families=24)
    config = load(
        None,
        [
            "engine.workers=1",
            "engine.progress=false",
            "layout.partition_mb=0.2",
            "filter.time_limit_s=0",
            "fuzzy_dedup.measure_recall=true",
            "sample.ratios=java=0.5",
        ],
    )
    summary = run_pipeline(config, [str(root / "in")], str(root / "out"))
    return str(root / "out"), summary
