"""The code in a model's answer, found by parsers.

Three ways, each with a name, for Python functions with an entry point:

- `parser` (default): the Markdown block that defines the entry point, or the longest span of lines that parses; everything
  in it is kept but what only runs at import (asserts, prints, the `__main__` guard).
- `evalplus`: EvalPlus' `sanitize`: the longest span that parses, of it imports and what the entry point reaches; functions
  without `return` and decorated ones are dropped, of two definitions the first is kept.
- `opencodeeval`: the same of the first 100 lines, printed again by `ast.unparse` (comments are lost).
- `raw`: the text as it is.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

EXTRACTIONS = ("parser", "evalplus", "opencodeeval", "raw")
# A larger answer than this is not a solution of any task: the largest canonical one has 10 kB.
MAX_CHARACTERS = 1_000_000
# Bounds of the search for a span that parses: hostile answers must not take minutes.
MAX_PARSES, MAX_PARSED_CHARACTERS = 4_000, 20_000_000
OPENCODEEVAL_LINES = 100
# Other people's invalid escapes are nothing that the user can mend.
warnings.filterwarnings("ignore", category=SyntaxWarning, module="<unknown>")
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})\s*([^\s`]*)[^`]*$")
_RUN_AT_IMPORT = frozenset({"print", "main", "check", "input"})


@dataclass(frozen=True)
class Block:
    """A fenced block of a Markdown text. language: its info word, lower case, "" without one."""

    language: str
    code: str


def blocks(text: str) -> list[Block]:
    """The fenced blocks in order; one that is never closed ends with the text."""
    found: list[Block] = []
    fence, language, lines = "", "", []
    for line in text.split("\n"):
        match = _FENCE.match(line)
        if not fence:
            if match:
                fence, language, lines = match[1], match[2].lower(), []
        elif match and not match[2] and match[1].startswith(fence):
            found.append(Block(language, "\n".join(lines)))
            fence = ""
        else:
            lines.append(line)
    if fence and any(line.strip() for line in lines):
        found.append(Block(language, "\n".join(lines)))
    return found


def cut(text: str, stops: Iterable[str]) -> str:
    """`text` up to the first of the stop strings."""
    ends = [at for stop in stops if stop and (at := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


def python_function(text: str, entry_point: str, extraction: str = "parser") -> str | None:
    """The Python code of an answer (or of prompt + completion) that should define `entry_point`; None without any code.

    Raises: ValueError for an unknown extraction.
    """
    if extraction not in EXTRACTIONS:
        raise ValueError(f"extraction {extraction!r}: there are {', '.join(EXTRACTIONS)}")
    if extraction == "raw":
        return text if text.strip() else None
    text = text[:MAX_CHARACTERS].replace("\r\n", "\n").replace("\r", "\n")
    if extraction == "opencodeeval":
        text = "\n".join(text.split("\n")[:OPENCODEEVAL_LINES])
    if extraction == "parser":
        return _by_parser(text, entry_point)
    span = longest_valid_span(text)
    return None if not span.strip() else _reachable(span, entry_point, unparse=extraction == "opencodeeval")


def parse(code: str) -> ast.Module | None:
    """The syntax tree, or None: also for NULs, lone surrogates and nesting beyond the parser's depth."""
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def longest_valid_span(text: str) -> str:
    """The consecutive lines of `text` that parse as Python and hold the most lines that are not blank; "" if none do.

    A range that fails at line e fails as long as it holds line e, so the next that is tried ends before it.
    """
    lines = text.split("\n")
    filled = [0]
    for line in lines:
        filled.append(filled[-1] + bool(line.strip()))
    best, span = 0, (0, 0)
    parses = characters = 0
    for start in range(len(lines)):
        end = len(lines)
        while end > start and filled[end] - filled[start] > best:
            code = "\n".join(lines[start:end])
            parses, characters = parses + 1, characters + len(code)
            if parses > MAX_PARSES or characters > MAX_PARSED_CHARACTERS:
                return "\n".join(lines[span[0] : span[1]])
            try:
                ast.parse(code)
            except SyntaxError as error:
                end = start + min(end - start - 1, (error.lineno or end) - 1)
            except (ValueError, RecursionError, MemoryError):
                end -= 1
            else:
                best, span = filled[end] - filled[start], (start, end)
    return "\n".join(lines[span[0] : span[1]])


