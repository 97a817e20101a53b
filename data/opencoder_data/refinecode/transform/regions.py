"""Where a span of a file stands: in a comment, a string literal, code, or text that a placeholder may go into.

Languages fall into four families. In code only comments and string literals count, found by tree-sitter where there is a
grammar and by the table of `literals` else; where the parser met an error, both must agree. Shell is code whose bare words
may be replaced, in quotes. In markup, text and attributes count, scripts are code, and what would open a tag is escaped.
Everything else is text, where the finders themselves ask for clear context; code that it fences off is code.
"""

import re
from collections.abc import Iterator
from enum import Enum
from functools import cache
from typing import Any

from opencoder_data.refinecode.languages import language_types
from opencoder_data.refinecode.transform import literals, parse_child
from opencoder_data.refinecode.transform.candidates import compile_latin1, words
from opencoder_data.refinecode.transform.tree_parser import tree_parser


class Place(Enum):
    """Where a span stands, and so whether and how it is replaced."""

    CODE = "never"
    COMMENT = "comment"
    STRING = "string"
    TEXT = "text"
    MARKUP = "escaped, as a tag would be opened"
    WORD = "in quotes, as a shell would redirect"


class Family(Enum):
    CODE = "code"
    SHELL = "shell"
    MARKUP = "markup"
    TEXT = "text"


_SHELL = frozenset(("shell", "dockerfile", "alpine abuild", "gentoo ebuild", "gentoo eclass", "earthly", "singularity"))
_MARKUP = frozenset((
    "html", "xml", "svg", "xslt", "maven pom", "ant build system", "vue", "svelte", "astro", "html+ecr", "html+eex", "html+erb",
    "html+php", "html+razor", "html+django", "blade", "twig", "handlebars", "jinja", "nunjucks", "ejs", "edge", "mustache", "liquid",
    "smarty", "latte", "mako", "genshi", "xml property list", "java server pages", "groovy server pages", "classic asp", "asp.net",
    "closure templates", "velocity template language", "xpages", "web ontology language", "collada", "coldfusion", "marko", "mtml",
    "jetbrains mps", "labview", "bikeshed", "kit", "xproc", "volt", "template toolkit", "eagle", "riot", "textmate properties",
))  # fmt: skip
# Attribute values and text alike must stay well-formed here; HTML's quoted attributes take any character.
_XML = frozenset((
    "xml", "svg", "xslt", "maven pom", "ant build system", "xml property list", "xpages", "web ontology language", "collada",
    "jetbrains mps", "labview", "xproc", "eagle",
))  # fmt: skip
# Data languages with operators, statements or blocks of their own.
_DATA_CODE = frozenset((
    "css", "scss", "less", "postcss", "cartocss", "protocol buffer", "graphql", "gradle", "gradle kotlin dsl", "gn", "soong", "prisma",
    "linker script", "sparql", "yang", "kusto", "cloud firestore security rules", "webassembly interface type", "rbs",
    "opentype feature file", "type language", "x pixmap", "x bitmap", "avro idl", "asn.1", "selinux policy", "edn", "turtle",
))  # fmt: skip
# Languages that the tables call code and that are prose or settings to us.
_CODE_TEXT = frozenset((
    "saltstack", "raml", "kaitai struct", "common workflow language", "lookml", "api blueprint", "gherkin", "procfile", "diff",
    "shellsession", "robotframework", "mermaid", "d2", "jupyter notebook", "m4", "m4sugar", "makefile", "runoff", "fluent",
))  # fmt: skip

