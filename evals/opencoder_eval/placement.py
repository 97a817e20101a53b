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
    "Scheme": "racket",
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
    r"^\s*(?:import\b|#\s*include\b|using\s+[\w.:= ]+;|package\b|use\s+[\w:{}, *]+;|require\b|local\s+\w+\s*=\s*require\b|#lang\b|"
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
    if language in _BY_TEXT:
        return _BY_TEXT[language](code, prompt)
    head = _head(prompt, language)
    if language == "Go":
        return _go(code, head)
    imports, pieces = _take_apart(code, language)
    wanted = [p for p in pieces if p.name in names]
    if not wanted:  # not understood: as it is, which the compiler will judge
        return f"{head}\n{_without_lines(code, head)}"
    kept = [p for p in pieces if p.name not in _MAIN and not _only_runs(p)]
    known = {line.strip() for line in head.split("\n")}
    new_imports = [line for line in imports if line.strip() not in known]
    if closes_function(tests, language):  # it must come last, without its brace
        kept = [*(p for p in kept if p is not wanted[-1]), wanted[-1]]
    body = "\n\n".join(_inside(p, language) for p in kept)
    if closes_function(tests, language):
        body = body.rstrip().removesuffix("}").rstrip()
    if language in _FIRST_LINE:
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


def _without_lines(code: str, head: str) -> str:
    known = {line.strip() for line in head.split("\n")}
    return "\n".join(line for line in code.split("\n") if not line.strip() or line.strip() not in known)


def _only_runs(piece: Piece) -> bool:
    """A call at top level: an example, which runs before the tests or fails them."""
    if piece.kind == "list":  # a Lisp form
        return not re.match(r"\(\s*(?:define|struct|def|let|provide|set!|begin-for-syntax|module)", piece.text)
    return not piece.name and piece.kind in _CALLS


def _erlang(code: str, prompt: str) -> str:
    """The module and what it exports are the prompt's."""
    head = [line for line in prompt.split("\n") if line.startswith(("-module", "-export"))]
    body = re.sub(r"(?ms)^-(?:module|export)\(.*?\)\.", "", code)
    return "\n".join([*head, re.sub(r"(?ms)^test\(\)\s*->.*?\.\s*$", "", body)])


def _elixir(code: str, prompt: str) -> str:
    """The module has the prompt's name, by which the tests call it."""
    name = re.search(r"defmodule\s+([\w.]+)", prompt)
    body = re.sub(r"(?ms)^ExUnit\.start.*\Z", "", code)
    if name is None:
        return body
    if "defmodule" not in body:
        return f"defmodule {name[1]} do\n{body}\nend"
    return re.sub(r"defmodule\s+[\w.]+", f"defmodule {name[1]}", body, count=1)


def _fortran(code: str, prompt: str) -> str:
    """Functions alone, and the end of the main program, which the test begins."""
    unit = r"(?ims)^[^\n!]*\b(?:function|subroutine)\s+\w+.*?^\s*end\s+(?:function|subroutine)[^\n]*$"
    found = re.findall(unit, code)
    return "\n\n".join([*(found or [code]), "end program"])


def _pascal(code: str, prompt: str) -> str:
    """The prompt's program and units with the answer's, without the answer's main block."""
    ends = list(re.finditer(r"(?im)^end;[^\n]*$", code))
    body = code[: ends[-1].end()] if ends and re.search(r"(?i)\bend\.\s*\Z", code) else code
    body = re.sub(r"(?im)^\s*program\s+\w+\s*;", "", body)
    units = [u.strip() for m in re.finditer(r"(?is)\buses\b(.*?);", prompt + body) for u in m[1].split(",")]
    body = re.sub(r"(?is)\buses\b.*?;", "", body)
    head = [line for line in prompt.split("\n") if re.match(r"(?i)\s*(?:program\s+\w+\s*;|\{\$)", line)]
    uses = [f"uses {', '.join(dict.fromkeys(u for u in units if u))};"] if units else []
    return "\n".join([*head, *uses, body.strip()])


def _haskell(code: str, prompt: str) -> str:
    """Imports come before all else."""
    lines = [line for line in code.split("\n") if not re.match(r"module\s+\w+.*where", line)]
    imports = [line for line in lines if line.startswith("import ")]
    head = [line for line in prompt.split("\n") if re.match(r"import |module |\{-# LANGUAGE", line)]
    return "\n".join([*head, *(i for i in imports if i not in head), *(line for line in lines if line not in imports)])


_BY_TEXT = {"Elixir": _elixir, "Erlang": _erlang, "Fortran": _fortran, "Haskell": _haskell, "Pascal": _pascal}
_FIRST_LINE = frozenset({"PHP", "Racket", "Scheme", "Shell"})
_CALLS = frozenset(
    {
        *(
            "call",
            "call_expression",
            "command",
            "echo_statement",
            "exit_statement",
            "expression_statement",
            "function_call",
        ),
        *("function_call_statement", "method_call_expression", "print_expression", "function_call_expression"),
    }
)


def _go(code: str, head: str) -> str:
    """Go allows each import once, and none that is not used: those of the prompt stay, others are added."""
    extra = [
        path for m in _GO_IMPORT.finditer(code) for path in re.findall(r'"([^"]+)"', m[0]) if f'"{path}"' not in head
    ]
    body = re.sub(r"^package .*$", "", _GO_IMPORT.sub("", code), count=1, flags=re.MULTILINE)
    _, pieces = _take_apart(body, "Go")
    mains = [p.text for p in pieces if p.name in _MAIN]
    for text in mains:
        body = body.replace(text, "")
    used = [path for path in dict.fromkeys(extra) if re.search(rf"\b{re.escape(path.split('/')[-1])}\.", body)]
    return "\n".join([head, *(f'import "{path}"' for path in used), body.strip()])


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
    if node.type in _CALLS or (node.type == "list" and not node.text.lstrip().startswith(b"(define")):
        return ""
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
