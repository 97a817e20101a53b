"""A chat answer becomes the program that a completion would have made: judged by the languages themselves where installed."""

from __future__ import annotations

import pytest
from opencoder_eval.judging import Runner
from opencoder_eval.placement import chosen_block, place
from opencoder_eval.sandbox import Sandbox
from opencoder_eval.verdicts import NOT_RUN, PASS

# language: (answer with its own class, main, helper and examples, prompt, tests); f(3) is 4.
CASES = {
    "Java": (
        "import java.util.*;\npublic class Main {\n  private static int helper(int x) { return x + new Node().one; }\n"
        "  /** Adds. */\n  public static int f(int x) {\n    return helper(x);\n  }\n"
        "  public static void main(String[] args) { System.out.println(f(1)); }\n}\nclass Node { int one = 1; }\n",
        "import java.io.*;\nclass Problem {\n    // Adds one.\n    public static int f(int x) {\n",
        "    }\n    public static void main(String[] args) {\n    assert(f(3) == (4));\n    }\n}\n",
    ),
    "CPP": (
        "#include <vector>\nusing namespace std;\nint helper(int x) { return x; }\n\nint f(int x) {\n  return helper(x) + 1;\n}\n\n"
        "int main() { return f(1); }\n",
        "#include<assert.h>\n// Adds one.\nint f(int x) {\n",
        "}\nint main() {\n    assert(f(3) == 4);\n}\n",
    ),
    "PHP": (
        "<?php\nfunction helper($x) { return $x; }\nfunction f($x) {\n  return helper($x) + 1;\n}\nexit(3);\n",
        "<?php\n// Adds one.\nfunction f($x) {\n",
        "if (f(3) !== 4) { throw new Exception('no'); }\n",
    ),
    "Shell": (
        "#!/bin/bash\nf() {\n  echo $(($1 + 1))\n}\nf 3\n",
        "#!/bin/bash\n# Adds one.\nf() {\n",
        '}\n\nset -e\n[[ $(f 3) = "4" ]]\n',
    ),
    "JavaScript": (
        "const one = 1;\nfunction f(x) {\n  return x + one;\n}\nconsole.log(f(1));\n",
        "// Adds one.\nfunction f(x){\n",
        "if (f(3) !== 4) throw new Error('no');\n",
    ),
    "Ruby": ("def f(x)\n  x + 1\nend\n\nputs f(1)\n", "# Adds one.\ndef f(x)\n", "raise 'no' unless f(3) == 4\n"),
    "Lua": (
        "local function f(x)\n  return x + 1\nend\nprint(f(1))\n",
        "-- use the function: it adds one\nlocal function f(x)\n",
        "assert(f(3) == 4)\n",
    ),
    "Go": (
        'package main\n\nimport (\n\t"fmt"\n\t"sort"\n)\n\nfunc f(x int) int {\n\tsort.Ints(nil)\n\treturn x + 1\n}\n\nfunc main() {\n\tfmt.Println(f(1))\n}\n',
        'package f_test\n\nimport (\n    "testing"\n)\n\n// Adds one.\nfunc f(x int) int {\n',
        'func TestF(t *testing.T) {\n\tif f(3) != 4 {\n\t\tt.Errorf("no")\n\t}\n}\n',
    ),
    "Rust": (
        "use std::cmp::max;\n\nfn helper(x: i32) -> i32 { max(x, 0) }\n\npub fn f(x: i32) -> i32 {\n    helper(x) + 1\n}\n\nfn main() {}\n",
        "/// Adds one.\nfn f(x: i32) -> i32 {\n",
        "}\n\nfn main() {\n    assert_eq!(f(3), 4);\n}\n",
    ),
    "Erlang": (
        "-module(other).\n-export([f/1]).\n\nf(X) -> X + 1.\n",
        "-module(f).\n-export([f/1, test/0]).\n% Adds one.\nf(X) ->",
        "test() ->\n4 = f(3),\nok.\n",
    ),
    "Haskell": (
        "module Main where\nimport Data.List\n\nf :: Int -> Int\nf x = x + 1\n",
        "import Data.Char\n-- Adds one.\nf :: Int -> Int\nf x = ",
        'main :: IO ()\nmain = if f 3 == 4 then return () else error "fail"\n',
    ),
}


@pytest.mark.parametrize("language", CASES)
def test_an_answer_of_its_own_form_passes_and_a_wrong_one_fails(language: str):
    answer, prompt, tests = CASES[language]
    code = chosen_block(f"Like this:\n```\nan example\n```\nand so\n```{language.lower()}\n{answer}```\n", ("f",))
    assert code is not None
    with Sandbox() as sandbox:
        runner = Runner(sandbox)
        placed = place(code, language, prompt, tests, ("f",))
        found = runner.language(language, f"{placed}\n{tests}", cpu_seconds=30)
        if found.kind == NOT_RUN:
            pytest.skip(found.detail)
        assert found.kind == PASS, f"{found}\n{placed}"
        wrong = place(code.replace("1", "2"), language, prompt, tests, ("f",))
        assert runner.language(language, f"{wrong}\n{tests}", cpu_seconds=30).kind != PASS


def test_fortran_pascal_and_elixir_are_put_together_by_text():
    fortran = place(
        "program x\nprint *, 1\ncontains\ninteger function f(a)\n f = a\nend function f\nend program x",
        "Fortran",
        "",
        "",
        ("f",),
    )
    assert fortran == "integer function f(a)\n f = a\nend function f\n\nend program"
    pascal = place(
        "program x;\nuses math;\nfunction f: integer;\nbegin\n  f := 1;\nend;\n\nbegin\n  writeln(f);\nend.",
        "Pascal",
        "program t;\nuses sysutils;\n",
        "",
        ("f",),
    )
    assert pascal == "program t;\nuses sysutils, math;\nfunction f: integer;\nbegin\n  f := 1;\nend;"
    elixir = place("defmodule Mine do\nend", "Elixir", "defmodule Theirs do\n", "", ("f",))
    assert elixir == "defmodule Theirs do\nend"


def test_an_answer_that_is_not_understood_is_given_to_the_compiler():
    assert "gibberish" in place("gibberish ((", "CPP", "#include <a>\nint f() {\n", "}\n", ("f",))
    assert chosen_block("  \n", ("f",)) is None
