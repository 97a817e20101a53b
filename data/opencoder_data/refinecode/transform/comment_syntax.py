"""How comments are written, per language: line marks and block delimiters that may open a file."""

from typing import NamedTuple


class CommentSyntax(NamedTuple):
    """`line` marks run to the end of the line; `block` are (opening, closing) pairs."""

    line: tuple[str, ...] = ()
    block: tuple[tuple[str, str], ...] = ()


_C = CommentSyntax(("//",), (("/*", "*/"),))
_HASH = CommentSyntax(("#",))
_XML = CommentSyntax((), (("<!--", "-->"),))
_DASH = CommentSyntax(("--",))
_LISP = CommentSyntax((";",), (("#|", "|#"),))
_PERCENT = CommentSyntax(("%",))
_SEMI = CommentSyntax((";",))

_GROUPS: tuple[tuple[CommentSyntax, str], ...] = (
    (
        _C,
        "c cpp csharp java javascript typescript tsx go rust swift kotlin scala dart objective-c objective-c++ d "
        "groovy gradle glsl hlsl cuda opencl zig v vala solidity protocol_buffer verilog systemverilog processing haxe "
        "actionscript antlr qml scss less stylus json_with_comments json5 jsonnet thrift apex arduino ragel yacc lex "
        "jsx metal wgsl cairo move pony chapel nemerle boo ceylon golo fantom xtend reason rescript typespec prisma "
        "asn.1 swig slint unrealscript angelscript squirrel ballerina bison flatbuffers",
    ),
    (CommentSyntax((), (("/*", "*/"),)), "css postcss"),
    (
        CommentSyntax(("//", "#"), (("/*", "*/"),)),
        "php hack hcl terraform nix_expr assembly unix_assembly linker_script",
    ),
    (
        _HASH,
        "python cython shell bash fish perl ruby r julia elixir makefile cmake yaml toml dockerfile tcl awk sed "
        "crystal nim coffeescript starlark meson powershell gdscript raku gnuplot rpm_spec bitbake puppet "
        "graphql just ninja properties java_properties dotenv gettext_catalog apacheconf nginx ignore_list mako nushell",
    ),
    (
        CommentSyntax((), (("<!--", "-->"),)),
        "html xml xslt svg vue svelte markdown xml_property_list maven_pom xhtml mdx html+erb html+php html+django ant_build_system",
    ),
    (CommentSyntax(("--",), (("{-", "-}"),)), "haskell elm purescript idris agda frege"),
    (CommentSyntax(("--",), (("--[[", "]]"), ("--[==[", "]==]"))), "lua moonscript luau"),
    (CommentSyntax(("--",), (("/*", "*/"),)), "sql plsql plpgsql tsql sqlpl hiveql"),
    (_DASH, "ada vhdl applescript"),
    (_LISP, "common_lisp scheme racket emacs_lisp clojure newlisp"),
    (_SEMI, "ini autohotkey llvm nasm motorola_68k_assembly lfe"),
    (_PERCENT, "tex erlang matlab prolog bibtex mercury postscript"),
    (CommentSyntax((), (("(*", "*)"),)), "ocaml standard_ml coq mathematica"),
    (CommentSyntax(("//",), (("(*", "*)"),)), "f#"),
    (CommentSyntax(("//",), (("{", "}"), ("(*", "*)"))), "pascal"),
    (CommentSyntax(("!",)), "fortran fortran_free_form"),
    (CommentSyntax(("'",)), "visual_basic_.net vba visual_basic_6.0 vbscript basic freebasic quickbasic"),
    (CommentSyntax(('"',)), "vim_script"),
    (CommentSyntax(("#",), (("/*", "*/"),)), "nix"),
    (CommentSyntax(("#",), (("<#", "#>"),)), "powershell"),
    (CommentSyntax(("::", "REM ", "rem ")), "batchfile"),
)
_TABLE = {name.replace("_", " "): syntax for syntax, names in _GROUPS for name in names.split()}


def comment_syntax(language: str | None) -> CommentSyntax | None:
    """Syntax of a language, or None when its files carry no comment that this table knows."""
    return _TABLE.get(language or "")
