"""Two programs per language: one prints hello, the other has an assertion that fails, of the kind its benchmark uses."""

from __future__ import annotations

from typing import NamedTuple


class Check(NamedTuple):
    """hello: passes and prints `hello`. failing: must not pass. hello has no such word where a program prints nothing."""

    hello: str
    failing: str


_C = "#include <assert.h>\n#include <stdio.h>\nint main(void) {{ {} return 0; }}\n"
_JAVA = "class Main {{ public static void main(String[] a) {{ {} }} }}\n"
_CS = "using System; using System.Diagnostics; class P {{ static void Main() {{ {} }} }}\n"
_VB = "Imports System\nImports System.Diagnostics\nModule P\nSub Main()\n{}\nEnd Sub\nEnd Module\n"
_EXUNIT = 'ExUnit.start()\ndefmodule T do\n use ExUnit.Case\n test "t" do\n  assert {}\n end\nend\n'
_PASCAL = "program p;\nuses SysUtils;\nbegin\n  {};\nend.\n"
_RACKET = "#lang racket\n(require rackunit)\n{}\n"

CHECKS: dict[str, Check] = {
    "AWK": Check("awk 'BEGIN { print \"hello\" }'", "awk 'BEGIN { exit 3 }'"),
    "C": Check(_C.format('puts("hello");'), _C.format("assert(1 == 2);")),
    "C#": Check(_CS.format('Console.WriteLine("hello");'), _CS.format("Debug.Assert(1 == 2);")),
    "CPP": Check(
        '#include <iostream>\nint main() { std::cout << "hello\\n"; }\n',
        "#include <cassert>\nint main() { assert(1 == 2); }\n",
    ),
    "CoffeeScript": Check("console.log 'hello'\n", "console.assert 1 is 2\n"),
    "Common Lisp": Check('(format t "hello~%")', "(assert (equal 1 2))"),
    "D": Check('import std.stdio; void main() { writeln("hello"); }', "unittest { assert(1 == 2); } void main() {}"),
    "Dart": Check("void main() { print('hello'); }", "void main() { assert(1 == 2); }"),
    "Elixir": Check('IO.puts("hello")\n' + _EXUNIT.format("1 == 1"), _EXUNIT.format("1 == 2")),
    "Emacs Lisp": Check('(princ "hello\\n")', "(require 'cl-lib)\n(cl-assert (equal 1 2))"),
    "Erlang": Check(
        '-module(some_name).\n-export([test/0]).\ntest() -> io:format("hello~n"), ok.\n',
        "-module(other).\n-export([test/0, f/0]).\nf() -> 1.\ntest() -> 2 = f(), ok.\n",
    ),
    "F#": Check('printfn "hello"\n', 'if 1 <> 2 then failwith "no"\n'),
    "Fortran": Check(
        "program p\n print '(A)', 'hello'\nend program\n", "program p\n print *, 'Test failed'\nend program\n"
    ),
    "Go": Check(
        'package main\n\nimport "fmt"\n\nfunc main() { fmt.Println("hello") }\n',
        'package main\n\nfunc main() { panic("no") }\n',
    ),
    "Groovy": Check("println 'hello'\n", "assert 1 == 2\n"),
    "HTML": Check("", ""),
    "Haskell": Check(
        'main :: IO ()\nmain = putStrLn "hello"\n',
        "import Control.Exception\nmain :: IO ()\nmain = assert (1 == 2) (pure ())\n",
    ),
    "JSON": Check("{}", '{"a": }'),
    "Java": Check(_JAVA.format('System.out.println("hello");'), _JAVA.format("assert 1 == 2;")),
    "JavaScript": Check("console.log('hello')\n", "console.assert(1 === 2)\n"),
    "Julia": Check('println("hello")\n', "@assert 1 == 2\n"),
    "Kotlin": Check('println("hello")\n', "assert(1 == 2)\n"),
    "Lua": Check("print('hello')\n", "assert(1 == 2)\n"),
    "Markdown": Check("", ""),
    "PHP": Check('<?php\necho "hello\\n";\n', "<?php\nassert(1 === 2);\n"),
    "Pascal": Check(_PASCAL.format("writeln('hello')"), _PASCAL.format("Assert(1 = 2)")),
    "Perl": Check('print "hello\\n";\n', 'die "no" unless 1 == 2;\n'),
    "PowerShell": Check("Write-Output 'hello'\n", "if (1 -ne 2) { throw 'no' }\n"),
    "Python": Check("print('hello')\n", "assert 1 == 2\n"),
    "R": Check('cat("hello\\n")\n', "stopifnot(1 == 2)\n"),
    "Racket": Check(_RACKET.format('(displayln "hello")'), _RACKET.format("(check-equal? 1 2)")),
    "Ruby": Check(
        "puts 'hello'\n",
        "require 'test/unit'\nclass T < Test::Unit::TestCase\n def test_a\n  assert_equal(1, 2)\n end\nend\n",
    ),
    "Rust": Check(
        'fn main() { println!("hello"); }\n', "fn main() { let x = std::env::args().count(); debug_assert!(x == 9); }\n"
    ),
    "Scala": Check('object Main extends App { println("hello") }\n', "object Main extends App { assert(1 == 2) }\n"),
    "Scheme": Check(_RACKET.format('(displayln "hello")'), _RACKET.format("(check-equal? 1 2)")),
    "Shell": Check("echo hello\n", '[[ "a" == "b" ]] || exit 1\n'),
    "Swift": Check('print("hello")\n', "assert(1 == 2)\n"),
    "Tcl": Check("puts hello\n", "error no\n"),
    "TypeScript": Check("console.log('hello')\n", "const x: number = 1;\nconsole.assert(x === 2);\n"),
    "VimScript": Check("echo 'hello'\n", "if assert_equal(1, 2) | cq | endif\n"),
    "Visual Basic": Check(_VB.format('Console.WriteLine("hello")'), _VB.format("Debug.Assert(1 = 2)")),
}
