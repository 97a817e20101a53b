"""The families on made-up rows: what is asked, what is judged, and the traps that are known of each."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opencoder_eval import benchmarks
from opencoder_eval.benchmarks import infilling, mceval, programs, quick_numpy
from opencoder_eval.benchmarks.base import Question
from opencoder_eval.benchmarks.humaneval import BROKEN_32, HumanEval
from opencoder_eval.benchmarks.multipl_e import with_tuples
from opencoder_eval.benchmarks.quick_numpy import SHIM
from opencoder_eval.judging import Runner
from opencoder_eval.verdicts import EXCEPTION, NOT_RUN, PASS, SYNTAX, TIMEOUT, WRONG

sys.path.insert(0, str(Path(__file__).parent))
import made_up

# --- names ------------------------------------------------------------------------------------------------------------


def test_every_name_makes_a_benchmark_that_has_it():
    for name in benchmarks.names():
        made = benchmarks.get(name)
        assert made.name == name
        assert made.title
        assert made.modes


def test_groups_expand_in_order_and_once():
    assert benchmarks.expand("evalplus,humaneval") == ["humaneval", "humanevalplus", "mbpp-evalplus", "mbppplus"]
    assert benchmarks.expand("all") == benchmarks.names()
    assert "livecodebench-2305-2409" in benchmarks.names()
    assert benchmarks.expand("livecodebench-2401-2402") == ["livecodebench-2401-2402"]


@pytest.mark.parametrize("name", ["", ",", "HumanEvil", "livecodebench-2413-2414", "livecodebench-2402-2401"])
def test_names_that_are_none(name: str):
    with pytest.raises(ValueError, match=r"benchmark|YYMM"):
        [benchmarks.get(n) for n in benchmarks.expand(name)]


# --- HumanEval and MBPP -----------------------------------------------------------------------------------------------


def test_the_test_of_humaneval_32_is_repaired(data: Path, runner: Runner):
    test = f"""
import math
def _poly(xs, x):
    return sum(c * math.pow(x, i) for i, c in enumerate(xs))
def check(candidate):
    inputs = [[[-6, 2]], [[-1, 1]]]
    for inp in inputs:
        assert {BROKEN_32}
