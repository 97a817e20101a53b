"""Signals of C, C++, C#, Go, Java, JavaScript and Python in the default profile, from the parse tree.

Shares are per non-blank line of code without comments. The released filter finds the same things by regular
expressions (`compat_languages`); what differs is written down in docs/refinecode/filter_decisions.md.
"""

import re
import warnings
from collections.abc import Callable, Sequence

from .document_view import View
from .registry import Value, ratio, signal
from .structure import too_large

C_LIKE = ("c", "cpp")


def _of(languages: Sequence[str], tail: str, about: str):
    """Register a default-profile signal for several languages under their prefixes."""
    return signal(*(f"qsc_code{language}_{tail}" for language in languages), profile="default", about=about)


def _per_line(view: View, count: int) -> Value:
    return ratio(count, view.num_code_lines)


def _count(*captures: str) -> Callable[[View], Value]:
    def count(view: View) -> Value:
        tree = view.structure
        return None if tree is None else _per_line(view, sum(tree[c] for c in captures))

    return count


ALL = ("c", "cpp", "csharp", "go", "java", "javascript", "python")

_of(ALL, "frac_lines_func_ratio", "Function definitions ÷ code lines.")(_count("function"))
_of(
    ALL,
    "score_lines_no_logic",
    "(functions + imports + classes + returns of a name or literal + declarations without logic) ÷ code lines.",
)(_count("function", "import", "class", "return", "bare"))


@_of(ALL, "cate_var_zero", "Nothing is declared or assigned: no variable, parameter, loop variable or field.")
def var_zero(view: View) -> Value:
    tree = view.structure
    return None if tree is None else float(not tree.declares)


@_of(("c", "csharp", "go", "java", "javascript", "python"), "frac_lines_print", "Calls that print ÷ code lines.")
def prints(view: View) -> Value:
    tree = view.structure
    return None if tree is None else _per_line(view, tree["print"])


@signal("qsc_codecpp_frac_lines_print", profile="default")
def prints_cpp(view: View) -> Value:
    """Statements that print by printf or cout ÷ code lines."""
    tree = view.structure
    if tree is None:
        return None
    streams = sum(text.startswith((b"cout", b"std::cout")) for text in tree.names.get("cout", ()))
    return _per_line(view, tree["print"] + streams)


# --- C and C++ ----------------------------------------------------------------------------------------------------


@signal("qsc_codec_cate_bitsstdc", "qsc_codecpp_cate_bitsstdc")
def bits_stdc(view: View) -> Value:
    """Includes bits/stdc++.h within the first 200 characters of code (published, not used)."""
    return float("bits/stdc++.h" in view.code.strip()[:200].lower())


@_of(C_LIKE, "nums_lines_main", "Definitions of main: more than one are several programs in one file.")
def mains(view: View) -> Value:
    tree = view.structure
    return None if tree is None else float(tree["main"])


@_of(C_LIKE, "frac_lines_goto", "goto statements ÷ code lines (published, not used).")
def gotos(view: View) -> Value:
    tree = view.structure
    return None if tree is None else _per_line(view, tree["goto"])


HEADERS = ("h", "hpp", "hxx", "hh", "h++")


@_of(C_LIKE, "frac_lines_preprocessor_directives", "Preprocessor directives ÷ code lines; null for headers.")
def directives(view: View) -> Value:
    if view.extension.lower() in HEADERS:
        return None
    return _per_line(view, sum(line.lstrip().startswith("#") for line in view.code.split("\n")))


# --- Go -----------------------------------------------------------------------------------------------------------


@signal("qsc_codego_cate_testfile", profile="default")
def go_test_file(view: View) -> Value:
    """The file's name ends in `_test.go`."""
    return float(view.file_name.lower().endswith("_test.go"))


# --- names --------------------------------------------------------------------------------------------------------


def _legal(capture: str, pattern: str) -> Callable[[View], Value]:
    check = re.compile(pattern.encode())

    def legal(view: View) -> Value:
        tree = view.structure
        names = tree.names.get(capture, ()) if tree else ()
        return ratio(sum(check.fullmatch(n) is not None for n in names), len(names))

    return legal


for _kind, _java, _js in (
    ("var", "[a-z][a-zA-Z0-9]*", "[a-z$][a-zA-Z0-9]*"),
    ("func", "[a-z][a-zA-Z0-9]*", "[a-zA-Z$][a-zA-Z0-9]*"),
    ("class", "[A-Z][a-zA-Z0-9]*", "[A-Z][a-zA-Z0-9]*"),
):
    _capture = {"var": "variable_name", "func": "function_name", "class": "class_name"}[_kind]
    _about = f"Names of {_kind}s in the language's usual spelling ÷ names (published, not used)."
    _of(("java",), f"frac_words_legal_{_kind}_name", _about)(_legal(_capture, _java))
    _of(("javascript",), f"frac_words_legal_{_kind}_name", _about)(_legal(_capture, _js))


@signal("qsc_codejava_frac_words_no_modifier", profile="default")
def no_modifier(view: View) -> Value:
    """Methods and types without an access modifier ÷ methods and types (published, not used)."""
    tree = view.structure
    if tree is None:
        return None
    total = tree["function"] + tree["prototype"] + tree["class"]
    with_access = sum(
        any(a in m for a in (b"public", b"protected", b"private")) for m in tree.names.get("modifiers", ())
    )
    return ratio(max(total - with_access, 0), total)


# --- JavaScript ---------------------------------------------------------------------------------------------------


@signal("qsc_codejavascript_cate_ast", profile="default")
def javascript_ast(view: View) -> Value:
    """The file parses (tree-sitter's grammar: current ECMAScript and JSX)."""
    tree = view.structure
    if tree is None:
        return None if too_large(view) else 0.0
    return float(tree.ok)


@signal("qsc_codejavascript_num_statement_line", profile="default")
def javascript_statements(view: View) -> Value:
    """Top-level statements ÷ code lines (published, not used)."""
    tree = view.structure
    return None if tree is None else _per_line(view, tree["statement"] - tree["comment"])


# --- Python -------------------------------------------------------------------------------------------------------


def compiles(source: str) -> bool:
    """Whether CPython's own parser accepts the source (of the running version: Python 2 does not parse)."""
    import symtable

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            symtable.symtable(source, "<file>", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return False
    return True


@signal("qsc_codepython_cate_ast", profile="default")
def python_ast(view: View) -> Value:
    """The file parses as Python 3."""
    return float(compiles(view.content.removeprefix("\ufeff")))


_of(("python",), "frac_lines_import", "Import statements ÷ code lines.")(_count("import"))
_of(("python",), "frac_lines_pass", "`pass` statements ÷ code lines.")(_count("pass"))
_of(("python",), "frac_lines_simplefunc", "Functions that only return ÷ code lines.")(_count("simple_function"))