# Grammars under another name than the language's own.
_GRAMMARS = {
    "apex": "apex", "objective-c": "objc", "objective-c++": "objc", "emacs lisp": "elisp", "common lisp": "commonlisp", "f#": "fsharp",
    "shell": "bash", "alpine abuild": "bash", "gentoo ebuild": "bash", "gentoo eclass": "bash", "vim script": "vim",
    "protocol buffer": "proto", "fortran free form": "fortran", "qml": "qmljs", "systemverilog": "verilog", 
    "c2hs haskell": "haskell", "plpgsql": "sql", "gradle": "groovy", "gradle kotlin dsl": "kotlin",
    "linker script": "linkerscript", "postcss": "scss", "nextflow": "groovy", "open policy agent": "rego", "webassembly": "wat",
    "tsx": "tsx", "terraform": "terraform", "jsx": "javascript", "snakemake": "python", "xonsh": "python", "vyper": "python",
    "aidl": "java", "aspectj": "java", "opencl": "c", "metal": "cpp", "unified parallel c": "c", "renderscript": "c",
    "cap'n proto": "capnp", "angelscript": "cpp", "processing": "java", "sage": "python",
}  # fmt: skip
_OWN_NAME = words(
    "actionscript ada agda arduino bicep bitbake bsl c cairo clarity clojure cmake cobol cpp csharp css cuda d dart dockerfile elixir elm "
    "erlang fennel firrtl fortran gdscript gleam glsl gn go graphql groovy hack haskell haxe hcl hlsl java javascript jsonnet julia kotlin "
    "llvm lua luau matlab meson netlinx nim nix ocaml pascal perl php pony powershell prisma puppet purescript python r racket ruby rust "
    "scala scheme scss smali smithy solidity sparql sql squirrel starlark swift tcl thrift typescript v verilog vhdl wgsl zig"
)
# Languages of many dialects, of which the grammar has one: what it calls an error may be none.
_ONE_DIALECT = frozenset(("sql", "plpgsql"))
# Nodes of words that no quotes protect, by grammar.
_BARE = {
    "bash": frozenset(("word", "concatenation", "variable_assignment", "command_name", "number", "test_operator")),
    "dockerfile": frozenset(("unquoted_string", "env_pair", "shell_command", "shell_fragment", "arg_instruction", "label_pair",
                             "maintainer_instruction", "entrypoint_instruction", "cmd_instruction")),
}  # fmt: skip

# Blocks in another language: (its name or tag, the block).
_SCRIPT = compile_latin1(
    r"(?s)<(script)\b[^>]{0,800}>(.*?)</script\s*>|<(style)\b[^>]{0,800}>(.*?)</style\s*>", ignore_case=True
)
_CELL = compile_latin1(r"(?s)<jupyter_(code)>(.*?)<jupyter_output>")
_FENCE = compile_latin1(
    r"(?sm)^[ \t]{0,8}(?:```|~~~)[ \t]*\{?\.?([A-Za-z+#-]{1,20})[^\n]*\n(.*?)^[ \t]{0,8}(?:```|~~~)"
)
_FENCED = frozenset(("markdown", "mdx", "rmarkdown", "api blueprint"))
_ALIASES = {
    "script": "javascript", "style": "css", "code": "python", "js": "javascript", "jsx": "javascript", "ts": "typescript", "py": "python",
    "python3": "python", "c++": "cpp", "cxx": "cpp", "c#": "csharp", "cs": "csharp", "rb": "ruby", "rs": "rust", "kt": "kotlin", "golang": "go",
    "hs": "haskell", "ml": "ocaml", "clj": "clojure", "jl": "julia", "ex": "elixir", "erl": "erlang", "objc": "objective-c", "fsharp": "f#",
    "elisp": "emacs lisp", "lisp": "common lisp", "scm": "scheme", "sv": "systemverilog", "pl": "perl",
}  # fmt: skip
_TEMPLATE = re.compile(rb"<%[^%]*%>|\{\{[^{}\n]*\}\}|\{%[^%\n]*%\}|<\?(?!xml)[^?]*\?>|@\{[^}\n]*\}")
_PROTECTED = compile_latin1(r"(?s)<!--.*?-->|<!\[CDATA\[.*?\]\]>")
_TAG = re.compile(rb"<[A-Za-z][^<>\"']*(?:(?:\"[^\"<]*\"|'[^'<]*')[^<>\"']*)*>")


@cache
def family(language: str | None) -> Family:
    """Family of a language; that of no language or an unknown one is text."""
    if language in _SHELL:
        return Family.SHELL
    if language in _MARKUP:
        return Family.MARKUP
    known = language_types().get(language or "")
    if language in _CODE_TEXT or (known != "code" and language not in _DATA_CODE and not grammar(language)):
        return Family.TEXT
    return Family.CODE


@cache
def grammar(language: str | None) -> str:
    """Name of the tree-sitter grammar of a language, or ""."""
    return _GRAMMARS.get(language or "", language if language in _OWN_NAME else "") or ""


