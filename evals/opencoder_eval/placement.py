"""Puts a chat model's function where a benchmark's tests expect it, by tree-sitter.

MultiPL-E and McEval were made for models that continue a prompt: the tests close the class, and in MultiPL-E the function,
that the prompt opened. An answer in a Markdown block has its own imports, class and `main`; here they are taken apart and
put together again: the prompt's and the answer's imports, the opening of the class, the answer's functions, the tests.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any

from opencoder_eval.extraction import MAX_CHARACTERS, blocks

# Our names of languages to tree-sitter's.
GRAMMARS = {
    "C": "c",
    "C#": "csharp",
    "CPP": "cpp",
    "Common Lisp": "commonlisp",
    "D": "d",
    "Dart": "dart",
    "Elixir": "elixir",
    "Erlang": "erlang",
    "Fortran": "fortran",
    "Go": "go",
    "Groovy": "groovy",
    "Haskell": "haskell",
    "Java": "java",
    "JavaScript": "javascript",
    "Julia": "julia",
    "Kotlin": "kotlin",
    "Lua": "lua",
    "PHP": "php",
    "Pascal": "pascal",
    "Perl": "perl",
    "R": "r",
    "Racket": "racket",
    "Ruby": "ruby",
    "Rust": "rust",
    "Scala": "scala",
    "Shell": "bash",
    "Swift": "swift",
    "TypeScript": "typescript",
}
# Languages whose functions are members of a class or object that the prompt opens.
CONTAINERS = {
    "Java": ("class_declaration", "class_body"),
    "C#": ("class_declaration", "declaration_list"),
    "Scala": ("object_definition", "template_body"),
}
_OPENING = {
    "Java": re.compile(r"^.*?\bclass\s+\w+[^{]*\{[^\n]*\n", re.DOTALL),
    "C#": re.compile(r"^.*?\bclass\s+\w+[^{]*\{[^\n]*\n", re.DOTALL),
    "Scala": re.compile(r"^.*?\bobject\s+\w+[^{]*\{[^\n]*\n", re.DOTALL),
}
_IMPORTS = re.compile(
    r"^\s*(?:import\b|#\s*include\b|using\s+[\w.:= ]+;|package\b|use\s|require\b|local\s+\w+\s*=\s*require\b|#lang\b|"
    r"\(require\b|library\(|-module\b|-export\b|extern\s|from\s+\S+\s+import\b|<\?php|use strict|#!|const\s+\w+\s*=\s*require\b)"
)
_GO_IMPORT = re.compile(r"^import\s*\(.*?^\)|^import\s+(?:\w+\s+)?\"[^\"]+\"", re.DOTALL | re.MULTILINE)
_MAIN = frozenset({"main", "Main"})
_FUNCTIONS = re.compile(r"function|method|constructor|subroutine")


@dataclass(frozen=True)
class Piece:
    """A definition in a program. name: "" for what has none. text: with its modifiers. kind: tree-sitter's."""

    name: str
    text: str
    kind: str


def chosen_block(answer: str, names: tuple[str, ...]) -> str | None:
    """The last Markdown block that mentions one of `names`, else the longest, else the whole answer; None when blank."""
    found = [b.code for b in blocks(answer[:MAX_CHARACTERS]) if b.code.strip()]
    mentioning = [code for code in found if any(name and name in code for name in names)]
    code = mentioning[-1] if mentioning else max(found, key=len) if found else answer[:MAX_CHARACTERS]
    return code.replace("\r\n", "\n") if code.strip() else None


def place(code: str, language: str, prompt: str, tests: str, names: tuple[str, ...]) -> str:
    """A program without its tests: what a completion of `prompt` would have made, with the functions of `code`.

    Args:
      tests: tell whether the last brace of the function is theirs.
      names: of the function that they call, as the languages spell it.
    """
    head = _head(prompt, language)
    if language == "Go":
        return _go(code, head)
    imports, pieces = _take_apart(code, language)
    wanted = [p for p in pieces if p.name in names]
    others = [p for p in pieces if p.name not in names and p.name not in _MAIN]
    if not wanted:  # not understood: as it is, which the compiler will judge
        return f"{head}\n{code}"
    new_imports = [line for line in imports if line.strip() not in {h.strip() for h in head.split("\n")}]
    function = wanted[-1].text.rstrip()
    if closes_function(tests, language):
        function = function.removesuffix("}").rstrip()
    body = "\n\n".join([*(_inside(p, language) for p in others), function])
    if language == "PHP" or language == "Racket":  # their first line must stay first
        first, _, rest = head.partition("\n")
        return "\n".join([first, *new_imports, rest, body])
    return "\n".join([*new_imports, head, body])


