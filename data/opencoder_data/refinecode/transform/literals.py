"""Comments and string literals by a table, for languages without a grammar and for texts that are not parsed.

One pass from left to right: the next comment mark or literal opens a region, and the scan goes on at its end. Linear in the
length of the text. What is not closed is not a region: where in doubt there is neither comment nor string.
"""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

COMMENT, STRING = "comment", "string"


class Form(NamedTuple):
    """How a literal opens, what is inside, how it closes: regular expressions. One that never closes reaches as far as its
    inside does and is not a region; so every byte is read once."""

    opening: str
    inside: str
    closing: str


FORMS: dict[str, Form] = {
    "double": Form('"', r'(?:[^"\\\n]|\\[^\n])*+', '"'),
    "single": Form("'", r"(?:[^'\\\n]|\\[^\n])*+", "'"),
    "double_doubled": Form('"', r'(?:[^"\n]|"")*+', '"'),
    "single_doubled": Form("'", r"(?:[^'\n]|'')*+", "'"),
    "double_lines": Form('"', r'(?:[^"\\]|\\.)*+', '"'),
    "char": Form("'", r"(?:[^'\\\n]|\\[^\n]{1,10}?)", "'"),
    "triple_double": Form('"""', r'(?:[^"\\]|\\.|"(?!""))*+', '"""'),
    "triple_single": Form("'''", r"(?:[^'\\]|\\.|'(?!''))*+", "'''"),
    "backtick": Form("`", r"(?:[^`\\]|\\.)*+", "`"),
    "backtick_raw": Form("`", r"[^`]*+", "`"),
    "verbatim": Form(r'\$?@\$?"', r'(?:[^"]|"")*+', '"'),
    # No region, but what is in it opens none: an expression after an operator.
    "regex": Form(r"[=(,:;!&|?{}\[][ \t]*/(?![*/])", r"(?:[^/\\\n\[]|\\[^\n]|\[(?:[^\]\\\n]|\\[^\n])*+\])*+", "/"),
    "long_bracket": Form(r"\[\[", r"(?:[^\]]|\](?!\]))*+", r"\]\]"),
}


class Lexis(NamedTuple):
    """line: marks of comments up to the end of their line; block: delimiters, alternately opening and closing; literals: `FORMS`
    in the order they are tried; nested: blocks hold blocks. Marks at `^` count where a line begins with them."""

    line: str = ""
    block: str = ""
    literals: str = ""
    nested: bool = False


_TRIPLE = "triple_double triple_single double single"
_FAMILIES: tuple[tuple[Lexis, str], ...] = (
    (Lexis("//", "/* */", "double char"), "c cpp objective-c objective-c++ cuda opencl glsl hlsl metal arduino java nesc aspectj cycript zig ceylon renderscript"),
    (Lexis("//", "/* */", "double char", nested=True), "rust"),
    (Lexis("//", "/* */", "triple_double double char", nested=True), "scala kotlin swift 'gradle kotlin dsl'"),
    (Lexis("//", "/* */", "verbatim double char"), "csharp"),
    (Lexis("//", "/* */", "double char backtick_raw"), "go v"),
    (Lexis("//", "/* */", "regex double single backtick"), "javascript typescript tsx jsx qml livescript"),
    (Lexis("//", "/* */", _TRIPLE), "dart groovy gradle nextflow"),
    (Lexis("//", "/* */", "double single"), "actionscript haxe vala d pike processing solidity apex scss less stylus thrift 'protocol buffer' squirrel angelscript chapel "
                                            "cypher jsonnet stan sourcepawn nwscript openscad dafny bicep"),
    (Lexis("//", "/* */", "double"), "verilog systemverilog 'linker script' gn soong prisma capnp"),
    (Lexis("", "/* */", "double single"), "css postcss"),
    (Lexis("// #", "/* */", "double single"), "php hack hcl terraform 'terraform template' thrift"),
    (Lexis("#", "/* */", "double"), "nix puppet"),
    (Lexis("#", "", _TRIPLE), "python cython starlark sage xonsh gdscript mojo boo snakemake genie vyper"),
    (Lexis("#", "#[ ]#", "triple_double double char", nested=True), "nim"),
    (Lexis("#", "### ###", _TRIPLE), "coffeescript"),
    (Lexis("#", "#= =#", "triple_double double char", nested=True), "julia"),
    (Lexis("#", "", "triple_double double"), "elixir"),
    (Lexis("#", "", "double single"), "ruby crystal perl raku tcl r awk cmake meson nginx just bitbake gap makefile graphql shell yaml toml dockerfile fish"),
    (Lexis("#", "<# #>", "double_doubled single_doubled"), "powershell"),
    (Lexis("--", "--[[ ]]", "long_bracket double single"), "lua moonscript luau"),
    (Lexis("--", "{- -}", "double char", nested=True), "haskell elm purescript idris agda frege"),
    (Lexis("--", "/* */", "single_doubled"), "sql plsql plpgsql tsql sqlpl hiveql"),
    (Lexis("--", "", "double_doubled"), "vhdl ada"),
    (Lexis("--", "(* *)", "double", nested=True), "applescript"),
    (Lexis(";", "#| |#", "double_lines", nested=True), "scheme racket 'common lisp' 'emacs lisp' lfe newlisp fennel hy janet"),
    (Lexis(";", "", "double_lines"), "clojure wisp"),
    (Lexis("^; ^# // ^*", "/* */", "double"), "assembly 'unix assembly' nasm 'motorola 68k assembly'"),
    (Lexis(";", "", "double"), "llvm autohotkey"),
    (Lexis("^; ^#", "/* */", "double"), "nsis"),
    (Lexis("^; // ^{", "", "double"), "'inno setup'"),
    (Lexis(";", "#cs #ce", "double_doubled single_doubled"), "autoit"),
    (Lexis("%", "", "double_lines"), "erlang"),
    (Lexis("%", "/* */", "double single_doubled"), "prolog mercury logtalk"),
    (Lexis("%", "%{ %}", "double_doubled single_doubled"), "matlab octave"),
    (Lexis("", "(* *)", "double_lines char", nested=True), "ocaml 'standard ml' coq mathematica"),
    (Lexis("//", "(* *)", "triple_double verbatim double char", nested=True), "f#"),
    (Lexis("//", "{ } (* *)", "single_doubled"), "pascal delphi 'component pascal'"),
    (Lexis("! ^C ^c ^* ^D", "", "double_doubled single_doubled"), "fortran"),
    (Lexis("!", "", "double_doubled single_doubled"), "'fortran free form'"),
    (Lexis("'", "", "double_doubled"), "'visual basic .net' vba 'visual basic 6.0' vbscript basic freebasic quickbasic"),
    (Lexis('^"', "", "double"), "'vim script'"),
    (Lexis("^:: ^REM", "", "double"), "batchfile"),
    (Lexis("^* *>", "", "double_doubled single_doubled"), "cobol"),
    (Lexis("", "/* */", "double_doubled single_doubled"), "rexx"),
    (Lexis("\\\\", "( )", "double"), "forth"),
)  # fmt: skip
_LEXIS = {name: lexis for lexis, names in _FAMILIES for name in shlex.split(names)}
# A language that the table does not know: literals in double quotes, and lines that begin with a mark of a comment.
_UNKNOWN = Lexis("^# ^// ^-- ^; ^% ^* ^/* ^! ^REM ^dnl", "", "double")
_INTERPOLATION = re.compile(rb"[#$]\{[^}\n]*\Z")


