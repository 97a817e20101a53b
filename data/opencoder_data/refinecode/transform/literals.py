"""Comments and string literals by a table, for languages without a grammar and for texts that are not parsed.

One pass from left to right: the next comment mark or literal opens a region, and the scan goes on at its end. Linear in the
length of the text. What is not closed is no region: where in doubt there is neither comment nor string.
"""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from opencoder_data.refinecode.transform.comment_syntax import comment_syntax

COMMENT, STRING = "comment", "string"


class Form(NamedTuple):
    """How a literal opens, what is inside, how it closes: regular expressions. One that never closes reaches as far as its
    inside does and is no region; so every byte is read once."""

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
    "long_bracket": Form(r"\[\[", r"(?:[^\]]|\](?!\]))*+", r"\]\]"),
}

_LITERALS: tuple[tuple[str, str], ...] = (
    ("double char", "c cpp objective-c objective-c++ cuda opencl glsl hlsl metal arduino java scala kotlin swift rust haskell elm "
                    "purescript idris agda frege ocaml 'standard ml' coq f# zig gleam nesc aspectj cycript ceylon"),
    ("verbatim double char", "csharp"),
    ("double char backtick_raw", "go v"),
    ("double single backtick", "javascript typescript tsx jsx qml livescript flow"),
    ("triple_double triple_single double single", "python cython starlark sage xonsh gdscript mojo nim dart groovy gradle coffeescript boo snakemake 'gradle kotlin dsl' genie"),
    ("triple_double double", "julia elixir"),
    ("double single", "php hack ruby crystal perl raku tcl r awk actionscript haxe vala d pike processing solidity "
                      "cmake meson puppet nginx just jsonnet hcl terraform nix css scss less postcss thrift 'protocol buffer' graphql prolog "
                      "smarty gn soong bitbake robotframework gap squirrel angelscript chapel cypher apex"),
    ("long_bracket double single", "lua moonscript luau"),
    ("double_lines", "scheme racket 'common lisp' 'emacs lisp' clojure lfe newlisp fennel hy janet erlang smithy"),
    ("single_doubled", "sql plsql plpgsql tsql sqlpl hiveql pascal delphi 'component pascal' matlab"),
    ("double_doubled", "vhdl ada 'visual basic .net' vba 'visual basic 6.0' vbscript basic freebasic quickbasic"),
    ("double_doubled single_doubled", "fortran 'fortran free form' cobol rexx autoit powershell xbase"),
    ("double", "verilog systemverilog llvm assembly 'unix assembly' nasm 'vim script' batchfile autohotkey nsis 'inno setup'"),
)  # fmt: skip
_LITERALS_OF = {name: forms for forms, names in _LITERALS for name in shlex.split(names)}

# A language that no table knows: literals in double quotes, and lines that begin with a mark of a comment.
_UNKNOWN_COMMENT = r"(?m:^[ \t]*(?:\#+(?!\w)|//|--|;|%|\*|/\*|!|(?:REM|rem|dnl)\b)[^\n]*)"
_INTERPOLATION = re.compile(rb"[#$]\{[^}\n]*\Z")


class _Lexis(NamedTuple):
    opener: "re.Pattern[bytes]"
    closing: dict[bytes, "re.Pattern[bytes]"]


@cache
def _lexis(language: str) -> _Lexis:
    syntax = comment_syntax(language)
    forms = _LITERALS_OF.get(language, "double" if syntax is None else "")
    pieces, closing = [], {}
    if syntax is None and language not in _LITERALS_OF:
        pieces.append(f"(?P<line>{_UNKNOWN_COMMENT})")
    else:
        for pair in syntax.block if syntax else ():
            opening, end = pair[0].encode(), pair[1].encode()
            closing[opening] = re.compile(b"(" + re.escape(opening) + b")|" + re.escape(end))
        if closing:
            pieces.append(f"(?P<block>{'|'.join(re.escape(o.decode()) for o in closing)})")
        if syntax and syntax.line:
            marks = "|".join(_line_mark(mark) for mark in syntax.line)
            pieces.append(rf"(?P<line>(?:{marks})[^\n]*)")
    for name in forms.split():
        form = FORMS[name]
        closed = f"(?P<closed_{name}>{form.closing})"
        # A quote that is no character (a lifetime, a prime) is passed over alone.
        pieces.append(
            f"{form.opening}{form.inside}{closed}" if name == "char" else f"{form.opening}{form.inside}{closed}?"
        )
    return _Lexis(re.compile("|".join(pieces).encode(), re.DOTALL), closing)


def _line_mark(mark: str) -> str:
    if mark.strip().isalpha() or mark == "::":  # REM, where a statement begins
        return rf"(?m:^[ \t]*@?{re.escape(mark)})"
    if mark == "#":  # ${#x}, $#, &#39; and #include are no comments where a word goes on
        return r"(?<![\w$&{\\])\#"
    return re.escape(mark)


def regions(data: bytes, language: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, COMMENT or STRING) in bytes, in order, delimiters included."""
    lexis = _lexis(language)
    position = 0
    while match := lexis.opener.search(data, position):
        start, end = match.span()
        if match.lastgroup == "block":
            close = _block_end(data, end, lexis.closing[match.group()])
            if close < 0:
                position = end
                continue
            end = close
            yield start, end, COMMENT
        elif match.lastgroup:  # None: a literal that does not close
            yield start, end, COMMENT if match.lastgroup == "line" else STRING
        position = max(end, start + 1)


def _block_end(data: bytes, position: int, ends: "re.Pattern[bytes]") -> int:
    """End of a block comment whose opening ends at `position`: its first closing mark; -1 where there is none, or where
    another one opens before it, which languages read differently."""
    match = ends.search(data, position)
    return -1 if match is None or match.group(1) else match.end()


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
    return language in _LITERALS_OF