"""
    row = {"task_id": "HumanEval/32", "prompt": "def find_zero(xs: list):\n", "entry_point": "find_zero"}
    row |= {"canonical_solution": "    return -xs[0] / xs[1]\n", "test": test}
    made_up.write_rows(data / "humanevalplus/HumanEvalPlus-OriginFmt.jsonl", [row])
    benchmark = benchmarks.get("humanevalplus")
    task = benchmark.tasks()[0]
    assert benchmark.judge(task, str(task.canonical), runner).kind == PASS
    assert benchmark.judge(task, "def find_zero(xs):\n    return 7\n", runner).kind == WRONG
    unrepaired = HumanEval("humaneval", "")
    assert unrepaired.judge(task, str(task.canonical), runner).kind == EXCEPTION, (
        "the published test fails every solution"
    )


def test_helpers_of_the_prompt_are_there_for_humanevals_tests(data: Path, runner: Runner):
    row = {
        "task_id": "HumanEval/38",
        "prompt": "def encode(s):\n    return s[::-1]\n\n\ndef decode(s):\n",
        "entry_point": "decode",
    }
    row |= {
        "canonical_solution": "    return encode(s)\n",
        "test": "def check(f):\n    assert f(encode('ab')) == 'ab'\n",
    }
    made_up.write_rows(data / "humaneval/HumanEval.jsonl", [row])
    benchmark = benchmarks.get("humaneval")
    assert benchmark.judge(benchmark.tasks()[0], "def decode(s):\n    return s[::-1]\n", runner).kind == PASS


def test_set_up_code_of_mbpp_follows_the_solution(data: Path, runner: Runner):
    row = {
        "task_id": 367,
        "text": "A tree.",
        "code": "class Node:\n  pass\ndef f(x):\n  return x.__class__",
        "test_setup_code": "root = Node()",
    }
    made_up.write_rows(data / "mbpp/mbpp.jsonl", [{**row, "test_list": ["assert f(root) is Node"]}])
    benchmark = benchmarks.get("mbpp")
    assert benchmark.judge(benchmark.tasks()[0], row["code"], runner).kind == PASS


def test_ranges_of_mbpp(data: Path):
    ids = {
        name: [t.id for t in benchmarks.get(name).tasks()]
        for name in ("mbpp", "mbpp-test", "mbpp-3shot", "mbpp-3shot-opencodeeval")
    }
    assert len(ids["mbpp"]) == 15
    assert ids["mbpp-test"] == ids["mbpp-3shot"] == [f"Mbpp/{i}" for i in range(11, 16)]
    assert ids["mbpp-3shot-opencodeeval"][0] == "Mbpp/10"


def test_the_few_shot_prompt_has_three_solved_tasks_and_no_more(data: Path):
    benchmark = benchmarks.get("mbpp-3shot")
    prompt = benchmark.question(benchmark.tasks()[0], "completion").prompt
    assert prompt.count("You are an expert Python programmer, and here is your task:") == 4
    assert prompt.count("```python") == 4
    assert prompt.endswith("```python\n")
    assert "return x * 3" in prompt
    assert "return x * 4" not in prompt
    assert "\r" not in prompt
    asked = benchmark.question(benchmark.tasks()[0], "chat").messages[0]["content"]
    assert asked.endswith("assert times_11(3) == 33\n")


def test_base_inputs_are_the_first_of_mbppplus(data: Path, runner: Runner):
    base, plus = benchmarks.get("mbpp-evalplus"), benchmarks.get("mbppplus")
    code = "def half(x):\n    return x / 2 if x == 2 else 0\n"
    assert base.judge(base.tasks()[0], code, runner).kind == PASS
    assert plus.judge(plus.tasks()[0], code, runner).kind == WRONG


def test_one_input_that_takes_too_long_is_a_timeout(data: Path, runner: Runner, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(quick_numpy, "TIMED", quick_numpy.TIMED.replace(f"{quick_numpy.SECONDS_PER_INPUT})", "0.3)"))
    plus = benchmarks.get("mbppplus")
    code = "def half(x):\n    while x == 1000:\n        try:\n            while True: pass\n        except BaseException: pass\n    return x / 2\n"
    found = plus.judge(plus.tasks()[0], code, runner)
    assert (found.kind, found.detail) == (TIMEOUT, "one input took too long")
    assert found.seconds < 10


_plain = st.one_of(
    st.integers(-5, 5),
    st.floats(allow_nan=True, allow_infinity=True),
    st.booleans(),
    st.sampled_from([1e-9, 1 + 1e-8, 2**70]),
)
_values = st.recursive(_plain, lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner), max_leaves=6)


@given(_values, _values, st.sampled_from([0, 1e-6]))
@settings(max_examples=400, deadline=None)
def test_the_quick_allclose_is_numpys(out: Any, exp: Any, atol: float):
    namespace: dict[str, Any] = {}
    exec(SHIM, namespace)

    def result(function: Any) -> object:
        try:
            return bool(function(out, exp, rtol=1e-07, atol=atol))
        except (TypeError, ValueError, OverflowError) as error:
            return type(error)

    assert result(namespace["np"].allclose) == result(np.allclose)


def test_the_quick_numpy_is_numpy_for_arrays():
    namespace: dict[str, Any] = {}
    exec(SHIM, namespace)
    quick = namespace["np"]
    near = 1.000000100000005  # the tolerance is relative to the second
    assert quick.allclose(1.0, near, rtol=1e-7, atol=0) is np.allclose(1.0, near, rtol=1e-7, atol=0) is True
    assert quick.allclose(near, 1.0, rtol=1e-7, atol=0) is np.allclose(near, 1.0, rtol=1e-7, atol=0) is False
    assert isinstance(np.zeros(2), quick.ndarray)
    assert quick.float64 is np.float64
    assert quick.allclose(np.ones(2), [1.0, 1.0], rtol=0, atol=0)
    assert not quick.allclose([1.0, math.nan], [1.0, math.nan], rtol=0, atol=1)


# --- BigCodeBench -----------------------------------------------------------------------------------------------------

BIGCODE = {
    "task_id": "BigCodeBench/1",
    "complete_prompt": 'import math\n\ndef task_func(x):\n    """Root."""\n',
    "instruct_prompt": "Write task_func.",
    "canonical_solution": "    return math.sqrt(x)\n",
    "code_prompt": "import math\ndef task_func(x):\n",
    "entry_point": "task_func",
    "test": "import unittest\nclass TestCases(unittest.TestCase):\n    def test_a(self):\n        self.assertEqual(task_func(4), 2)\n    def test_b(self):\n        self.assertEqual(task_func(9), 3)\n",
}


def test_bigcodebench_counts_the_tests_that_ran(data: Path, runner: Runner):
    made_up.write_rows(data / "bigcodebench/BigCodeBench.jsonl", [BIGCODE])
    benchmark = benchmarks.get("bigcodebench-complete-full")
    task = benchmark.tasks()[0]
    assert benchmark.judge(task, str(task.canonical), runner).kind == PASS
    assert benchmark.judge(task, "def task_func(x):\n    return 2\n", runner).kind == WRONG
    for cheat in (
        "def task_func(x):\n    import unittest\n    raise unittest.SkipTest('no')\n",
        "import unittest\nunittest.TestCase.run = lambda self, result=None: None\ndef task_func(x):\n    pass\n",
    ):
        assert benchmark.judge(task, cheat, runner).kind == WRONG
    assert benchmark.modes == ("completion", "chat")
    assert benchmarks.get("bigcodebench-instruct-hard").modes == ("chat",)


# --- infilling --------------------------------------------------------------------------------------------------------


def test_holes_filled_with_what_was_there_pass(data: Path, runner: Runner):
    for variant in infilling.VARIANTS:
        benchmark = benchmarks.get(f"humaneval-infilling-{variant}")
        tasks = benchmark.tasks()
        assert len({t.id for t in tasks}) == len(tasks)
        for task in tasks[:3]:
            question: Question = benchmark.question(task, "completion")
            assert question.suffix is not None
            filled = benchmark.solution(task, str(task.completion), "completion", "raw")
            assert filled == question.prompt + str(task.completion) + question.suffix == task.canonical
            assert benchmark.judge(task, str(filled), runner).kind == PASS
            empty = benchmark.solution(task, "", "completion", "raw")
            assert variant == "span" or benchmark.judge(task, str(empty), runner).kind != PASS


_BODY = "    a = 1\n\n    if a:\n        return 2\n    return 3\n"


def test_holes_do_not_depend_on_chance():
    assert [_BODY[a:b] for a, b in infilling.holes(_BODY, "single-line", "x")] == [
        "    a = 1",
        "    if a:",
        "        return 2",
        "    return 3",
    ]
    for variant in infilling.VARIANTS:
        assert infilling.holes(_BODY, variant, "x") == infilling.holes(_BODY, variant, "x")
        assert all(_BODY[a:b].strip() for a, b in infilling.holes(_BODY, variant, "x"))
    assert infilling.holes("    pass\n", "multi-line", "x") == []


# --- MultiPL-E, McEval, MdEval ----------------------------------------------------------------------------------------


def test_multipl_e_in_shell(data: Path, runner: Runner):
    row = {
        "name": "HumanEval_1_f",
        "prompt": "#!/bin/bash\n# Adds one.\nf() {\n",
        "stop_tokens": ["\n}"],
        "tests": '}\nset -e\n[[ $(f 3) = "4" ]]\n',
    }
    made_up.write_rows(data / "multipl-e/humaneval-sh.jsonl", [row])
    benchmark = benchmarks.get("multipl-e-humaneval-sh")
    task = benchmark.tasks()[0]
    assert task.id == "sh/HumanEval_1_f"
    assert "\n}" in benchmark.question(task, "completion").stop
    for answer, mode, kind in (
        ("    echo $(($1 + 1))", "completion", PASS),
        ("```bash\nf() {\n  echo 5\n}\n```", "chat", "fail"),
    ):
        solution = benchmark.solution(task, answer, mode, "parser")  # type: ignore[arg-type]
        found = benchmark.judge(task, str(solution), runner).kind
        assert (found == PASS) == (kind == PASS)


def test_java_has_its_tuples_without_the_library(runner: Runner):
    program = """import java.util.*;
