"""How a program of each language is compiled and run: McEval's 40 languages, and D for MultiPL-E.

source: commands as McEval gives them (its paper's appendix; github.com/MCEVAL/McEval), with what is missing there for
assertions to count: `-ea`, `-Sa`, `zend.assertions`, mono's trace listener.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from opencoder_eval.sandbox.results import Limits, MiB

SMALL = Limits(cpu_seconds=30, wall_seconds=120)
# A virtual machine with its compiler: threads by the dozen, memory by the gigabyte.
VM = Limits(cpu_seconds=60, wall_seconds=180, memory_bytes=2048 * MiB, processes=256)


@dataclass(frozen=True)
class Language:
    """One way to run programs.

    file: name of the program's file in the work directory; `{stem}` in it and in commands is what `stem` finds.
    run: the command whose exit code, output and limits count.
    compile: commands before it; a failure of one is `compile_error`.
    version: command whose first line of output names the version.
    apt: Debian packages with the toolchain; empty where Debian has none.
    fails: regular expressions; a match in standard output or error is a failure though the exit code is 0.
    syntax: regular expression; a match in standard error of a failed run makes it a `compile_error`.
    stem: regular expression whose group is the name that the program must have; `program` if it does not match.
    end: a statement that writes {token} to descriptor {fd}, added after the program on request.
    without_assertions: what a user is told if a failing assertion passes.
    """

    file: str
    run: tuple[str, ...]
    compile: tuple[tuple[str, ...], ...] = ()
    version: tuple[str, ...] = ()
    apt: tuple[str, ...] = ()
    fails: tuple[str, ...] = ()
    syntax: str = ""
    stem: str = ""
    end: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = SMALL
    without_assertions: str = "assertions are switched off"

    def programs(self) -> set[str]:
        """The executables that must be installed."""
        own = {command[0] for command in (*self.compile, self.run) if not command[0].startswith(".")}
        return own | {self.version[0]} if self.version else own


NODE_ASSERT = r"(?m)^Assertion failed"
NODE_END = "\n;require('fs').writeSync({fd}, '{token}');\n"
CHECK_FAILURE = r"(?m)^FAILURE"
RUBY_END = "\nIO.new({fd}).syswrite('{token}')\n"
MONO_FAIL = ("DefaultTraceListener.Fail", "Unhandled Exception", r"(?m)^---- DEBUG ASSERTION FAILED")
_PYTHON_CHECK = "import sys; text = open(sys.argv[1], encoding='utf-8').read(); "

LANGUAGES: dict[str, Language] = {
    "AWK": Language(  # McEval's programs are shell commands that call awk
        "program.sh", ("bash", "program.sh"), version=("awk", "--version"), apt=("gawk",)
    ),
    "C": Language(
        "program.c",
        ("./program",),
        (("gcc", "-o", "program", "program.c", "-lm"),),
        ("gcc", "--version"),
        ("gcc", "libc6-dev"),
        without_assertions="the program defines NDEBUG",
    ),
    "C#": Language(
        "program.cs",
        ("mono", "program.exe"),
        (("mcs", "-d:DEBUG", "-d:TRACE", "-r:System.Numerics.dll", "-out:program.exe", "program.cs"),),
        ("mcs", "--version"),
        ("mono-mcs", "mono-runtime", "libmono-system-numerics4.0-cil", "libmono-system-core4.0-cil"),
        fails=MONO_FAIL,
        environment={"MONO_TRACE_LISTENER": "Console.Error"},
        limits=VM,
        without_assertions="Debug.Assert is silent: MONO_TRACE_LISTENER=Console.Error has no effect",
    ),
    "CPP": Language(
        "program.cpp",
        ("./program",),
        (("g++", "-std=c++17", "-o", "program", "program.cpp"),),
        ("g++", "--version"),
        ("g++",),
        without_assertions="the program defines NDEBUG",
    ),
    "CoffeeScript": Language(
        "program.coffee",
        ("coffee", "program.coffee"),
        version=("coffee", "--version"),
        apt=("coffeescript",),
        fails=(NODE_ASSERT,),
        syntax="error: (unexpected|missing|unmatched)",
        end="\nrequire('fs').writeSync {fd}, '{token}'\n",
    ),
    "Common Lisp": Language(
        "program.lisp",
        ("sbcl", "--script", "program.lisp"),
        version=("sbcl", "--version"),
        apt=("sbcl",),
        syntax="READ error|end of file",
        limits=Limits(cpu_seconds=30, wall_seconds=120, memory_bytes=2048 * MiB),
    ),
    "D": Language(
        "program.d",
        ("./program",),
        (("ldc2", "-unittest", "-of=program", "program.d"),),
        ("ldc2", "--version"),
        ("ldc", "libphobos2-ldc-shared-dev"),
    ),
    "Dart": Language(
        "program.dart", ("dart", "run", "--enable-asserts", "program.dart"), version=("dart", "--version"), limits=VM
    ),
    "Elixir": Language(
        "program.exs",
        ("elixir", "program.exs"),
        version=("elixir", "--short-version"),
        apt=("elixir",),
        syntax=r"\((SyntaxError|TokenMissingError|CompileError)\)",
        limits=VM,
    ),
    "Emacs Lisp": Language(
        "program.el",
        ("emacs", "--batch", "-l", "program.el"),
        version=("emacs", "--version"),
        apt=("emacs-nox",),
        syntax="End of file during parsing|Invalid read syntax",
    ),
    "Erlang": Language(
        "{stem}.erl",
        ("erl", "-noshell", "-s", "{stem}", "test", "-s", "init", "stop"),
        (("erlc", "{stem}.erl"),),
        ("erl", "-noshell", "-eval", 'io:fwrite(erlang:system_info(otp_release)++"\n"),halt().'),
        ("erlang-base", "erlang-dev"),
        stem=r"-module\(\s*(\w+)\s*\)",
        limits=VM,
    ),
    "F#": Language(
        "program.fsx", ("dotnet", "fsi", "--quiet", "program.fsx"), version=("dotnet", "--version"), limits=VM
    ),
    "Fortran": Language(
        "program.f90",
        ("./program",),
        (("gfortran", "-o", "program", "program.f90"),),
        ("gfortran", "--version"),
        ("gfortran",),
        fails=("(?i)failed",),
    ),
    "Go": Language(
        "program.go",
        ("./program",),
        (("go", "build", "-o", "program", "program.go"),),
        ("go", "version"),
        ("golang-go",),
        environment={"GOCACHE": "/tmp/home/go-build", "GOFLAGS": "-mod=mod", "GO111MODULE": "auto"},
        limits=VM,
    ),
    "Groovy": Language(
        "program.groovy",
        ("groovy", "program.groovy"),
        version=("groovy", "--version"),
        apt=("groovy",),
        syntax="MultipleCompilationErrorsException",
        limits=VM,
    ),
    "HTML": Language(
        "program.html",
        ("python3", "-c", _PYTHON_CHECK + "from html.parser import HTMLParser as P; P().feed(text)", "program.html"),
        version=("python3", "--version"),
        apt=("python3",),
    ),
    "Haskell": Language(
        "program.hs",
        ("./program",),
        (("ghc", "-v0", "-o", "program", "program.hs"),),
        ("ghc", "--version"),
        ("ghc",),
        fails=(r"(?i)\bfail",),
        limits=VM,
    ),
    "JSON": Language(
        "program.json",
        ("python3", "-c", _PYTHON_CHECK + "import json; json.loads(text)", "program.json"),
        version=("python3", "--version"),
        apt=("python3",),
        syntax="JSONDecodeError",
    ),
    "Java": Language(
        "program.java",
        ("java", "-ea", "program.java"),
        version=("java", "-version"),
        apt=("default-jdk-headless",),
        syntax=r"(?m)^error: compilation failed",
        limits=VM,
        without_assertions="java does not take -ea",
    ),
    "JavaScript": Language(
        "program.js",
        ("node", "program.js"),
        version=("node", "--version"),
        apt=("nodejs",),
        fails=(NODE_ASSERT,),
        syntax=r"(?m)^SyntaxError",
        end=NODE_END,
    ),
    "Julia": Language(
        "program.jl", ("julia", "--startup-file=no", "program.jl"), version=("julia", "--version"), limits=VM
    ),
    "Kotlin": Language(
        "program.kts",
        ("kotlinc", "-script", "program.kts"),
        version=("kotlinc", "-version"),
        apt=("kotlin",),
        syntax=r"(?m)\berror: ",
        environment={"JAVA_OPTS": "-ea"},
        limits=VM,
        without_assertions="kotlinc does not pass JAVA_OPTS=-ea on",
    ),
    "Lua": Language(
        "program.lua",
        ("lua", "program.lua"),
        version=("lua", "-v"),
        apt=("lua5.4",),
        syntax=r"(?m)^lua[\d.]*: program\.lua:\d+: .*(near|expected|unfinished)",
        end="\nlocal _end = io.open('/dev/fd/{fd}', 'a') _end:write('{token}') _end:close()\n",
    ),
    "Markdown": Language(
        "program.md",
        ("python3", "-c", _PYTHON_CHECK, "program.md"),
        version=("python3", "--version"),
        apt=("python3",),
    ),
    "PHP": Language(
        "program.php",
        ("php", "-d", "zend.assertions=1", "-d", "assert.exception=1", "-d", "display_errors=stderr", "program.php"),
        version=("php", "--version"),
        apt=("php-cli",),
        fails=(r"assert\(\).*failed",),
        syntax="Parse error",
        end="\nfile_put_contents('php://fd/{fd}', '{token}');\n",
        without_assertions="zend.assertions=1 has no effect: it is fixed to -1 in php.ini or by the build",
    ),
    "Pascal": Language(
        "program.pas",
        ("./program",),
        (("fpc", "-v0", "-MObjfpc", "-Sa", "program.pas"),),
        ("fpc", "-iV"),
        ("fp-compiler", "fp-units-base", "fp-units-fcl", "fp-units-math", "fp-units-rtl"),
    ),
    "Perl": Language(
        "program.pl",
        ("perl", "program.pl"),
        version=("perl", "-e", 'print "perl $^V\n"'),
        apt=("perl",),
        syntax="syntax error at|had compilation errors",
        end="\nopen(my $_end, '>&=', {fd}); syswrite($_end, '{token}');\n",
    ),
    "PowerShell": Language(
        "program.ps1",
        ("pwsh", "-NoProfile", "-NonInteractive", "-File", "program.ps1"),
        version=("pwsh", "--version"),
        limits=VM,
    ),
    "Python": Language(
        "program.py",
        ("python3", "program.py"),
        version=("python3", "--version"),
        apt=("python3",),
        syntax=r"(?m)^(SyntaxError|IndentationError|TabError)",
        end="\nimport os as _os\n_os.write({fd}, b'{token}')\n",
    ),
    "R": Language(
        "program.R",
        ("Rscript", "--vanilla", "program.R"),
        version=("Rscript", "--version"),
        apt=("r-base-core",),
        syntax=r"unexpected (symbol|end of input|'|string|numeric)",
        end="\ncat('{token}', file = '/dev/fd/{fd}', append = TRUE)\n",
    ),
    "Racket": Language(
        "program.rkt",
        ("racket", "program.rkt"),
        version=("racket", "--version"),
        apt=("racket",),
        fails=(CHECK_FAILURE,),
        syntax="read-syntax:",
        limits=VM,
    ),
    "Ruby": Language(
        "program.rb",
        ("ruby", "program.rb"),
        version=("ruby", "--version"),
        apt=("ruby", "ruby-test-unit"),
        syntax="syntax error|SyntaxError",
        end=RUBY_END,
    ),
    "Rust": Language(
        "program.rs",
        ("./program",),
        (("rustc", "--edition=2021", "-o", "program", "program.rs"),),
        ("rustc", "--version"),
        ("rustc",),
        limits=VM,
        without_assertions="debug assertions are off",
    ),
    "Scala": Language(
        "program.scala",
        ("scala", "-nc", "program.scala"),
        version=("scala", "-version"),
        apt=("scala",),
        syntax=r"(?m)^\S+\.scala:\d+: error: ",
        limits=VM,
    ),
    "Scheme": Language(
        "program.rkt",
        ("racket", "program.rkt"),
        version=("racket", "--version"),
        apt=("racket",),
        fails=(CHECK_FAILURE,),
        syntax="read-syntax:",
        limits=VM,
    ),
    "Shell": Language(
        "program.sh",
        ("bash", "program.sh"),
        version=("bash", "--version"),
        apt=("bash", "bc", "bsdextrautils"),
        syntax="syntax error",
        end="\nprintf %s '{token}' >&{fd}\n",
    ),
    "Swift": Language("program.swift", ("swift", "program.swift"), version=("swift", "--version"), limits=VM),
    "Tcl": Language(
        "program.tcl",
        ("tclsh", "program.tcl"),
        version=("tclsh",),
        apt=("tcl",),
        end="\nset _end [open /dev/fd/{fd} w]; puts -nonewline $_end {token}; close $_end\n",
    ),
    "TypeScript": Language(
        "program.ts",
        ("node", "program.js"),
        (("tsc", "--lib", "es2015,dom", "program.ts"),),
        ("tsc", "--version"),
        ("node-typescript", "nodejs"),
        fails=(NODE_ASSERT,),
        limits=VM,
    ),
    "VimScript": Language(
        "program.vim",
        ("vim", "-u", "NONE", "-i", "NONE", "-n", "-N", "--not-a-term", "--cmd", "source program.vim", "--cmd", "qa!"),
        version=("vim", "--version"),
        apt=("vim-nox",),
        fails=(r"(?i)failed", r"(?m)^E\d+: "),
    ),
    "Visual Basic": Language(
        "program.vb",
        ("mono", "program.exe"),
        (("vbnc", "-define:DEBUG=True", "-define:TRACE=True", "-out:program.exe", "program.vb"),),
        ("vbnc", "--version"),
        fails=MONO_FAIL,
        environment={"MONO_TRACE_LISTENER": "Console.Error"},
        limits=VM,
        without_assertions="Debug.Assert is silent: MONO_TRACE_LISTENER=Console.Error has no effect",
    ),
}
# Programs with a text in them are tests of the language's own runner.
TEST_RUNNERS: dict[str, tuple[str, Language]] = {
    "Go": (
        "*testing.T",
        replace(LANGUAGES["Go"], file="program_test.go", compile=(), run=("go", "test", "program_test.go")),
    ),
    "Rust": (
        "#[test]",
        replace(LANGUAGES["Rust"], compile=(("rustc", "--edition=2021", "--test", "-o", "program", "program.rs"),)),
    ),
}


def of_program(language: str, program: str) -> Language:
    """How this program is run. Raises: KeyError for a language that is not in the table."""
    marker, runner = TEST_RUNNERS.get(language, ("", None))
    return runner if runner is not None and marker in program else LANGUAGES[language]
