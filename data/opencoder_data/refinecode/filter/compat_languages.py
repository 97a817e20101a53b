"""Language signals of the `compat` profile: the released filter's patterns and their defects, in linear time.

Patterns run in RE2, whose leftmost-first matches equal those of a backtracking engine without its blow-ups. Line rules
count lines of code left after comments are cut, as Pygments cuts them.
"""

import ast
import re
import warnings
from collections.abc import Callable
from functools import cache

import re2

from . import scan
from .compat_javascript import javascript_compat
from .document_view import View, count_lines_with
from .registry import Value, ratio, signal
from .scan import Syntax
from .signals_languages import HEADERS

# Per language: functions, imports, classes, declarations without value, returns of one word, variables.
PATTERNS: dict[str, dict[str, str]] = {
    "c": {
        "function": r"\b(?:[a-zA-Z_]\w*\s*\**\s+)+\*?\s*[a-zA-Z_]\w*\([^)]*\)",
        "import": r"(?m)^\s*#\s*include\s+[\"<][^\">]+[\">]",
        "class": r"(?m)^\s*class\s+\w+\s*(?::[^{]*)?\{",
        "bare": r"(?m)^\s*(?:unsigned\s+)?(?:int|float|double|char|bool|std::string|auto)\s+\w+\s*;",
        "return": r"(?m)^\s*return\s*(?:(?:\w+|\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')\s*)?;\s*$",
        "variable": r"\b\w+(?:\s+\w+)?\s+\**\s*[\w\[\]]+\s*(?:=\s*[^;]*)?(?:,\s*\**\s*[\w\[\]]+\s*(?:=\s*[^;]*)?)*\s*;",
    },
    "csharp": {
        "function": r"(?m)^\s*(?:(?:public|protected|private|internal)\s+)?(?:(?:static|virtual|override|abstract|async)\s+)?"
        r"((?:<\w+>)?\s*\w+)\s+\w+\s*\([^)]*\)",
        "import": r"(?m)^\s*using\s+[a-zA-Z0-9_.]+\s*;",
        "class": r"\b(?:public|private|protected|internal|static|abstract|sealed)?\s*class\s+\w+",
        "bare": r"\b(?:u?int|float|double|char|string|bool|s?byte|u?short|u?long|decimal)\s+\w+\s*;",
        "return": r"(?m)^\s*return\b(?:\s+[^;\n]+)?\s*;",
    },
    "go": {
        "function": r"(?m)^func\s+(?:\(\s*\w+\s+\*?\w+\s*\))?\s*\w+\s*\([^)]*\)\s*(?:\([^)]+\)|[\w\[\]]+)?\s*",
        "import": r"(?m)^[ \t\r\f]*import(?:\s+\"[^\"\n]+\"| \()[ \t\r\f]*$",
        "class": r"(?m)^\s*type\s+\w+\s+(?:struct|interface)\s*\{[^}]*\}",
        "bare": r"(?m)^\s*var\s+\w+\s+\w+\s*;?\s*$",
        "return": r"(?m)^\s*return(?:\s+[^;\n]+)?\s*;?\s*$",
    },
    "java": {
        "function": r"(?m)^\s*((?:(?:public|protected|private|static)\s+)*)((?:<\w+>)?\s*\w+)\s+\w+\s*\([^)]*\)(?:\s*throws\s+[\w, ]+)?",
        "import": r"(?m)^\s*import\s+[\w.*]+\s*;\s*$",
        "class": r"(?m)^\s*(?:public\s+|protected\s+|private\s+)?(?:final\s+|abstract\s+)?class\s+([\w<>]+)",
        "bare": r"(?m)^\s*(?:(?:public|protected|private|final|static)\s+)*"
        r"(?:int|float|boolean|char|double|String|[A-Z][\w<>]*)\s+\w+\s*;",
        "return": r"(?m)^\s*return(?:;|\s+(?:\w*|\"[^\"\\]*(?:\\.[^\"\\]*)*\")\s*;\s*)$",
        "variable": r"(?m)^\s*((?:(?:public|protected|private|final|static)\s+)*"
        r"(?:int|float|boolean|char|double|String|[A-Z][\w<>]*)\s+\w+\s*(?:\s*=\s*[^;]+)?;)",
    },
}
PATTERNS["cpp"] = PATTERNS["c"]

