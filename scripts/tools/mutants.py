"""Mutants of a Python source file: every small change that a test suite should notice, as replacements of source text.

Operators: comparisons, integer and float constants, booleans, arithmetic, negated conditions, `and`/`or`, removed statements,
removed keyword arguments, removed return values, swapped arguments. Left out, because no behavior of the module hangs on
them: docstrings, annotations, messages (f-strings, arguments of `raise`), `assert`, help texts, `if TYPE_CHECKING`, the
`__main__` block.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARE: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_ARITHMETIC: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
# Keyword arguments that are text for people, or that the checker of types alone reads.
_TEXT_KEYWORDS = {"help", "description", "desc", "label", "prog", "unit"}
_COMMUTATIVE = {
    "max",
    "min",
    "maximum",
    "minimum",
    "gcd",
    "promote_types",
    "add",
    "multiply",
    "logical_and",
    "logical_or",
}


@dataclass(frozen=True)
class Mutant:
    """`old`, at `start`:`end` of the source in bytes, becomes `new`; `nth` of several such changes in `scope`."""

    scope: str
    operator: str
    line: int
    start: int
    end: int
    old: str
    new: str
    nth: int = 0

    @property
    def key(self) -> str:
        """Stays the same when other parts of the file change."""
        return f"{self.scope} | {self.old} -> {self.new} | {self.nth}"

    def apply(self, source: bytes) -> bytes:
        return source[: self.start] + self.new.encode() + source[self.end :]


def find(source: bytes) -> list[Mutant]:
    """All mutants of a module that compile, in the order of the source."""
    finder = _Finder(source)
    finder.visit(ast.parse(source))
    seen: Counter[tuple[str, str, str]] = Counter()
    mutants = []
    for m in sorted(finder.found, key=lambda m: (m.start, m.end, m.new)):
        triple = (m.scope, m.old, m.new)
        numbered = Mutant(m.scope, m.operator, m.line, m.start, m.end, m.old, m.new, seen[triple])
        seen[triple] += 1
        try:
            compile(numbered.apply(source), "mutant", "exec")
        except SyntaxError:
            continue
        mutants.append(numbered)
    return mutants


class _Finder(ast.NodeVisitor):
    def __init__(self, source: bytes):
        self.found: list[Mutant] = []
        self._source = source
        self._scope: list[str] = []
        self._lines = [0]
        for line in source.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))

    def _add(self, operator: str, node: ast.AST, new: str) -> None:
        start = self._lines[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        end = self._lines[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
        old = self._source[start:end].decode()
        self.found.append(
            Mutant(".".join(self._scope) or "module", operator, node.lineno, start, end, old, new)  # type: ignore[attr-defined]
        )

    def _replace(self, operator: str, node: ast.expr, new: ast.expr) -> None:
        self._add(operator, node, f"({ast.unparse(ast.fix_missing_locations(new))})")

    # What is not looked into.

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass

    def visit_Assert(self, node: ast.Assert) -> None:
        pass

    def visit_arg(self, node: ast.arg) -> None:
        pass

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    # Scopes.

    def _visit_scope(self, node: ast.FunctionDef | ast.ClassDef) -> None:
        self._scope.append(node.name)
        for decorator in node.decorator_list:
            self.visit(decorator)
        if isinstance(node, ast.FunctionDef):
            self.visit(node.args)
        body = node.body
        for statement in body[1:] if ast.get_docstring(node, clean=False) is not None else body:
            self.visit(statement)
        self._scope.pop()

    visit_FunctionDef = visit_ClassDef = _visit_scope  # type: ignore[assignment]

    # Statements.

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return  # a docstring
        if not isinstance(node.value, ast.Yield):
            self._add("statement removed", node, "pass")
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if isinstance(node.targets[0], ast.Attribute | ast.Subscript):
            self._add("statement removed", node, "pass")
        self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._add("statement removed", node, "pass")
        if swapped := _ARITHMETIC.get(type(node.op)):
            new = ast.AugAssign(node.target, swapped(), node.value)
            self._add("arithmetic", node, ast.unparse(ast.fix_missing_locations(new)))
        self.visit(node.value)

    def visit_Raise(self, node: ast.Raise) -> None:
        self._add("statement removed", node, "pass")

    def visit_Continue(self, node: ast.Continue) -> None:
        self._add("statement removed", node, "pass")

    def visit_Break(self, node: ast.Break) -> None:
        self._add("statement removed", node, "pass")

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is None:
            self._add("statement removed", node, "pass")
            return
        if not (isinstance(node.value, ast.Constant) and node.value.value is None):
            self._add("return value", node, "return None")
        self.visit(node.value)

    def visit_If(self, node: ast.If) -> None:
        text = ast.unparse(node.test)
        if text == "TYPE_CHECKING" or "__name__" in text:
            return
        self._negate(node.test)
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        self.generic_visit(node)  # a negated loop condition ends at once or never

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._negate(test)
        self.generic_visit(node)

    # Expressions.

    def _negate(self, test: ast.expr) -> None:
        single = isinstance(test, ast.Compare) and len(test.ops) == 1
        if single and isinstance(test.ops[0], ast.Eq | ast.NotEq | ast.Is | ast.IsNot | ast.In | ast.NotIn):  # type: ignore[attr-defined]
            return  # the comparison's own mutant is its negation
        if not (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)):
            self._replace("condition negated", test, ast.UnaryOp(ast.Not(), test))

    def visit_Compare(self, node: ast.Compare) -> None:
        for i, op in enumerate(node.ops):
            ops = [*node.ops[:i], _COMPARE[type(op)](), *node.ops[i + 1 :]]
            self._replace("comparison", node, ast.Compare(node.left, ops, node.comparators))
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        text = any(
            isinstance(side, ast.Constant | ast.JoinedStr) and _is_text(side) for side in (node.left, node.right)
        )
        if (swapped := _ARITHMETIC.get(type(node.op))) and not text:
            self._replace("arithmetic", node, ast.BinOp(node.left, swapped(), node.right))
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        swapped = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        self._replace("and/or", node, ast.BoolOp(swapped, node.values))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not | ast.USub) and not isinstance(node.operand, ast.Constant):
            self._replace("unary operator removed", node, node.operand)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self._replace("constant", node, ast.Constant(not value))
        elif isinstance(value, int):
            for other in (value + 1, value - 1):
                self._replace("constant", node, ast.Constant(other))
        elif isinstance(value, float):
            self._replace("constant", node, ast.Constant(value + 1.0))

    def visit_Call(self, node: ast.Call) -> None:
        positional = node.args
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        starred = any(isinstance(a, ast.Starred) for a in positional[:2])
        if len(positional) >= 2 and not starred and name not in _COMMUTATIVE:
            args = [positional[1], positional[0], *positional[2:]]
            if ast.dump(args[0]) != ast.dump(args[1]):
                self._replace("arguments swapped", node, ast.Call(node.func, args, node.keywords))
        for keyword in node.keywords:
            if keyword.arg is not None and not self._unread(keyword, name):
                keywords = [k for k in node.keywords if k is not keyword]
                self._replace("keyword removed", node, ast.Call(node.func, node.args, keywords))
        for child in self._children(node):
            self.visit(child)

    def _children(self, node: ast.Call) -> Iterator[ast.expr]:
        yield node.func
        yield from node.args
        name = getattr(node.func, "id", "")
        yield from (k.value for k in node.keywords if not self._unread(k, name))

    @staticmethod
    def _unread(keyword: ast.keyword, function: str) -> bool:
        """Text for people; and what guards against what does not happen: zip's `strict`, a dataclass's `frozen`."""
        return keyword.arg in _TEXT_KEYWORDS or (function, keyword.arg) in (("zip", "strict"), ("dataclass", "frozen"))


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))
