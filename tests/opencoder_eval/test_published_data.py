"""With the published data, where it is available: canonical solutions pass, in time. Skipped elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from opencoder_eval import benchmarks
from opencoder_eval.benchmarks.data import MissingData
from opencoder_eval.judging import Runner
from opencoder_eval.sandbox import Sandbox
from opencoder_eval.selfcheck import selfcheck

PLACE = os.environ.get("OPENCODER_BENCHMARKS") or str(Path(__file__).parents[2] / "../shared/benchmarks")
COUNTS = {
    "humaneval": 164,
    "humanevalplus": 164,
    "mbpp": 974,
    "mbpp-sanitized": 427,
    "mbpp-evalplus": 378,
    "mbppplus": 378,
}
LANGUAGES = ("python", "shell", "perl", "lua", "php", "ruby", "javascript", "tcl", "c")


@pytest.fixture(autouse=True)
def _data(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENCODER_BENCHMARKS", PLACE)


def _benchmark(name: str):
    benchmark = benchmarks.get(name)
    try:
        benchmark.tasks()
    except MissingData as error:
        pytest.skip(str(error))
    return benchmark


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
def test_every_canonical_solution_passes(name: str):
    with Sandbox() as sandbox:
        (check,) = selfcheck(_benchmark(name), Runner(sandbox), mutants=False)
    assert (check.passed, check.run) == (COUNTS[name], COUNTS[name]), check.line()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mceval", "mdeval-repair"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_judges_right_and_wrong(family: str, language: str):
    if f"{family}-{language}" not in benchmarks.names():
        pytest.skip(f"{family} has no {language}")
    with Sandbox() as sandbox:
        (check,) = selfcheck(_benchmark(f"{family}-{language}"), Runner(sandbox))
    if not check.run:
        pytest.skip(check.line())
    assert check.ok, check.line()


def test_numbers_of_tasks():
    found = {
        name: len(_benchmark(name).tasks())
        for name in ("mceval", "mdeval-repair", "mdeval-loc", "multipl-e-humaneval", "multipl-e-mbpp-18")
    }
    assert found == {
        "mceval": 2007,
        "mdeval-repair": 1187,
        "mdeval-loc": 1187,
        "multipl-e-humaneval": 1116,
        "multipl-e-mbpp-18": 6987,
    }