# What the published look-ahead forbids a return type to begin with.
_NOT_A_TYPE = {
    "csharp": (b"public", b"private", b"protected", b"if", b"else"),
    "java": (b"public", b"private", b"protected", b"else", b"if"),
}


@cache
def _compiled(language: str, what: str):
    return re2.compile(PATTERNS[language][what].encode())


def matches(view: View, what: str) -> list:
    """Matches of a pattern in the document's code, once per document and pattern."""
    cache_ = view.compat_matches
    if what not in cache_:
        found = list(_compiled(view.language, what).finditer(view.code_utf8))
        if what == "function" and view.language in _NOT_A_TYPE:
            group = 1 if view.language == "csharp" else 2
            found = [m for m in found if not (m.group(group) or b"").lstrip().startswith(_NOT_A_TYPE[view.language])]
        cache_[what] = found
    return cache_[what]


def _per_line(view: View, count: int) -> Value:
    return ratio(count, view.num_code_lines)


def _compat(*names: str) -> Callable:
    return signal(*names, profile="compat")


BY_PATTERN = ("c", "cpp", "csharp", "go", "java")


@_compat(*(f"qsc_code{x}_frac_lines_func_ratio" for x in BY_PATTERN))
def func_ratio(view: View) -> Value:
    """Matches of the published function pattern (calls match too) ÷ code lines."""
    return _per_line(view, len(matches(view, "function")))


@_compat(*(f"qsc_code{x}_score_lines_no_logic" for x in BY_PATTERN))
def no_logic(view: View) -> Value:
    """Functions, imports, classes, bare declarations and simple returns by pattern ÷ code lines."""
    return _per_line(view, sum(len(matches(view, w)) for w in ("function", "import", "class", "bare", "return")))


@_compat("qsc_codecsharp_cate_var_zero", "qsc_codego_cate_var_zero")
def never_zero(view: View) -> Value:
    """Always 0: the released code compares a list with a number (published defect)."""
    return 0.0


@_compat("qsc_codec_cate_var_zero", "qsc_codecpp_cate_var_zero", "qsc_codejava_cate_var_zero")
def var_zero(view: View) -> Value:
    """No match of the published variable pattern."""
    return float(_compiled(view.language, "variable").search(view.code_utf8) is None)


_PRINT = {
    "c": ("printf",), "cpp": ("cout", "printf"), "csharp": ("Console.WriteLine",), "go": ("fmt.Print",),
    "java": ("System.out.print",), "javascript": ("console.log",), "python": ("print",),
}  # fmt: skip


@_compat(*(f"qsc_code{x}_frac_lines_print" for x in _PRINT))
def prints(view: View) -> Value:
    """Code lines that contain the language's print call as text ÷ code lines."""
    return _per_line(view, count_lines_with(view.code, *_PRINT[view.language]))


@_compat("qsc_codec_nums_lines_main", "qsc_codecpp_nums_lines_main")
def mains(view: View) -> Value:
    """`main(...) {` in the code."""
    return float(sum(1 for _ in _main().finditer(view.code_utf8)))


@cache
def _main():
    return re2.compile(rb"\bmain\s*\([^)]*\)\s*\{")


@_compat("qsc_codec_frac_lines_goto", "qsc_codecpp_frac_lines_goto")
def gotos(view: View) -> Value:
    """Code lines that contain 'goto' ÷ code lines."""
    return _per_line(view, count_lines_with(view.code, "goto"))


@cache
def _directive():
    words = rb"include|define|if|else|elif|endif|error|pragma|warning|undef|line"
    return re2.compile(rb"(?:#[ \t\r\f]*(?:" + words + rb")|struct|using)[^\n]*")


@_compat("qsc_codec_frac_lines_preprocessor_directives", "qsc_codecpp_frac_lines_preprocessor_directives")
def directives(view: View) -> Value:
    """Code lines with a directive, 'struct' or 'using' ÷ code lines; null for headers."""
    if view.extension in HEADERS:
        return None
    return _per_line(view, sum(1 for _ in _directive().finditer(view.code_utf8)))