class _Scanner(NamedTuple):
    opener: "re.Pattern[bytes]"
    ends: dict[bytes, "re.Pattern[bytes]"]
    nested: bool


@cache
def _scanner(language: str) -> _Scanner:
    lexis = _LEXIS.get(language, _UNKNOWN)
    marks = lexis.block.encode().split()
    ends = {
        o: re.compile(b"(" + re.escape(o) + b")|" + re.escape(c)) for o, c in zip(marks[::2], marks[1::2], strict=True)
    }
    pieces = []
    if ends:
        pieces.append(f"(?P<block>{'|'.join(re.escape(opening.decode()) for opening in ends)})")
    if lexis.line:
        pieces.append(rf"(?P<line>(?:{'|'.join(map(_line_mark, lexis.line.split()))})[^\n]*)")
    for name in lexis.literals.split():
        form = FORMS[name]
        closed = f"(?P<closed_{name}>{form.closing})" if name != "regex" else form.closing
        # A quote that is not a character (a lifetime, a prime) is passed over alone.
        pieces.append(f"{form.opening}{form.inside}{closed}" + ("" if name == "char" else "?"))
    return _Scanner(re.compile("|".join(pieces).encode(), re.DOTALL), ends, lexis.nested)


def _line_mark(mark: str) -> str:
    if mark.startswith("^"):
        mark = mark[1:]
        word = r"\b" if mark.isalpha() and len(mark) > 1 else ""
        # A letter is one in the first column only (fixed form of Fortran).
        return rf"(?m:^{'' if len(mark) == 1 and mark.isalpha() else '[ \t]*@?'}{re.escape(mark)}){word}"
    if mark == "#":  # ${#x}, $# and &#39; are not comments
        return r"(?<![\w$&{\\])\#"
    return re.escape(mark)


def regions(data: bytes, language: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, COMMENT or STRING) in bytes, in order, delimiters included."""
    scanner = _scanner(language)
    position, unclosed = 0, set()
    while match := scanner.opener.search(data, position):
        start, end = match.span()
        if match.lastgroup == "block":
            mark = match.group()
            close = -1 if mark in unclosed else _block_end(data, end, scanner.ends[mark], scanner.nested)
            if close < 0:  # nor will a later one be looked for: linear time
                unclosed.add(mark)
                position = end
                continue
            end = close
            yield start, end, COMMENT
        elif match.lastgroup:  # None: a literal that does not close
            yield start, end, COMMENT if match.lastgroup == "line" else STRING
        position = max(end, start + 1)


def _block_end(data: bytes, position: int, ends: "re.Pattern[bytes]", nested: bool) -> int:
    """End of a block comment whose opening ends at `position`; -1 where there is none. One that does not nest and holds another
    opening ends at its first closing mark."""
    depth = 1
    while match := ends.search(data, position):
        position = match.end()
        if match.group(1):
            depth += nested
        else:
            depth -= 1
            if not depth:
                return position
    return -1


def kinds(data: bytes, language: str, spans: list[tuple[int, int]]) -> list[str]:
    """COMMENT, STRING or "" (code) of each span; one that an expression inside a literal holds is code."""
    out = [""] * len(spans)
    waiting = sorted(range(len(spans)), key=lambda i: spans[i])
    at = 0
    for start, end, kind in regions(data, language):
        while at < len(waiting) and spans[waiting[at]][0] < start:
            at += 1
        while at < len(waiting) and spans[waiting[at]][0] < end:
            i = waiting[at]
            inside = spans[i][1] <= end and not (kind == STRING and _INTERPOLATION.search(data, start, spans[i][0]))
            out[i] = kind if inside else ""
            at += 1
        if at == len(waiting):
            break
    return out


def knows(language: str) -> bool:
    """Whether the tables have comments and literals of `language`."""
    return language in _LEXIS
