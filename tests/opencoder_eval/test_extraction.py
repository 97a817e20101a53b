"""Code in answers: each way against small answers, and the search for a valid span against brute force."""

from __future__ import annotations

import ast
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opencoder_eval.extraction import MAX_CHARACTERS, blocks, cut, longest_valid_span, parse, python_function

ANSWER = """Sure! Here is the function:

```python
import math

LIMIT = 3

def helper(x):
    return math.sqrt(x)

def solve(x):
    return helper(x) + LIMIT

assert solve(1) == 5
print(solve(4))
if __name__ == "__main__":
    solve(int(input()))
```

It takes the root. You can test it:

```python
print(solve(9))
```
"""


def test_parser_takes_the_block_that_defines_the_entry_point_without_what_only_runs():
    code = python_function(ANSWER, "solve")
    assert code is not None
    namespace: dict[str, object] = {}
    exec(code, namespace)
    assert namespace["solve"](4) == 5.0  # type: ignore[operator]
    assert "assert" not in code
    assert "print" not in code
    assert "input" not in code


def test_parser_keeps_functions_without_return_and_decorated_ones_and_evalplus_drops_them():
    text = "import functools\n\n@functools.cache\ndef helper(x):\n    return x\n\ndef log(x):\n    pass\n\ndef solve(x):\n    log(x)\n    return helper(x)\n"
    ours, theirs = python_function(text, "solve"), python_function(text, "solve", "evalplus")
    assert ours == text
    assert theirs == "import functools\ndef solve(x):\n    log(x)\n    return helper(x)"


def test_evalplus_keeps_what_the_entry_point_reaches():
    text = "A = 1\nB = 2\ndef used():\n    return A\ndef unused():\n    return B\ndef solve():\n    return used()\n"
    assert (
        python_function(text, "solve", "evalplus")
        == "A = 1\ndef used():\n    return A\ndef solve():\n    return used()"
    )


def test_opencodeeval_sees_one_hundred_lines_and_loses_comments():
    text = "def solve():\n    # why\n    return 1\n"
    assert python_function(text, "solve", "opencodeeval") == "def solve():\n    return 1"
    assert python_function("x = 1\n" * 100 + text, "solve", "opencodeeval") is None
    assert python_function("x = 1\n" * 100 + text, "solve", "evalplus") is not None


def test_a_completion_that_breaks_off_keeps_its_complete_part():
    text = "def solve(x):\n    y = x + 1\n    return y\n\ndef other(z):\n    return (z +"
    assert python_function(text, "solve") == "def solve(x):\n    y = x + 1\n    return y\n"


@pytest.mark.parametrize("text", ["", "   \n", "I cannot do that.", "```python\n```", "\0", "\ud800", "```\n(((\n```"])
@pytest.mark.parametrize("extraction", ["parser", "evalplus", "opencodeeval"])
def test_answers_without_code_have_none(text: str, extraction: str):
    assert not (python_function(text, "solve", extraction) or "").strip()


def test_raw_is_the_text_as_it_is():
    assert python_function("  x\r\n", "solve", "raw") == "  x\r\n"


def test_an_unknown_extraction_names_the_known_ones():
    with pytest.raises(ValueError, match="parser, evalplus"):
        python_function("x", "f", "magic")


def test_windows_line_ends_are_read():
    assert python_function("```python\r\ndef f():\r\n    return 1\r\n```\r\n", "f") == "def f():\n    return 1"


def test_unclosed_and_longer_fences():
    assert [b.code for b in blocks("```python\nx = 1")] == ["x = 1"]
    assert [b.code for b in blocks("````md\n```\ny\n```\n````\n~~~\nz\n~~~")] == ["```\ny\n```", "z"]
    assert blocks("```Python3 title\na\n```")[0].language == "python3"


def test_cut_ends_before_the_first_stop_in_the_text():
    assert cut("a\ndef b\nclass c", ["\nclass", "\ndef "]) == "a"
    assert cut("abc", ["", "x"]) == "abc"


_LINES = st.lists(
    st.sampled_from(
        [
            "def f(x):",
            "    return x",
            "    if x:",
            "        pass",
            "x = (1,",
            "2)",
            "'''",
            "text here",
            "",
            "y = 1",
            "```",
            "@f",
        ]
    ),
    max_size=9,
)


@given(_LINES)
@settings(max_examples=400, deadline=None)
def test_longest_valid_span_is_that_of_brute_force(lines: list[str]):
    best = 0
    for i in range(len(lines)):
        for j in range(i + 1, len(lines) + 1):
            if parse("\n".join(lines[i:j])) is not None:
                best = max(best, sum(bool(line.strip()) for line in lines[i:j]))
    span = longest_valid_span("\n".join(lines))
    assert sum(bool(line.strip()) for line in span.split("\n")) == best
    ast.parse(span)


@pytest.mark.parametrize(
    "text",
    ["(" * 10_000_000, "x = 1\n" * 2_000_000, "word word\n" * 1_000_000, "-" * 3_000_000 + "1", "\0" * 10_000_000],
    ids=["brackets", "statements", "prose", "unary", "nul"],
)
def test_huge_answers_are_done_soon(text: str):
    start = time.process_time()
    python_function(text, "f")
    assert time.process_time() - start < 20
    assert len(python_function(text, "f") or "") <= MAX_CHARACTERS + 1