@_compat("qsc_codego_cate_testfile")
def go_test_file(view: View) -> Value:
    """Always 0: the released notebook passes the file's stem, which never ends in `_test.go` (published defect)."""
    return 0.0


# --- Java names ---------------------------------------------------------------------------------------------------


@_compat("qsc_codejava_frac_words_no_modifier")
def java_modifier(view: View) -> Value:
    """Functions *with* an access modifier ÷ functions and classes (published defect: the inverse, and never a class)."""
    functions = matches(view, "function")
    access = sum(any(w in m.group() for w in (b"public", b"protected", b"private")) for m in functions)
    return ratio(access, len(functions) + len(matches(view, "class")))


def _second_character(what: str, first: str) -> Callable[[View], Value]:
    def legal(view: View) -> Value:
        found = matches(view, what)
        texts = [m.group().lstrip()[1:2] for m in found]
        return ratio(sum(re.fullmatch(first.encode(), t) is not None for t in texts), len(found))

    return legal


signal(
    "qsc_codejava_frac_words_legal_var_name", profile="compat", about="Tests the second character (published defect)."
)(_second_character("variable", "[a-z]"))
signal(
    "qsc_codejava_frac_words_legal_func_name", profile="compat", about="Tests the second character (published defect)."
)(_second_character("function", "[a-zA-Z]"))


@_compat("qsc_codejava_frac_words_legal_class_name")
def java_class_names(view: View) -> Value:
    """Class names that begin with a capital ÷ class names."""
    found = matches(view, "class")
    return ratio(sum(re.fullmatch(rb"[A-Z][a-zA-Z0-9]*", m.group(1)) is not None for m in found), len(found))


# --- JavaScript: what the ES2017 parser of the released filter sees --------------------------------------------------


@_compat("qsc_codejavascript_cate_ast")
def javascript_ast(view: View) -> Value:
    """The file parses as ECMAScript 2017, the newest the released filter's parser knows."""
    return float(javascript_compat(view).ok)


def _javascript(*captures: str) -> Callable[[View], Value]:
    def value(view: View) -> Value:
        tree = javascript_compat(view)
        return _per_line(view, sum(tree[c] for c in captures)) if tree.ok else None

    return value


signal("qsc_codejavascript_frac_lines_func_ratio", profile="compat", about="Function declarations ÷ code lines.")(
    _javascript("function")
)
signal("qsc_codejavascript_num_statement_line", profile="compat", about="Top-level statements ÷ code lines.")(
    _javascript("statement")
)
signal("qsc_codejavascript_score_lines_no_logic", profile="compat", about="Declarations without logic ÷ code lines.")(
    _javascript("function", "import", "bare", "return", "class")
)


@_compat("qsc_codejavascript_cate_var_zero")
def javascript_var_zero(view: View) -> Value:
    """No variable declarator with a plain name, no `module.exports.x = value`."""
    tree = javascript_compat(view)
    return float(not tree.declares) if tree.ok else None


def _javascript_names(capture: str, pattern: str) -> Callable[[View], Value]:
    check = re.compile(pattern.encode())

    def legal(view: View) -> Value:
        tree = javascript_compat(view)
        names = tree.names.get(capture, []) if tree.ok else []
        return ratio(sum(check.fullmatch(n) is not None for n in names), len(names))

    return legal


for _kind, _pattern in (
    ("var", "[a-z$][a-zA-Z0-9]*"),
    ("func", "[a-zA-Z$][a-zA-Z0-9]*"),
    ("class", "[A-Z][a-zA-Z0-9]*"),
):
    signal(
        f"qsc_codejavascript_frac_words_legal_{_kind}_name",
        profile="compat",
        about="Names in the usual spelling ÷ names.",
    )(_javascript_names({"var": "variable_name", "func": "function_name", "class": "class_name"}[_kind], _pattern))


# --- Python -------------------------------------------------------------------------------------------------------


