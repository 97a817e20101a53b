"""A small corpus in which every stage finds something to do; shared by the tests of the whole pipeline."""

from pathlib import Path

import numpy as np
import pytest
from opencoder_data.refinecode.config import load
from opencoder_data.refinecode.pipeline import run_pipeline

_HEADER = "# Copyright 2020 The Example Authors\n# Licensed under the MIT license.\n\n"


def name(rng):
    """A word of three random syllables."""
    return "".join(rng.choice(list("bdfgklmnprstvz")) + rng.choice(list("aeiou")) for _ in range(3))


def function(rng, title):
    """A Python function of its own; no two share five words in a row for long."""
    n = [name(rng) for _ in range(8)]
    return "\n".join([
        f"def {title}({n[0]}, {n[1]}):",
        f'    """{n[2].title()} of {n[0]} over {n[1]}, by {n[3]} and {n[4]}."""',
        f"    {n[5]} = [{n[6]} for {n[6]} in {n[0]} if {n[6]}.{n[3]} in {n[1]}]",
        f"    {n[7]} = {n[1]}.{n[4]}({n[5]}, key={n[2]!r})",
        f"    while {n[7]} is not None and {n[5]}:",
        f"        {n[6]} = {n[5]}.pop()",
        f"        {n[7]} = {n[6]}.{n[2]}({n[7]}) or {n[7]}.{n[4]}",
        f"    return {n[7]}, len({n[5]})",
        "",
    ])  # fmt: skip


def java_method(rng):
    n = [name(rng) for _ in range(6)]
    return (
        f"    {n[0].title()} {n[1]}(List<{n[0].title()}> {n[2]}, String {n[3]}) {{\n        for ({n[0].title()} {n[4]} : {n[2]}) {{\n"
        f"            if ({n[4]}.{n[5]}().equals({n[3]})) {{\n                return {n[4]};\n            }}\n        }}\n        return null;\n    }}\n"
    )


def write_corpus(root: Path, families: int = 12, seed: int = 0) -> int:
    """Python, JSON, text and binary files with exact and near copies, headers and addresses. Returns the files written."""
    rng = np.random.default_rng(seed)
    files: dict[str, bytes] = {}
    for family in range(families):
        titles = [f"{name(rng)}_{name(rng)}" for _ in range(9)]
        text = (
            _HEADER
            + f"# Questions: jane{family}@acmeworks.de\nimport math\n\n\n"
            + "\n\n".join(function(rng, t) for t in titles)
        )
        near = text.replace(titles[4], name(rng))
        files[f"repo{family}/module.py"] = text.encode()
        files[f"repo{family}/copy.py"] = text.encode()
        files[f"repo{family}/near.py"] = near.encode()
        files[f"repo{family}/short.py"] = f"x = {family}\n".encode()
        files[f"repo{family}/data.bin"] = bytes(rng.integers(0, 256, 100, np.uint8))
        files[f"repo{family}/binary.py"] = b"x = 1\0" + bytes([family])
        java = f"class Lib{family} {{\n" + "".join(java_method(rng) for _ in range(8)) + "}\n"
        files[f"repo{family}/Lib.java"] = java.encode()
    for path_in_root, data in files.items():
        path = root / path_in_root
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return len(files)


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