import org.javatuples.*;
class Problem {
    static Pair<Integer, String> f(int x) { return Pair.with(x, "a"); }
    public static void main(String[] args) {
    assert(f(1).equals((Pair.with(1, "a"))));
    assert(!f(1).equals(Pair.with(2, "a")));
    assert(f(1).getValue0() == 1 && f(1).hashCode() == Pair.with(1, "a").hashCode());
    assert(Arrays.asList(Triplet.with(1, 2, 3)).equals(Arrays.asList(Triplet.with(1, 2, 3))));
    }
}
"""
    found = runner.language("Java", with_tuples(program), cpu_seconds=30)
    if found.kind == NOT_RUN:
        pytest.skip(found.detail)
    assert found.kind == PASS, found
    assert runner.language("Java", with_tuples(program.replace("!f(1)", "f(1)")), cpu_seconds=30).kind == WRONG


def test_awk_is_compared_with_the_canonical_command_on_made_up_files(data: Path, runner: Runner):
    for name in mceval._AWK_FILES:
        (data / "mceval/AWK").mkdir(parents=True, exist_ok=True)
        (data / "mceval/AWK" / name).write_text("a b\nc d\n")
    row = {"task_id": "AWK/1", "prompt": "Print the shells.", "instruction": "Print the shells."}
    made_up.write_rows(data / "mceval/AWK.jsonl", [{**row, "canonical_solution": "awk -F: '{print $NF}' /etc/passwd"}])
    benchmark = benchmarks.get("mceval-awk")
    task = benchmark.tasks()[0]
    verdicts = [
        benchmark.judge(task, code, runner).kind
        for code in ("cut -d: -f7 /etc/passwd", "awk '{print}' /etc/passwd", "cat data/AWK/url.txt", "rm -f passwd")
    ]
    assert verdicts == [PASS, WRONG, WRONG, WRONG] or verdicts == [NOT_RUN] * 4


@pytest.mark.parametrize(
    ("language", "text", "kind"),
    [
        ("JSON", '{"b": [1, 2.0],\n "a": null}', PASS),
        ("JSON", '{"a": null, "b": [2, 1]}', WRONG),
        ("JSON", '{"a": null, "b": [1, 2}', SYNTAX),
        ("JSON", "[" * 100_000, SYNTAX),
    ],
)
def test_json_documents_are_compared_by_value(language: str, text: str, kind: str):
    assert programs.same_document(language, text, '{"a": null, "b": [1, 2]}').kind == kind


def test_html_and_markdown_are_compared_without_blanks():
    page = "<p class='x' id='y'>Two words</p>"
    assert programs.same_document("HTML", "<p id='y' class='x'>\n Two  words </p>\n", page).kind == PASS
    assert programs.same_document("HTML", "<p class='x' id='z'>Two words</p>", page).kind == WRONG
    assert programs.same_document("Markdown", "# A\n\n\n- b  c\n", "# A\n- b c").kind == PASS
    assert programs.same_document("Markdown", "## A\n- b c", "# A\n- b c").kind == WRONG


@pytest.mark.parametrize(
    ("variant", "answer", "kind"),
    [
        ("ident", "'missing_colons'", PASS),
        ("ident", "Missing_Colons.", PASS),
        ("ident", "type_error", WRONG),
        ("loc", '```python\n["C", "A"]\n```', PASS),
        ("loc", "['A', 'C']", PASS),
        ("loc", '["A"]', WRONG),
        ("loc", "none", WRONG),
        ("review", "B", PASS),
        ("review", "The correct answer is: b.", PASS),
        ("review", "A", WRONG),
        ("review", "Both are fine", WRONG),
    ],
)
def test_mdeval_answers(data: Path, runner: Runner, variant: str, answer: str, kind: str):
    row = {
        "question_id": "Python/1",
        "canonical_solution": "x",
        "buggy_code": "y",
        "instruction": "?",
        "subtype": "missing_colons",
    }
    row |= {"loc_answer": ["A", "C"], "choice_answer": "B"}
    for language in ("C", "Python"):
        made_up.write_rows(data / f"mdeval/{variant}/{language}.jsonl", [row])
    from opencoder_eval.benchmarks.mdeval import MdEval

    benchmark = MdEval("m", "", variant, ("Python",))
    task = benchmark.tasks()[0]
    assert benchmark.judge(task, str(benchmark.solution(task, answer, "chat", "parser")), runner).kind == kind


def test_mdeval_repairs_are_run(data: Path, runner: Runner):
    row = {
        "question_id": "Python/1",
        "canonical_solution": "def f():\n    return 1",
        "buggy_code": "def f():\n    return 2",
        "instruction": "?",
    }
    made_up.write_rows(data / "mdeval/bug/Python.jsonl", [{**row, "test": "assert f() == 1"}])
    benchmark = benchmarks.get("mdeval-repair-python")
    task = benchmark.tasks()[0]
    assert benchmark.judge(task, str(task.canonical), runner).kind == PASS
    assert benchmark.judge(task, row["buggy_code"], runner).kind == WRONG
    assert (
        benchmark.solution(task, f"```python\n{row['canonical_solution']}\n```", "chat", "parser")
        == row["canonical_solution"]
    )


def test_php_without_its_tag_is_run_and_not_printed(runner: Runner):
    found = [programs.judge("PHP", f"function f() {{ return {n}; }}", "assert(f() == 1);", runner).kind for n in (1, 2)]
    assert found in ([PASS, WRONG], [NOT_RUN, NOT_RUN])


def test_unittest_main_is_judged_by_its_tests(runner: Runner):
    test = "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertEqual(f(), 1)\nunittest.main()"
    assert programs.judge("Python", "def f(): return 1", test, runner).kind == PASS
    assert programs.judge("Python", "def f(): return 2", test, runner).kind == WRONG


# --- CodeArena --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (["[[A>B]]", "[[B>A]]"], PASS),
        (["[[A>>B]]", "[[A>B]]"], PASS),
        (["[[A>B]]", "[[A>B]]"], WRONG),
        (["[[A=B]]", "[[A=B]]"], WRONG),
        (["I think [[A>B]] or [[B>A]]", "[[A>B]]", "[[A=B]]"], PASS),
        (["no", "label"], EXCEPTION),
    ],
)
def test_codearena_is_judged_in_both_orders(data: Path, runner: Runner, labels: list[str], kind: str):
    row = {"id": "1", "messages": "[{'role': 'user', 'content': 'How?'}]", "programming_language": "['Go']"}
    made_up.write_rows(data / "codearena/CodeArena_v1.jsonl", [{**row, "gpt-4-turbo-2024-04-09_response": "BASE"}])
    benchmark = benchmarks.get("codearena")
    task = benchmark.tasks()[0]
    assert task.language == "Go"
    assert benchmark.judge(task, "MINE", runner).kind == NOT_RUN
    seen: list[str] = []

    def ask(messages: Any) -> str:
        seen.append(messages[1]["content"])
        return labels[len(seen) - 1]

    assert benchmark.judge(task, "MINE", Runner(runner.sandbox, ask=ask)).kind == kind
    assert seen[0].index("MINE") < seen[0].index("BASE")
    if kind != EXCEPTION:
        assert seen[-1].index("BASE") < seen[-1].index("MINE")
