"""LiveCodeBench: real standard input, functions, the window of dates, and what is unpickled."""

from __future__ import annotations

import base64
import io
import json
import pickle
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from opencoder_eval import benchmarks
from opencoder_eval.benchmarks import livecodebench
from opencoder_eval.judging import Runner
from opencoder_eval.verdicts import PASS, SYNTAX, WRONG

sys.path.insert(0, str(Path(__file__).parent))
import made_up


def _live(**changes: Any) -> dict[str, Any]:
    public = [{"input": "3 4\n", "output": "7\n", "testtype": "stdin"}]
    row = {"question_id": "q1", "question_content": "Add.", "contest_date": "2024-01-05T00:00:00", "starter_code": ""}
    return {**row, "public_test_cases": json.dumps(public), "private_test_cases": "[]", "metadata": "{}", **changes}


def _packed(value: object) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


def test_livecodebench_reads_real_standard_input(data: Path, runner: Runner):
    private = _packed(json.dumps([{"input": "1 1", "output": "2", "testtype": "stdin"}]))
    made_up.write_rows(data / "livecodebench/test.jsonl", [_live(private_test_cases=private)])
    benchmark = benchmarks.get("livecodebench")
    task = benchmark.tasks()[0]
    for code in (
        "a, b = map(int, input().split())\nprint(a + b)",
        "import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))",
        "import os\nos.write(1, str(sum(map(int, open(0).read().split()))).encode())",
    ):
        assert benchmark.judge(task, code, runner).kind == PASS
    assert benchmark.judge(task, "print(7)", runner).kind == WRONG
    assert benchmark.judge(task, "print(", runner).kind == SYNTAX
    assert benchmark.solution(task, "no block", "chat", "parser") is None
    assert benchmark.solution(task, "```\na\n```\n```python\nb\n```", "chat", "parser") == "b"


def test_livecodebench_calls_functions(data: Path, runner: Runner):
    tests = json.dumps([{"input": "[1, 2]\n3", "output": "[1, 2, 3]", "testtype": "functional"}])
    row = _live(
        public_test_cases=tests,
        metadata='{"func_name": "join"}',
        starter_code="class Solution:\n    def join(self, a, b):",
    )
    made_up.write_rows(data / "livecodebench/test.jsonl", [row])
    benchmark = benchmarks.get("livecodebench")
    task = benchmark.tasks()[0]
    right = "class Solution:\n    def join(self, a: List[int], b: int):\n        return (*a, b)\n"
    assert benchmark.judge(task, right, runner).kind == PASS
    assert benchmark.judge(task, "class Solution:\n    def join(self, a, b):\n        return a\n", runner).kind == WRONG


def test_the_window_of_dates_is_part_of_the_name(data: Path):
    rows = [_live(question_id=m, contest_date=f"{m}-15T00:00:00") for m in ("2023-04", "2023-05", "2024-09", "2024-10")]
    made_up.write_rows(data / "livecodebench/test.jsonl", rows[:2])
    made_up.write_rows(data / "livecodebench/test3.jsonl", rows[1:])
    assert [t.id for t in benchmarks.get("livecodebench-2305-2409").tasks()] == ["2023-05", "2024-09"]
    with pytest.raises(ValueError, match="no task"):
        benchmarks.get("livecodebench-2001-2002").tasks()


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("ran",))


@pytest.mark.parametrize("value", [_Evil(), [1], {"a": "b"}, b"bytes", 7, io.StringIO])
def test_nothing_but_a_string_is_unpickled(value: object, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(ValueError, match="get the file again"):
        livecodebench.unpickle_text(_packed(value))
    assert capsys.readouterr().out == ""
    assert livecodebench.unpickle_text(_packed("text")) == "text"


@pytest.mark.parametrize(
    "text", ["", "!!!", base64.b64encode(b"x").decode(), base64.b64encode(zlib.compress(b"\x80\x04")).decode()]
)
def test_private_tests_that_are_corrupt_are_an_error(text: str):
    with pytest.raises(ValueError, match="get the file again"):
        livecodebench.unpickle_text(text)


@pytest.mark.parametrize(
    ("found", "expected", "same"),
    [
        ("7\n", "7", True),
        (" 7 \n\n", "7", True),
        ("7.0", "7", False),
        ("0.3333333", "0.333333333", True),
        ("0.33", "0.3333", False),
        ("a\nb", "a b", False),
        ("YES", "Yes", False),
        ("nan", "1.5", False),
    ],
)
def test_outputs_are_compared_by_words_and_reals_with_a_tolerance(found: str, expected: str, same: bool):
    assert livecodebench.same_output(found, expected) is same