def closes_function(tests: str, language: str) -> bool:
    """Whether the tests begin with the brace that ends the function (MultiPL-E) rather than with a test."""
    return language not in ("Python", "Ruby", "Julia", "Lua") and tests.lstrip().startswith("}")


def _head(prompt: str, language: str) -> str:
    """The prompt's imports, and for languages with containers all to the opening of the class."""
    opening = _OPENING.get(language)
    if opening is not None and (match := opening.match(prompt)):
        return match[0].rstrip("\n")
    if language == "Go":
        package = re.search(r"^package .*$", prompt, re.MULTILINE)
        return "\n".join([package[0] if package else "package main", *(m[0] for m in _GO_IMPORT.finditer(prompt))])
    return "\n".join(line for line in prompt.split("\n") if _IMPORTS.match(line))


def _go(code: str, head: str) -> str:
    """Go allows each import once, and none that is not used: those of the prompt stay, others are added."""
    extra = [
        path for m in _GO_IMPORT.finditer(code) for path in re.findall(r'"([^"]+)"', m[0]) if f'"{path}"' not in head
    ]
    body = re.sub(r"^package .*$", "", _GO_IMPORT.sub("", code), count=1, flags=re.MULTILINE)
    _imports, pieces = _take_apart(body, "Go")
    mains = [p.text for p in pieces if p.name in _MAIN]
    for text in mains:
        body = body.replace(text, "")
    return "\n".join([head, *(f'import "{path}"' for path in dict.fromkeys(extra)), body.strip()])


def _inside(piece: Piece, language: str) -> str:
    """A class that was beside the answer's class becomes a static one inside."""
    if (
        language == "Java"
        and piece.kind.endswith("_declaration")
        and "method" not in piece.kind
        and "field" not in piece.kind
    ):
        return (
            piece.text if re.match(r"(\w+\s+)*static\b", piece.text) else f"static {piece.text.removeprefix('public ')}"
        )
    return piece.text


def _take_apart(code: str, language: str) -> tuple[list[str], list[Piece]]:
    """Import lines and definitions: those at top level, or the members of the classes there."""
    tree = _parse(code, language)
    if tree is None:
        return [], []
    data = code.encode("utf-8", "replace")
    imports: list[str] = []
    pieces: list[Piece] = []
    container, body = CONTAINERS.get(language, ("", ""))

    def visit(node: Any) -> None:
        before = b""
        for child in node.children:
            text = data[child.start_byte : child.end_byte].decode("utf-8", "replace")
            if (
                child.type == container
                and (inner := next((c for c in child.children if c.type == body), None)) is not None
            ) and any(_FUNCTIONS.search(c.type) for c in inner.children):
                visit(inner)
                continue
            if child.type in ("modifiers", "attribute_item"):  # Scala's and Rust's are nodes of their own
                before = data[child.start_byte : child.end_byte] + b"\n"
                continue
            if _IMPORTS.match(text) and not _FUNCTIONS.search(child.type):
                imports.append(text.strip())
            elif (
                child.is_named
                and "comment" not in child.type
                and child.type not in ("php_tag", "text_interpolation", "module")
            ):
                pieces.append(Piece(_name(child), before.decode() + text, child.type))
            before = b""

    visit(tree.root_node)
    return imports, pieces


def _name(node: Any) -> str:
    """The name that a definition gives; "" for others. C and C++ nest it in declarators, Lisps in lists."""
    for _ in range(8):
        name = node.child_by_field_name("name")
        if name is not None:
            return name.text.decode("utf-8", "replace")
        inner = node.child_by_field_name("declarator") or node.child_by_field_name("signature")
        if inner is None:
            break
        node = inner
    if node.type in ("identifier", "field_identifier"):
        return node.text.decode("utf-8", "replace")
    for pattern in (r"^\(define\s+\(?([^\s()]+)", r"^\s*(?:local\s+)?([\w.]+)\s*(?:<-|=)\s*function"):
        if match := re.match(pattern, node.text.decode("utf-8", "replace")):
            return match[1]
    return ""


def _parse(code: str, language: str) -> Any:
    parser = _parser(GRAMMARS.get(language, ""))
    return None if parser is None else parser.parse(code.encode("utf-8", "replace"))


@functools.cache
def _parser(grammar: str) -> Any:
    if not grammar:
        return None
    from tree_sitter_language_pack import get_parser

    try:
        return get_parser(grammar)  # pyright: ignore[reportArgumentType]
    except LookupError:
        return None
