"""Which comment and string syntax a language has (`default`), and which comments the released filter counts (`compat`).

`compat_syntax.json` holds facts established by running Pygments 2.21, the lexer library of the released filter, on one
probe per language and comment form: which forms it labels as a comment token that the released filter counts, and
whether the token swallows the newline (then two lines of code become one). A language absent there has no lexer of
that name, and the released filter falls back to its own line rule.
"""

import json
from functools import cache
from pathlib import Path

from . import scan as s
from .scan import Syntax

_C = (("/*", "*/"),)
_LONG_LUA = (("--[[", "]]"),)

_FAMILIES: dict[Syntax, str] = {
    Syntax(
        ("//",), _C, s.LINE, s.CHAR, flags=s.RAW_CPP
    ): "c cpp cuda objective-c objective-c++ opencl nesc arduino glsl hlsl metal",
    Syntax(("//",), _C, s.LINE, s.CHAR, flags=s.VERBATIM): "csharp",
    Syntax(("//",), _C, s.LINE, s.CHAR, s.RAW): "go v",
    Syntax(("//",), _C, s.MULTI, s.CHAR, flags=s.NESTED | s.RUST): "rust",
    Syntax(("//",), _C, s.LINE, s.CHAR, flags=s.TRIPLE | s.NO_DOC | s.NESTED): "scala kotlin swift",
    Syntax(("//",), _C, s.LINE, s.CHAR, flags=s.TRIPLE | s.NO_DOC): "java",
    Syntax(("//",), _C, s.LINE, s.LINE, flags=s.TRIPLE | s.NO_DOC): "dart groovy gradle smithy",
    Syntax(("//",), _C, s.LINE, s.LINE, s.TEMPLATE, s.REGEX): "javascript typescript tsx jsx qml",
    Syntax(("//",), _C, s.LINE, s.LINE): (
        "actionscript vala chapel cypher solidity protobuf processing d haxe pike less scss wgsl qsharp bicep thrift stylus gosu "
        "verilog systemverilog json5 'json with comments' jsonc idl webidl"
    ),
    Syntax((), _C, s.LINE, s.LINE): "css",
    Syntax(("#", "//"), _C, s.MULTI, s.MULTI, flags=s.PHP): "php hack",
    Syntax(("#", "//"), _C, s.LINE, s.LINE, flags=s.TRIPLE | s.NO_DOC): "hcl terraform jsonnet nix puppet",
    Syntax(("#",), (), s.LINE, s.LINE, flags=s.TRIPLE): "python cython starlark sage xonsh gdscript mojo nim",
    Syntax(("#",), (("#=", "=#"),), s.LINE, s.CHAR, flags=s.TRIPLE | s.NESTED): "julia",
    Syntax(("#",), (), s.LINE, s.LINE, flags=s.TRIPLE | s.NO_DOC): "elixir toml coffeescript",
    Syntax(("#",), (("=begin", "=end"),), s.MULTI, s.MULTI, s.MULTI, s.HASH_AFTER_SPACE): "ruby crystal",
    Syntax(
        ("#",), (("=pod", "=cut"), ("=head", "=cut"), ("=over", "=cut")), s.LINE, s.LINE, flags=s.HASH_AFTER_SPACE
    ): "perl raku",
    Syntax(("#",), (), s.MULTI, s.RAW, flags=s.HASH_AFTER_SPACE): "shell bash zsh fish tcsh",
    Syntax(("#",), (("<#", "#>"),), s.MULTI, s.RAW, flags=s.HASH_AFTER_SPACE): "powershell",
    Syntax(("#",), (), s.LINE, s.LINE, flags=s.HASH_AFTER_SPACE): (
        "yaml makefile dockerfile r awk tcl cmake meson gherkin nginx apacheconf desktop gitignore 'git attributes' properties "
        "'ignore list' editorconfig dotenv bitbake sed jq graphql bazel ninja just gap robotframework crontab 'git config'"
    ),
    Syntax(("#", ";"), (), s.LINE, s.NONE, flags=s.LINE_START): "ini",
    Syntax(("--",), _C, s.DOUBLED, s.DOUBLED): "sql plpgsql plsql tsql sqlpl vhdl",
    Syntax(("--",), _LONG_LUA, s.LINE, s.LINE): "lua luau moonscript",
    Syntax(("--",), (("{-", "-}"),), s.LINE, s.CHAR, flags=s.NESTED): "haskell elm purescript idris agda",
    Syntax(("--",), (), s.DOUBLED_LINE, s.CHAR): "ada futhark",
    Syntax((";",), (("#|", "|#"),), s.MULTI, s.NONE, flags=s.NESTED): (
        "scheme racket 'common lisp' 'emacs lisp' clojure lfe newlisp fennel hy"
    ),
    Syntax(
        (";",), (), s.LINE, s.LINE
    ): "assembly nasm llvm 'motorola 68k assembly' autohotkey autoit nsis inno 'inno setup'",
    Syntax(("%",), (), s.LINE, s.NONE): "tex latex bibtex postscript",
    Syntax(("%",), (), s.LINE, s.LINE): "erlang prolog mercury",
    Syntax(("%", "#"), (("%{", "%}"),), s.LINE, s.NONE): "matlab octave",
    Syntax(
        (), (("(*", "*)"),), s.MULTI, s.CHAR, flags=s.NESTED
    ): "ocaml standardml 'standard ml' coq isabelle mathematica sml",
    Syntax(("//",), (("(*", "*)"),), s.LINE, s.CHAR, flags=s.TRIPLE | s.NO_DOC): "f# fsharp",
    Syntax(("//",), (("{", "}"), ("(*", "*)")), s.NONE, s.DOUBLED_LINE): "pascal delphi 'component pascal'",
    Syntax(
        ("'", "REM"), (), s.DOUBLED_LINE, s.NONE
    ): "'visual basic .net' 'visual basic 6.0' vba vbscript basic freebasic",
    Syntax(("REM", "::"), (), s.LINE, s.NONE, flags=s.LINE_START): "batchfile",
    Syntax(("!",), (), s.DOUBLED_LINE, s.DOUBLED_LINE): "fortran 'fortran free form'",
    Syntax(('"',), (), s.NONE, s.DOUBLED_LINE, flags=s.LINE_START): "'vim script' viml 'vim snippet'",
    Syntax(("//",), (), s.LINE, s.CHAR): "zig gleam",
    Syntax((), (("<!--", "-->"),), s.MULTI, s.NONE): (
        "html xml svg vue svelte markdown xslt xaml 'html+php' 'html+erb' 'html+django' 'html+eex' handlebars twig blade wikitext plist "
        "'xml property list' 'maven pom' astro ejs"
    ),
    Syntax((), (), s.LINE, s.NONE): "json geojson jsonld 'jupyter notebook' text csv tsv diff",
}


