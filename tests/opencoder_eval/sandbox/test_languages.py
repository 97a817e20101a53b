"""The table of languages: each toolchain that is installed runs a program and fails a failing check."""

from dataclasses import replace

import pytest
from opencoder_eval.sandbox import LANGUAGES, toolchains
from opencoder_eval.sandbox.language_checks import CHECKS
from opencoder_eval.sandbox.languages import of_program

MCEVAL = [
    "AWK",
    "C",
    "C#",
    "CPP",
    "CoffeeScript",
    "Common Lisp",
    "Dart",
    "Elixir",
    "Emacs Lisp",
    "Erlang",
    "F#",
    "Fortran",
    "Go",
    "Groovy",
    "HTML",
    "Haskell",
    "JSON",
    "Java",
    "JavaScript",
    "Julia",
    "Kotlin",
    "Lua",
    "Markdown",
    "PHP",
    "Pascal",
    "Perl",
    "PowerShell",
    "Python",
    "R",
    "Racket",
    "Ruby",
    "Rust",
    "Scala",
    "Scheme",
    "Shell",
    "Swift",
    "Tcl",
    "TypeScript",
    "VimScript",
    "Visual Basic",
]
# Fast enough for the default tests: half a second each.
QUICK = (
    "AWK",
    "C",
    "CPP",
    "Java",
    "JavaScript",
    "Lua",
    "PHP",
    "Perl",
    "Python",
    "Ruby",
    "Shell",
    "Tcl",
    "JSON",
    "HTML",
)
PROGRAMS = {"C": "gcc", "CPP": "g++", "JavaScript": "node", "Lua": "lua", "Java": "java", "Tcl": "tclsh", "AWK": "awk"}


def test_the_table_has_the_languages_of_mceval():
    assert len(MCEVAL) == 40 and set(MCEVAL) <= set(LANGUAGES) and set(CHECKS) == set(LANGUAGES)
    for name, how in LANGUAGES.items():
        assert how.run and how.version and how.limits.cpu_seconds >= 10, name
        assert CHECKS[name].failing or name in ("HTML", "Markdown"), name


@pytest.mark.parametrize(
    "language", [*QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in LANGUAGES if n not in QUICK)]
)
def test_a_toolchain_runs_programs_and_fails_failing_checks(sandbox, needs, language):
    if language in QUICK:
        needs(*LANGUAGES[language].programs())
    (found,) = toolchains(sandbox, [language])
    if found.status == "missing":
        pytest.skip(found.detail)
    assert found.status == "installed" and found.version, found


@pytest.mark.parametrize(
    ("language", "change", "detail"),
    [
        ("PHP", {"run": ("php", "-d", "zend.assertions=-1", "program.php")}, "zend.assertions"),
        ("Java", {"run": ("java", "program.java")}, "-ea"),
        ("JavaScript", {"fails": ()}, "a failing check passes"),
        ("C", {"compile": (("gcc", "-DNDEBUG", "-o", "program", "program.c"),)}, "NDEBUG"),
        ("Lua", {"run": ("lua", "no-such-file.lua")}, "does not work"),
        ("Shell", {"run": ("true",)}, "does not work"),
    ],
)
def test_a_toolchain_whose_assertions_pass_is_wrong(sandbox, needs, monkeypatch, language, change, detail):
    needs(*LANGUAGES[language].programs())
    monkeypatch.setitem(LANGUAGES, language, replace(LANGUAGES[language], **change))
    (found,) = toolchains(sandbox, [language])
    assert found.status == "wrong" and detail in found.detail, found


def test_a_missing_toolchain_is_not_run(sandbox, monkeypatch):
    monkeypatch.setitem(LANGUAGES, "Lua", replace(LANGUAGES["Lua"], run=("no-such-lua", "program.lua")))
    seen = sandbox.run_language("Lua", "error('x')")
    assert seen.outcome == "not_run" and "no-such-lua not installed" in seen.detail and seen.exit_code is None
    (found,) = toolchains(sandbox, ["Lua"])
    assert found.status == "missing" and "apt-get install lua5.4" in found.detail


