"""The self-check sees a judge that passes everything, and one that passes nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from opencoder_eval import benchmarks
from opencoder_eval.judging import Runner
from opencoder_eval.sandbox import Sandbox
from opencoder_eval.selfcheck import mutate, selfcheck
from opencoder_eval.verdicts import Verdict

sys.path.insert(0, str(Path(__file__).parent))
import made_up


@pytest.fixture
def mbpp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENCODER_BENCHMARKS", str(made_up.write_data(tmp_path)))
    return benchmarks.get("mbpp")


def test_canonical_solutions_pass_and_broken_ones_fail(mbpp):
    with Sandbox() as sandbox:
        (check,) = selfcheck(mbpp, Runner(sandbox))
    assert (check.passed, check.run, check.survivors, check.mutants) == (15, 15, 0, 15)
    assert check.ok


@pytest.mark.parametrize(("kind", "part"), [("pass", "broken 15/15 pass"), ("wrong answer", "canonical 0/15")])
def test_a_judge_that_always_says_the_same_is_found(mbpp, monkeypatch: pytest.MonkeyPatch, kind: str, part: str):
    monkeypatch.setattr(type(mbpp), "judge", lambda *_: Verdict(kind))
    with Sandbox() as sandbox:
        (check,) = selfcheck(mbpp, Runner(sandbox))
    assert not check.ok
    assert part in check.line()
    assert "CHECK FAILED" in check.line()


def test_what_is_not_run_is_not_failed(mbpp, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(type(mbpp), "judge", lambda *_: Verdict("not run"))
    with Sandbox() as sandbox:
        (check,) = selfcheck(mbpp, Runner(sandbox))
    assert check.ok
    assert "not run" in check.line()


def test_mutants_change_constants_and_operators_outside_of_strings():
    assert mutate("if x <= 3: return 'a <= 3'") == "if x > 10: return 'a <= 3'"
    assert mutate('return True and x1 == "1 == 2"') == 'return False and x1 != "1 == 2"'
    assert mutate("a + b - 1.5") == "a - b + 1.5"
    assert mutate("a === b") is None
    assert mutate("return x") is None
