"""The time limit really stops any signal, wherever it hangs."""

import os
import threading
import time
from pathlib import Path

import pytest
from opencoder_data.refinecode.filter import compute_signals
from opencoder_data.refinecode.filter.guard import Guard, _Document

MODULE = '''
import ctypes, re, time
from opencoder_data.refinecode.filter.registry import signal

@signal("x_code_hang", profile="default")
def hang(view):
    """Backtracks for ever inside the regular-expression engine, waits or dies, if the text says so."""
    if "HANG" in view.content:
        re.match("(a+)+$", "a" * 60 + "b")
    if "WAIT" in view.content:
        time.sleep(float(view.content.split("=")[1]))
    if "DIE" in view.content:
        ctypes.string_at(0)
    return 0.0

@signal("x_code_after", profile="default")
def after(view):
    """Runs after the one that hangs."""
    return 7.0
'''


@pytest.fixture(scope="module")
def guard(tmp_path_factory):
    directory: Path = tmp_path_factory.mktemp("signals")
    (directory / "hanging_signals.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(directory))
        with Guard(1.0, modules=("hanging_signals",)) as guard:
            yield guard


OPTIONS = {"language": "python", "doc_type": "code", "file_name": "a.py"}


def test_same_values_as_without_a_guard(guard):
    text = "x = 1\nprint(x)\n" * 30
    got = guard.compute(text, **OPTIONS)
    plain = compute_signals(text, **OPTIONS)
    assert {k: got[k] for k in plain} == plain and got.errors == {}
    assert guard.restarts == 0


def test_a_hanging_signal_is_stopped_and_the_others_are_computed(guard):
    guard.compute("x = 1\n", **OPTIONS)  # start-up is not part of the limit
    restarts = guard.restarts
    got = guard.compute("HANG = 1\n" * 30, **OPTIONS)
    assert got["x_code_hang"] is None and "stopped after 1 s" in got.errors["x_code_hang"]
    assert got["x_code_after"] == 7.0 and got["qsc_codepython_cate_ast"] == 1.0
    assert guard.restarts == restarts + 1
    assert guard.compute("x = 1\n", **OPTIONS)["x_code_hang"] == 0.0


def test_the_limit_is_of_processor_time_and_waiting_has_one_of_its_own(guard, monkeypatch):
    """As on a busy machine: 1.5 s pass while the signal uses none of them."""
    restarts = guard.restarts
    assert guard.compute("WAIT = 1.5\n", **OPTIONS)["x_code_hang"] == 0.0 and guard.restarts == restarts
    monkeypatch.setattr("opencoder_data.refinecode.filter.guard.WAITING", 2)
    got = guard.compute("WAIT = 60\n", **OPTIONS)
    assert got["x_code_hang"] is None and "stopped after 1 s" in got.errors["x_code_hang"]
    assert guard.restarts == restarts + 1


def test_a_dying_signal_is_survived_from_another_thread(guard):
    results = []
    thread = threading.Thread(target=lambda: results.append(guard.compute("DIE = 1\n", **OPTIONS)))
    thread.start()
    thread.join(120)
    assert results and results[0]["x_code_hang"] is None
    assert "ended (signal 11)" in results[0].errors["x_code_hang"] and results[0]["x_code_after"] == 7.0


def test_many_documents_keep_their_order_around_one_that_hangs_and_one_that_dies(guard):
    texts = ["x = 1\n" * n for n in (10, 11, 40_000, 12)] + [
        "HANG = 1\n" * 20,
        "y = 2\n" * 30_000,
        "DIE = 1\n" * 9,
        "z = 3\n" * 13,
    ]
    got = list(guard.compute_all((t, OPTIONS) for t in texts))
    assert [g["qsc_code_num_chars"] for g in got] == [len(t) for t in texts]
    assert [i for i, g in enumerate(got) if g.errors] == [4, 6]
    assert all(g["x_code_after"] == 7.0 for g in got)


def test_documents_left_half_way_do_not_answer_later_ones(guard):
    many = guard.compute_all((f"x = {n}\n" * n, OPTIONS) for n in range(1, 50))
    assert next(many)["qsc_code_num_lines"] == 1
    many.close()
    assert guard.compute("a = 1\n" * 77, **OPTIONS)["qsc_code_num_lines"] == 77


class _Ends:
    """Ends the process that unpickles it."""

    def __reduce__(self):
        return os._exit, (3,)


def test_a_message_that_ends_the_child_costs_only_its_document(guard):
    ends = {**OPTIONS, "natural": _Ends()}
    documents = [(f"x = {n}\n" * 5, ends if n == 3 else OPTIONS) for n in range(6)]
    got = list(guard.compute_all(documents))
    assert [n for n, g in enumerate(got) if g.errors] == [3]
    assert got[3] == {} and "ended (exit 3)" in got[3].errors[""]
    assert all(g["qsc_code_num_lines"] == 5 for n, g in enumerate(got) if n != 3)


@pytest.mark.slow
def test_a_document_that_ends_the_child_whatever_is_left_out_is_given_up(guard, monkeypatch):
    request = _Document.request

    def nothing_left_out(self):
        return request(self) if self.given_up else (self.number, self.content, self.options, False)

    monkeypatch.setattr(_Document, "request", nothing_left_out)
    got = list(guard.compute_all((t, OPTIONS) for t in ["a = 1\n", "DIE = 1\n", "b = 1\n"]))
    assert got[0]["x_code_after"] == got[2]["x_code_after"] == 7.0
    assert got[1].get("x_code_hang") is None and "signal 11" in got[1].errors["x_code_hang"]


def test_bad_limit():
    with pytest.raises(ValueError, match="time_limit must be positive"):
        Guard(0)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("javascript", "!function(){" + ";".join(f"var a{i}=function(e,t){{return e?'s{i}':t&&a{i}(t,[1,2])}}" for i in range(6000)) + "}()"),
        ("java", "\n" * 100_000 + "public static foo bar" * 5000),
        ("c", "int " * 60_000),
        ("csharp", "<a " * 60_000 + "("),
        ("html", "<script " * 50_000),
        ("python", "(" * 100_000),
        ("python", "~" * 100_000),
        ("go", "*" * 100_000),
        ("sql", "'" * 200_001),
        ("none", "0x" * 100_000 + "\\u1234" * 30_000),
        ("perl", "=" * 200_000),
        ("none", "todo" * 80_000),
    ],
)  # fmt: skip
@pytest.mark.parametrize("profile", ["default", "compat"])
def test_pathological_files_are_fast(language, text, profile):
    """Linear by construction: CPU time, generous for a slow machine (the target on a calm one is 0.3 s for 700 kB)."""
    options = {"language": language, "doc_type": "code", "file_name": "a.x", "profile": profile}
    compute_signals("x = 1\né\n", **options)
    start = time.process_time()
    got = compute_signals(text, **options)
    assert got.errors == {}
    assert time.process_time() - start < 2.0