def test_an_unknown_language_is_an_error(sandbox):
    with pytest.raises(KeyError):
        sandbox.run_language("Klingon", "")


@pytest.mark.parametrize(
    ("language", "program"),
    [
        ("C", "int main(void) { return x; }"),
        ("CPP", "int main() { return }"),
        ("Java", "class Main { void f( }"),
        ("JavaScript", "let = ;"),
        ("Lua", "x = = 1"),
        ("PHP", "<?php $x = ;"),
        ("Perl", "my $x = ;"),
        ("Python", "x = ="),
        ("Ruby", "def f("),
        ("Shell", "if true; do"),
        ("JSON", "{"),
    ],
)
def test_an_error_in_the_text_of_a_program_is_a_compile_error(sandbox, needs, language, program):
    needs(*LANGUAGES[language].programs())
    seen = sandbox.run_language(language, program)
    assert seen.outcome == "compile_error" and seen.detail, seen


@pytest.mark.parametrize(
    ("language", "early"),
    [
        ("JavaScript", "process.exit(0)"),
        ("Lua", "do os.exit(0) end"),
        ("PHP", "<?php exit(0);"),
        ("Perl", "exit 0;"),
        ("Python", "import sys; sys.exit(0)"),
        ("Ruby", "exit! 0"),
        ("Shell", "exit 0"),
        ("Tcl", "exit 0"),
        pytest.param("R", "quit(status = 0)", marks=pytest.mark.slow),
        pytest.param("CoffeeScript", "process.exit 0", marks=pytest.mark.slow),
    ],
)
def test_a_program_that_ends_early_does_not_pass_where_the_end_is_asked_for(sandbox, needs, language, early):
    needs(*LANGUAGES[language].programs())
    assert sandbox.run_language(language, early).ok
    seen = sandbox.run_language(language, early, end=True)
    assert seen.outcome == "failed" and "before its last line" in seen.detail, seen
    hello = sandbox.run_language(language, CHECKS[language].hello, end=True)
    assert hello.ok and hello.sentinel and hello.stdout == b"hello\n", hello


def test_the_end_cannot_be_asked_for_where_programs_cannot_report_it(sandbox, needs):
    needs("gcc")
    with pytest.raises(ValueError, match="last line"):
        sandbox.run_language("C", "int main(void) {}", end=True)


def test_many_descriptors_in_the_evaluator_do_not_matter(sandbox):
    held = [open("/dev/null") for _ in range(300)]  # noqa: SIM115
    try:
        assert sandbox.run_language("Shell", "echo hello", end=True).ok
        assert sandbox.run_python("pass").ok
    finally:
        for file in held:
            file.close()


def test_programs_can_write_to_dev_stdout_and_read_dev_stdin(sandbox):
    seen = sandbox.run_language("Shell", "cat /dev/stdin > /dev/stdout; echo e > /dev/stderr", stdin=b"in")
    assert seen.ok and seen.stdout == b"in" and seen.stderr == b"e\n", seen


def test_tests_of_go_and_rust_use_their_own_runners():
    assert of_program("Go", "func TestX(t *testing.T) {}").run[:2] == ("go", "test")
    assert "--test" in of_program("Rust", "#[test]\nfn x() {}").compile[0]
    assert of_program("Go", "package main") is LANGUAGES["Go"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("language", "program"),
    [
        (
            "Go",
            'package main\nimport "testing"\nfunc f() int { return 1 }\nfunc TestF(t *testing.T) { if f() != {} { t.Fatal("no") } }\n',
        ),
        (
            "Rust",
            "fn f() -> i32 { 1 }\n#[cfg(test)]\nmod tests { #[test] fn t() { assert_eq!(super::f(), {}); } }\nfn main() {}\n",
        ),
    ],
)
def test_test_functions_of_go_and_rust_are_run(sandbox, needs, language, program):
    needs(*LANGUAGES[language].programs())
    assert sandbox.run_language(language, program.replace("{}", "1")).ok
    assert sandbox.run_language(language, program.replace("{}", "2")).outcome == "failed"