class PythonTree:
    """Counts of one pass over CPython's syntax tree, as the released filter counts them."""

    def __init__(self, source: str):
        self.ok = True
        self.functions = self.simple = self.classes = self.members = self.docs = 0
        self.variables = False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
            self.ok = False
            return
        stack: list[tuple[ast.AST, bool]] = [(tree, False)]
        while stack:
            node, in_class = stack.pop()
            kind = type(node)
            if kind is ast.FunctionDef:
                self.functions += 1
                self.simple += len(node.body) == 1 and isinstance(node.body[0], ast.Return)  # pyright: ignore
                self.variables |= bool(node.args.args)  # pyright: ignore
            elif kind is ast.ClassDef:
                self.classes += 1
                if not in_class:
                    self.members += sum(map(_members, node.body))  # pyright: ignore
                in_class = True
            elif kind is ast.Assign:
                self.variables |= any(isinstance(t, ast.Name) for t in node.targets)  # pyright: ignore
                continue
            elif kind is ast.For:
                self.variables |= isinstance(node.target, ast.Name)  # pyright: ignore
            elif isinstance(node, ast.expr):
                continue
            if kind in (ast.FunctionDef, ast.ClassDef, ast.Module):
                doc = ast.get_docstring(node)  # pyright: ignore
                self.docs += len(doc) + 1 if doc else 0
            stack.extend((child, in_class) for child in ast.iter_child_nodes(node))


def _python_tree(view: View) -> PythonTree:
    if "python_tree" not in view.compat_matches:
        view.compat_matches["python_tree"] = PythonTree(view.content)
    return view.compat_matches["python_tree"]


def _members(item: ast.stmt) -> int:
    if isinstance(item, ast.Assign):
        return sum(isinstance(t, ast.Name) for t in item.targets)
    return int(isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name))


@_compat("qsc_codepython_cate_ast")
def python_ast(view: View) -> Value:
    """The file parses by `ast`."""
    return float(_python_tree(view).ok)


def _python(attribute: str) -> Callable[[View], Value]:
    def value(view: View) -> Value:
        tree = _python_tree(view)
        return _per_line(view, getattr(tree, attribute)) if tree.ok else None

    return value


signal("qsc_codepython_frac_lines_func_ratio", profile="compat", about="`def` without `async` ÷ code lines.")(
    _python("functions")
)
signal("qsc_codepython_frac_lines_simplefunc", profile="compat", about="Functions of one return ÷ code lines.")(
    _python("simple")
)


@_compat("qsc_codepython_cate_var_zero")
def python_var_zero(view: View) -> Value:
    """No plain name assigned, no plain loop name, no argument."""
    tree = _python_tree(view)
    return float(not tree.variables) if tree.ok else None


@_compat("qsc_codepython_frac_lines_import")
def python_imports(view: View) -> Value:
    """Code lines with the text 'import' ÷ code lines."""
    return _per_line(view, count_lines_with(view.code_lower, "import")) or 0.0


@_compat("qsc_codepython_frac_lines_pass")
def python_passes(view: View) -> Value:
    """Code lines with the text 'pass' ÷ code lines."""
    return _per_line(view, count_lines_with(view.code_lower, "pass")) or 0.0


@cache
def _python_return():
    return re2.compile(rb"(?m)^\s*return(?:\s+[^\n]+)?\s*$")


@_compat("qsc_codepython_score_lines_no_logic")
def python_no_logic(view: View) -> Value:
    """(functions + lines with 'import' + classes + returns + class-level assignments) ÷ code lines."""
    tree = _python_tree(view)
    if not tree.ok:
        return None
    returns = sum(1 for _ in _python_return().finditer(view.code_utf8))
    imports = count_lines_with(view.code_lower, "import")
    return _per_line(view, tree.functions + imports + tree.classes + returns + tree.members)


_HASH_ONLY = Syntax(("#",), (), scan.LINE, scan.LINE, flags=scan.TRIPLE | scan.NO_DOC)


def python_comment_chars(view: View) -> int:
    """Characters of doc-strings and of comments without their '#' marks."""
    cp = view.source_cp
    comment = cp[_HASH_ONLY.scan(cp) == scan.COMMENT]
    return _python_tree(view).docs + len(comment) - int((comment == 35).sum())


@_compat("qsc_code_frac_chars_comments")
def frac_chars_comments(view: View) -> Value:
    """Characters of comments ÷ characters; for Python doc-strings and comments without '#'."""
    if view.language == "python":
        return ratio(python_comment_chars(view), len(view.content))
    return ratio(len(view.source_cp) - len(view.code_cp), len(view.content))