class Locator:
    """Tells where spans of one file stand. parsed: whether its text parsed without error when that was last asked; None where
    there is no grammar, or the text could not be parsed in the time for it, which is then not tried again."""

    def __init__(self, language: str | None):
        self.language = language or ""
        self.parsed: bool | None = None
        self._family = family(language)
        self._grammar = grammar(language) if self._family in (Family.CODE, Family.SHELL) else ""

    def places(self, data: bytes, spans: list[tuple[int, int]]) -> list[Place]:
        """Where each span (byte range) of the file's text stands."""
        match self._family:
            case Family.CODE | Family.SHELL:
                return self._in_code(data, spans)
            case Family.MARKUP:
                return _in_markup(data, self.language, spans)
            case Family.TEXT:
                return _in_text(data, self.language, spans)

    def parses(self, data: bytes) -> bool | None:
        """Whether a text parses without error; None where that is not known."""
        self._look(data, [])
        return self.parsed

    def _look(self, data: bytes, spans: list[tuple[int, int]]) -> bytes | None:
        name = self._grammar
        answer = tree_parser().look(name, data, spans, _BARE.get(name, frozenset())) if name else None
        if answer is None:
            self._grammar, self.parsed = "", None
            return None
        self.parsed = answer[0]
        return answer[1]

    def _in_code(self, data: bytes, spans: list[tuple[int, int]]) -> list[Place]:
        kinds = self._look(data, spans)
        if kinds is None:
            return _scanned(data, self.language, spans)
        found = [_TREE_PLACES.get(kinds[i : i + 1], Place.CODE) for i in range(len(spans))]
        # Where the table alone decides.
        unread = parse_child.OPAQUE + (parse_child.ERROR if self.language in _ONE_DIALECT else b"")
        opaque = {i for i in range(len(spans)) if kinds[i] in unread}
        if not self.parsed and literals.knows(self.language):  # the parser guessed: both must agree
            opaque |= {i for i in range(len(spans)) if found[i] in (Place.COMMENT, Place.STRING)}
        if opaque:
            doubtful = sorted(opaque)
            for i, place in zip(doubtful, _scanned(data, self.language, [spans[i] for i in doubtful]), strict=True):
                found[i] = place
        return found


_TREE_PLACES = {
    parse_child.COMMENT: Place.COMMENT,
    parse_child.STRING: Place.STRING,
    parse_child.MARKUP: Place.MARKUP,
    parse_child.BARE: Place.WORD,
}
_SCAN_PLACES = {literals.COMMENT: Place.COMMENT, literals.STRING: Place.STRING}


def _scanned(data: bytes, language: str, spans: list[tuple[int, int]]) -> list[Place]:
    return [_SCAN_PLACES.get(kind, Place.CODE) for kind in literals.kinds(data, language, spans)]


def _in_text(data: bytes, language: str, spans: list[tuple[int, int]]) -> list[Place]:
    pattern = _CELL if language == "jupyter notebook" else _FENCE if language in _FENCED else None
    out = [Place.TEXT] * len(spans)
    if pattern is not None:
        _embedded(data, pattern, spans, out)
    if language == "makefile":  # recipes are shell
        for i, kind in enumerate(literals.kinds(data, language, spans)):
            if not kind and data.startswith(b"\t", data.rfind(b"\n", 0, spans[i][0]) + 1):
                out[i] = Place.WORD
    return out


def _embedded(data: bytes, pattern: Any, spans: list[tuple[int, int]], out: list[Place]) -> None:
    """Writes the places of those spans that are in a block of code of another language."""
    for match, inside in _within(data, pattern, spans):
        name, block = (g for g in match.groups() if g is not None)
        tag: str = name.decode().lower()
        language = _ALIASES.get(tag, tag)
        if not literals.knows(language):
            continue
        start = match.start() + match.group().index(block)
        moved = [(spans[i][0] - start, spans[i][1] - start) for i in inside]
        for i, place in zip(inside, _scanned(block, language, moved), strict=True):
            out[i] = place


def _in_markup(data: bytes, language: str, spans: list[tuple[int, int]]) -> list[Place]:
    out = [Place.MARKUP] * len(spans)
    if language not in _XML:
        for _, inside in _within(data, _TAG, spans):
            for i in inside:
                out[i] = Place.STRING
        for match, inside in _within(data, _TEMPLATE, spans):
            moved = [(spans[i][0] - match.start(), spans[i][1] - match.start()) for i in inside]
            for i, place in zip(inside, _scanned(match.group(), "", moved), strict=True):
                out[i] = Place.CODE if place is Place.CODE else Place.STRING
        _embedded(data, _SCRIPT, spans, out)
    for _, inside in _within(data, _PROTECTED, spans):
        for i in inside:
            out[i] = Place.COMMENT
    return out


def _within(data: bytes, pattern: Any, spans: list[tuple[int, int]]) -> Iterator[tuple[Any, list[int]]]:
    """(match, indices of the spans inside it) of every match that has such."""
    waiting = sorted(range(len(spans)), key=lambda i: spans[i])
    at = 0
    for match in pattern.finditer(data):
        while at < len(waiting) and spans[waiting[at]][0] < match.start():
            at += 1
        inside = []
        while at < len(waiting) and spans[waiting[at]][0] < match.end():
            if spans[waiting[at]][1] <= match.end():
                inside.append(waiting[at])
            at += 1
        if inside:
            yield match, inside
        if at == len(waiting):
            return