@cache
def _default_table() -> dict[str, Syntax]:
    import shlex

    return {name: syntax for syntax, names in _FAMILIES.items() for name in shlex.split(names)}


_GENERIC = Syntax(("//", "#"), _C, s.LINE, s.LINE, flags=s.HASH_AFTER_SPACE | s.LINE_START)


def default_syntax(language: str) -> Syntax:
    """Syntax of `language`; of an unknown one: `/* */`, and `//` or `#` at the start of a line."""
    return _default_table().get(language, _GENERIC)


@cache
def _compat_facts() -> dict:
    return json.loads(Path(__file__).with_name("compat_syntax.json").read_text())


@cache
def compat_syntax(language: str) -> Syntax | None:
    """What the released filter counts as comment in `language`; None where it has no lexer and uses its line rule."""
    facts = _compat_facts().get(language)
    if facts is None:
        return None
    base = default_syntax(language)
    flags = base.flags & ~s.LINE_START
    if facts.get("eat"):
        flags |= s.EAT_NEWLINE
    if facts.get("line_start"):
        flags |= s.LINE_START
    if "'''" in facts.get("doc", ""):
        flags |= s.TRIPLE | s.DOC_ANYWHERE
    else:
        flags |= s.NO_DOC
    known = language in _default_table()
    mode = (base.double, base.single, base.backtick) if known else (s.LINE, s.NONE, s.NONE)
    return Syntax(tuple(facts.get("line", ())), tuple(tuple(b) for b in facts.get("block", ())), *mode, flags)