# --- our own way ------------------------------------------------------------------------------------------------------


def _by_parser(text: str, entry_point: str) -> str | None:
    candidates = [b.code for b in blocks(text) if b.language in ("", "py", "python", "python3")]
    if candidates:
        parsed = [(code, tree) for code in candidates if (tree := parse(code)) is not None]
        defining = [code for code, tree in parsed if entry_point in defined(tree)]
        chosen = defining[-1:] or sorted((code for code, _ in parsed), key=len)[-1:]
        code = chosen[0] if chosen else longest_valid_span(max(candidates, key=len))
    else:
        code = text if parse(text) is not None else longest_valid_span(text)
    return _without_runs(code) or None


def defined(tree: ast.Module) -> set[str]:
    """Names that top-level statements bind."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(t.id for t in targets if isinstance(t, ast.Name))
    return names


def _without_runs(code: str) -> str:
    """`code` with blank lines for top-level statements that only run something: line numbers stay."""
    tree = parse(code)
    if tree is None:
        return code
    lines = code.split("\n")
    kept = [node for node in tree.body if not _only_runs(node)]
    if len(kept) == len(tree.body):
        return code if kept else ""
    used = {n for node in kept for n in range(_first_line(node), (node.end_lineno or node.lineno) + 1)}
    for node in tree.body:
        if _only_runs(node):
            for n in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                if n not in used:
                    lines[n - 1] = ""
    return "\n".join(lines).rstrip("\n") + "\n" if kept else ""


def _only_runs(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assert):
        return True
    if isinstance(node, ast.If):
        return any(isinstance(n, ast.Name) and n.id == "__name__" for n in ast.walk(node.test))
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        function = node.value.func
        return isinstance(function, ast.Name) and function.id in _RUN_AT_IMPORT
    return False


# --- EvalPlus' and OpenCodeEval's -------------------------------------------------------------------------------------


def _reachable(code: str, entry_point: str, *, unparse: bool) -> str | None:
    tree = parse(code)
    if tree is None:
        return None
    imports: list[ast.stmt] = []
    definitions: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports.append(node)
        elif isinstance(node, ast.ClassDef) and not node.decorator_list:
            definitions.setdefault(node.name, node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.decorator_list:
            if any(isinstance(n, ast.Return) for n in ast.walk(node)):
                definitions.setdefault(node.name, node)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            definitions.setdefault(node.targets[0].id, node)
    if entry_point:
        wanted = _closure(entry_point, definitions)
        definitions = {name: node for name, node in definitions.items() if name in wanted}
    kept: Sequence[ast.stmt] = [*imports, *definitions.values()]
    if not kept:
        return None
    if unparse:
        try:
            return ast.unparse(ast.Module(list(kept), []))
        except RecursionError:
            return None
    lines = code.split("\n")
    return "\n".join(_segment(lines, node) for node in kept)


def _closure(name: str, definitions: dict[str, ast.stmt]) -> set[str]:
    """`name` and every definition that it uses, directly or not."""
    reached, queue = {name}, [name]
    while queue:
        node = definitions.get(queue.pop())
        used = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} if node is not None else set()
        queue += sorted(used - reached)
        reached |= used
    return reached


def _segment(lines: Sequence[str], node: ast.stmt) -> str:
    """The statement's source; columns are counted in UTF-8 bytes."""
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    part = [line.encode("utf-8", "surrogatepass") for line in lines[first : last + 1]]
    part[-1] = part[-1][: node.end_col_offset]
    part[0] = part[0][node.col_offset :]
    return b"\n".join(part).decode("utf-8", "surrogatepass")


def _first_line(node: ast.stmt) -> int:
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(d.lineno for d in decorators)])
