"""How comments are written, per language: what may open a file, where it ends, and where that is in doubt.

Only facts that decide where a comment ends are here. A form that is read differently by dialects of one language (nested
comments in SQL, a backslash at the end of a line comment outside the C family) is marked as doubtful: the scan ends there.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

_MIRROR = str.maketrans("([{<«", ")]}>»")


class Block(NamedTuple):
    """A comment between delimiters. `closing` is a text, or a function of the opening's match; of a comment of `whole_lines`
    both delimiters begin a line and `closing` is a pattern. `nests`: None where dialects differ. `inner` is the pattern
    of an opening inside. `never` matches, at the opening, what looks like a comment and is read by a program.
    """

    opening: re.Pattern[str]
    closing: str | Callable[[re.Match[str]], str] | re.Pattern[str]
    nests: bool | None = False
    inner: re.Pattern[str] | None = None
    never: re.Pattern[str] | None = None
    whole_lines: bool = False


class CommentSyntax(NamedTuple):
    """`line` matches indentation and mark of a comment that ends with its line; `blocks` in the order they are tried.

    `preamble` matches one thing that may stand before or between the comments that open a file (include guards, an XML
    declaration, `<?php`). `continued`: a backslash before the line's end goes on with the comment. `doubt`, found in a
    line comment, says that its end is not certain. `blank_lines_count`: they are part of the text (TeX).
    `begins_with_preamble`: what stands before it is text (PHP).
    """

    line: re.Pattern[str] | None = None
    blocks: tuple[Block, ...] = ()
    preamble: re.Pattern[str] | None = None
    continued: bool = False
    doubt: re.Pattern[str] | None = None
    blank_lines_count: bool = False
    begins_with_preamble: bool = False


# What ends a line in some languages and not in others, inside a line.
_ODD = r"[\r\v\f\x1c-\x1e\x85\u2028\u2029](?=[^\r\n])(?!\s*$)"


def _line(*marks: str, column_one: str = "") -> re.Pattern[str]:
    indented = rf"[ \t]*(?:{'|'.join(marks)})"
    return re.compile(f"{column_one}|{indented}" if column_one else indented)


def _block(opening: str, closing: str, *, nests: bool | None = False, never: str = "") -> Block:
    """Delimiters given as they are written; `never` is a pattern of what must not follow the opening."""
    return Block(
        re.compile(re.escape(opening)),
        closing,
        nests,
        re.compile(re.escape(opening)) if nests is not False else None,
        re.compile(re.escape(opening) + never) if never else None,
    )


def _syntax(
    line: re.Pattern[str] | None = None,
    *blocks: Block,
    preamble: str = "",
    continued: bool = False,
    doubt: str = "",
    blank_lines_count: bool = False,
    begins_with_preamble: bool = False,
) -> CommentSyntax:
    return CommentSyntax(
        line,
        blocks,
        re.compile(preamble, re.IGNORECASE) if preamble else None,
        continued,
        re.compile(f"{_ODD}|{doubt}" if doubt else _ODD),
        blank_lines_count,
        begins_with_preamble,
    )


def _long_bracket(match: re.Match[str]) -> str:
    return "]" + match[1] + "]"


def _mirrored(match: re.Match[str]) -> str:
    return match[1].translate(_MIRROR)


# Preambles.
_GUARD = (
    r"[ \t]*\#[ \t]*(?:ifndef[ \t]+\w+|if[ \t]+!?[ \t]*defined[ \t]*\(?[ \t]*\w+[ \t]*\)?|define[ \t]+\w+(?:[ \t]+1)?|"
    r"pragma[ \t]+once\b)[ \t]*(?:\r*\n|\r|\Z)"
)
_XML_PREAMBLE = r"<\?xml\b[^<>?]*\?>|<!doctype\b[^<>\[]*>|<\?xml-stylesheet\b[^<>]*\?>"
# A whole simple statement on the tag's line, or strict types.
_PHP_STATEMENT = r"""(?:[^'"/\#?<\r\n`;]|'[^'\\\r\n]*'|"[^"\\$\r\n]*")+;[ \t]*(?=\r|\n|\Z)"""
_PHP_PREAMBLE = (
    rf"<\?(?:php|hh)(?=\s)(?:[ \t]+(?=\S){_PHP_STATEMENT})?|declare[ \t]*\([ \t]*strict_types[ \t]*=[ \t]*1[ \t]*\)[ \t]*;"
    rf"|{_XML_PREAMBLE}"
)
_PREPROCESSOR = (
    r"\#(?![ \t]*(?:include|include_next|import|define|undef|ifdef|ifndef|if|else|elif|elifdef|elifndef|endif|error|warning|"
    r"pragma|line|ident|sccs|assert|unassert|embed)\b)(?![ \t]*\d+[ \t]+\")"
)

# Blocks.
_SLASH_STAR = _block("/*", "*/", never=r"@(?:cc_on|if\b|[-+]\w)|#__PURE__")
_SLASH_STAR_NESTED = _block("/*", "*/", nests=True)
_SLASH_STAR_SOME = _block("/*", "*/", nests=None)
_ML = _block("(*", "*)", nests=True, never=r"\)|\$")
_MARKUP = _block("<!--", "-->", never=r"-?>|\s*\[\s*(?:end)?if\b|\s*<!\[|\#|%|\[CDATA")
_HASH_LINE = _line("#")

_C_PREAMBLE = {"preamble": _GUARD, "continued": True}
_C = _syntax(_line("//"), _SLASH_STAR, **_C_PREAMBLE)
# A unicode escape of a line end ends a comment in Java.
_JAVA = _syntax(_line("//"), _SLASH_STAR, doubt=r"\\u+000[aAdD]")
_SLASHES = _syntax(_line("//"), _SLASH_STAR)
_NESTED = _syntax(_line("//"), _SLASH_STAR_NESTED)
_SOMETIMES = _syntax(_line("//"), _SLASH_STAR_SOME)
_HASH = _syntax(_HASH_LINE)
_TEMPLATE = _block("<%--", "--%>")

_GROUPS: tuple[tuple[CommentSyntax, str], ...] = (
    (
        _C,
        "c cpp objective-c objective-c++ objective-j cuda opencl glsl hlsl arduino metal nesc ragel yacc lex bison "
        "jflex jison jison_lex renderscript swig unified_parallel_c ec ecere_projects xs holyc smpl edje_data_collection idl  "
        "rpc angelscript squirrel sourcepawn pawn nwscript gsc lsl mql4 mql5 shaderlab",
    ),
    (_JAVA, "java groovy gradle processing xtend aspectj golo groovy_server_pages"),
    (
        _SLASHES,
        "csharp javascript typescript tsx jsx qml go solidity protocol_buffer verilog systemverilog "
        "actionscript antlr scss less stylus json_with_comments json5 thrift vala apex haxe zig beef boo "
        "nemerle fantom flatbuffers wgsl cairo gosu webidl aidl avro_idl bluespec cadence typespec "
        "prisma yul uno unrealscript zenscript zap whiley witcher_script x10 opa peg.js pike move slint smithy "
        "stan kit cycript q# qt_script   openscad openqasm faust ballerina modelica gaml chuck "
        "jolie hocon d2 cap_cds codeql gleam cloud_firestore_security_rules   object_data_instance_notation "
        "graphviz_(dot)  jest_snapshot boogie promela soong volt typst rascal  "
        "  dogescript emberscript_c glimmer_js tea toit wollok yara game_maker_language",
    ),
    (_NESTED, "rust swift kotlin gradle_kotlin_dsl scala dart ceylon chapel odin v pony wren jai dafny reason rescript"),
    (_syntax(_line("//"), _block("/+", "+/", nests=True), _SLASH_STAR), "d"),
    (_syntax(None, _SLASH_STAR, preamble=r"@charset \"[^\"\r\n]*\";"), "css"),
    (_syntax(_line("//"), _SLASH_STAR, preamble=r"@charset \"[^\"\r\n]*\";"), "postcss"),
    # `#[` opens an attribute; a line comment ends before `?>`.
    (_syntax(_line("//", r"\#(?!\[)"), _SLASH_STAR, preamble=_PHP_PREAMBLE, doubt=r"\?>", begins_with_preamble=True), "php hack"),
    (_syntax(_line("//", "#"), _SLASH_STAR), "hcl terraform terraform_template jsonnet vcl"),
    (
        _syntax(
            _line("//", ";", "@(?![A-Za-z])", r"!(?=[ \t!*-])", r"\|", _PREPROCESSOR),
            _SLASH_STAR,
            **_C_PREAMBLE,
        ),
        "assembly unix_assembly motorola_68k_assembly nasm",
    ),
    (_syntax(None, _SLASH_STAR, **_C_PREAMBLE), "linker_script"),
    (
        _HASH,
        "python cython shell bash zsh fish tcsh perl r elixir makefile toml dockerfile tcl awk sed "
        "gherkin starlark meson gdscript gnuplot rpm_spec bitbake puppet sage xonsh mojo snakemake  "
        "graphql ninja properties java_properties dotenv gettext_catalog apacheconf nginx ignore_list mako nushell just "
        "alpine_abuild gentoo_ebuild gentoo_eclass crontab git_config git_attributes editorconfig gn qmake browserslist "
        " caddyfile codeowners curl_config desktop haproxy nanorc npm_config pip_requirements option_list readline_config "
        "redirect_rules ssh_config shellcheck_config wget_config selinux_policy textproto protocol_buffer_text_format open_policy_agent "
        "cue earthly elvish gap gdb io ioke janet jq nit pan pir polar praat procfile rbs ring singularity "
        "spline ston turtle sparql zeek vyper scenic gdb nu numpy hxml cson common_workflow_language saltstack kvlang dircolors",
    ),
    (_syntax(_HASH_LINE, preamble=r"%(?:YAML|TAG)\b[^\r\n]*|---(?=[ \t]*(?:\r|\n|\Z))"), "yaml"),
    (
        _syntax(
            _HASH_LINE,
            Block(re.compile(r"=begin\b"), re.compile(r"^=end\b[^\r\n]*", re.MULTILINE), whole_lines=True),
        ),
        "ruby",
    ),
    (_HASH, "crystal"),
    (_syntax(_line(r"\#(?!=)"), _block("#=", "=#", nests=True)), "julia"),
    (
        _syntax(_line(r"\#(?!\[=*\[)"), Block(re.compile(r"\#\[(=*)\["), _long_bracket)),
        "cmake",
    ),
    (_syntax(_line(r"\#(?!\#?\[)"), _block("##[", "]##", nests=True), _block("#[", "]#", nests=True)), "nim"),
    (
        _syntax(_line(r"\#(?!\#\#(?!\#))"), Block(re.compile(r"\#\#\#(?!\#)"), "###")),
        "coffeescript   emberscript",
    ),
    (
        _syntax(
            _line(r"\#(?![`|=])"),
            Block(re.compile(r"\#`(\(+|\[+|\{+|<+|«+)"), _mirrored, True, re.compile(r"[(\[{<«]")),
        ),
        "raku",
    ),
    (
        _syntax(None, _MARKUP, preamble=_XML_PREAMBLE),
        "html xml svg vue svelte astro xslt xml_property_list maven_pom xhtml ant_build_system xaml "
        "xproc xpages web_ontology_language collada genshi eagle ",
    ),
    # Four columns of indentation make code of it.
    (_syntax(None, _MARKUP._replace(opening=re.compile(r"(?<![ \t]{4})(?<!\t)<!--"))), "markdown mdx"),
    (
        _syntax(None, _TEMPLATE, _MARKUP, preamble=_XML_PREAMBLE + r"|<%@[^<>%]*%>"),
        "html+erb html+eex html+php html+ecr html+django html+razor java_server_pages asp.net ejs edge templ "
        "groovy_server_pages classic_asp",
    ),
    (
        _syntax(None, _block("{#", "#}"), _MARKUP, preamble=_XML_PREAMBLE),
        "twig jinja nunjucks ",
    ),
    (_syntax(None, _block("{{!--", "--}}"), _MARKUP, preamble=_XML_PREAMBLE), "handlebars mustache "),
    (_syntax(None, _block("{{--", "--}}"), _MARKUP, preamble=_XML_PREAMBLE), "blade"),
    (_syntax(None, _block("{*", "*}"), _MARKUP, preamble=_XML_PREAMBLE), "smarty latte"),
    (_syntax(None, _block("<#--", "-->"), _MARKUP, preamble=_XML_PREAMBLE), "freemarker"),
    (_syntax(None, _block("<!---", "--->", nests=True), preamble=_XML_PREAMBLE), "coldfusion coldfusion_cfc"),
    (_syntax(_line("##"), _block("#*", "*#")), "velocity_template_language"),
    (_syntax(None, _block("(:", ":)", nests=True)), "xquery jsoniq"),
    (
        # Two dashes and another symbol are an operator.
        _syntax(
            _line(r"--+(?![!#$%&*+./<=>?@\\^|~:-])"),
            _block("{-", "-}", nests=True, never="#"),
            preamble=r"\{-#[^#{}]*#-\}",
        ),
        "haskell elm purescript idris agda frege curry dhall unison ",
    ),
    (_syntax(_line("--(?![-/])"), _block("/-", "-/", nests=True)), "lean"),
    (
        _syntax(_line(r"--(?!\[=*\[)"), Block(re.compile(r"--\[(=*)\["), _long_bracket)),
        "lua luau terra",
    ),
    (_syntax(_line("--")), "ada vhdl moonscript eiffel"),
    (_syntax(_line("--", "#"), _ML), "applescript"),
    (
        _syntax(_line(r"--(?!\+)"), _block("/*", "*/", nests=None, never=r"[!+]|M!")),
        "sql plsql plpgsql tsql sqlpl hiveql edgeql",
    ),
    (_syntax(_line("//"), _SLASH_STAR), "kusto cypher "),
    (
        _syntax(_line(";"), _block("#|", "|#", nests=True), preamble=r"\#lang[ \t][^\r\n]*"),
        "common_lisp scheme racket",
    ),
    (_syntax(_line(";")), "emacs_lisp clojure lfe hy fennel edn cirru   pddl clips smt clarity dns_zone "),
    (_syntax(_line(";"), _block("(;", ";)", nests=True)), "webassembly"),
    (_syntax(_line(";", "#")), "newlisp ini inno_setup "),
    (_syntax(_line(";", "#"), _SLASH_STAR), "nsis"),
    (_syntax(_line(";")), "autohotkey autoit llvm rebol red purebasic blitzbasic windows_registry_entries parrot_assembly"),
    (_syntax(_line("%"), blank_lines_count=True), "tex sweave "),
    (_syntax(_line("%")), "erlang bibtex postscript "),
    (_syntax(_line("%"), _SLASH_STAR_SOME), "prolog mercury logtalk"),
    (_syntax(_line(r"%(?!\{)"), _block("%{", "%}")), "lilypond"),
    (
        _syntax(
            _line(r"%(?!\{[ \t]*$)", r"\#(?!\{[ \t]*$)"),
            Block(
                re.compile(r"[%#]\{[ \t]*(?=\r|\n)"),
                re.compile(r"^[ \t]*[%#]\}[ \t]*$", re.MULTILINE),
                True,
                re.compile(r"^[ \t]*[%#]\{[ \t]*$", re.MULTILINE),
                whole_lines=True,
            ),
        ),
        "matlab octave",
    ),
    (_syntax(None, _ML), "ocaml standard_ml coq mathematica isabelle isabelle_root oberon component_pascal modula-3 ats urweb cameligo"),
    (_syntax(_line("//"), _ML), "f# f* fstar"),
    (
        _syntax(_line("//"), _block("{", "}", nests=None, never=r"\$"), _block("(*", "*)", nests=None, never=r"\$")),
        "pascal oxygene",
    ),
    (_syntax(_line("!")), "fortran_free_form"),
    # Fixed form: any of these in the first column; a statement in free form may begin with the same letter.
    (
        _syntax(
            _line(
                "!",
                column_one=r"[Cc*Dd](?!(?:all|haracter|omplex|ommon|ontinue|ase|lose|ycle|lass|ontains|ritical|imension|"
                r"ouble|ata|eallocate|o\b|efault)\b|[ \t]*=(?![=]))",
            )
        ),
        "fortran",
    ),
    (_syntax(_line(r"\*>", column_one=r"[ \d]{6}[*/]")), "cobol"),
    # A comment that ends in ` _` goes on in some dialects.
    (
        _syntax(_line("'", r"(?i:rem)(?=[ \t\r\n]|$)"), doubt=r"[ \t]_[ \t]*$"),
        "visual_basic_.net vba visual_basic_6.0 vbscript basic freebasic quickbasic realbasic ",
    ),
    (_syntax(_line('"')), "vim_script "),
    (_syntax(_line("#"), _SLASH_STAR), "nix nix_expr"),
    (_syntax(_line("#"), _block("<#", "#>")), "powershell"),
    (
        _syntax(
            _line(r"@?(?i:rem)(?=[ \t\r\n]|$)(?![ \t]*&)", "@?::"),
            preamble=r"@?echo[ \t]+off[ \t]*(?=\r|\n|\Z)",
            doubt=r"\^[ \t]*$",
        ),
        "batchfile",
    ),
    (_syntax(_line(r"dnl\b", "#")), "m4 m4sugar"),
    (_syntax(_line(r"@c(?:omment)?\b(?!\{)"), preamble=r"\\input texinfo[^\r\n]*"), "texinfo"),
    (_syntax(_line(r"[.']\\[\"#]")), "roff runoff"),
    (_syntax(_line("//(?!//)")), "asciidoc"),
    (_syntax(_line(r"\#(?=[ \t]|$)")), "org"),
    (_syntax(_line(r"\\(?=[ \t])")), "forth"),
    (_syntax(_line(r"NB\.")), "j"),
    (_syntax(_line("⍝")), "apl"),
    (_syntax(_line("//"), _SLASH_STAR), "stata"),
)  # fmt: skip


@cache
def _table() -> dict[str, CommentSyntax]:
    return {name.replace("_", " "): syntax for syntax, names in _GROUPS for name in names.split()}


def comment_syntax(language: str | None) -> CommentSyntax | None:
    """Syntax of a language, or None when its files carry no comment that this table knows."""
    return _table().get(language or "")
