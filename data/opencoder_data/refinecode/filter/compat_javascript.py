"""What an ECMAScript 2017 parser (esprima 4, the released filter's) sees in JavaScript, told from a tree-sitter tree.

The tree says which newer syntax a file uses; with any of it esprima rejects the file. Counts follow the released
filter: arrow functions assigned to names are variables, `module.exports.x = ...` counts by what is assigned.
"""

import re
from functools import lru_cache

from .structure import Structure, again, captures, too_deep

_EXPORTS = """
(assignment_expression left: (member_expression object: (member_expression object: (identifier) @_m
 property: (property_identifier) @_e) property: (property_identifier) @{name}) right: {right}
 (#eq? @_m "module") (#eq? @_e "exports"))
"""
_FUNCTIONS = "[(function_expression) (generator_function) (arrow_function)]"
_BARE = "[(number) (string) (regex) (true) (false) (null) (undefined) (identifier) (unary_expression)]"

QUERY = (
    """
(function_declaration) @function
(generator_function_declaration) @function
(function_declaration name: (identifier) @function_name)
(generator_function_declaration name: (identifier) @function_name)
(variable_declarator name: (identifier) @function_name value: [(function_expression) (generator_function)]) @function
(variable_declarator name: (identifier) @declared)
(for_in_statement kind: _ left: (identifier) @declared @bare)
(variable_declarator !value) @bare
(variable_declarator value: """
    + _BARE
    + """) @bare
(class_declaration name: (identifier) @class_name) @class
(import_statement) @import
(return_statement) @returns
(program (_) @statement)
(program (comment) @comment)
(await_expression) @await
(program (return_statement) @new)
(optional_chain) @new
(binary_expression operator: "??" @new)
(augmented_assignment_expression operator: ["??=" "||=" "&&="] @new)
(field_definition) @new
(private_property_identifier) @new
(class_static_block) @new
(catch_clause !parameter) @new
(for_in_statement "await" @new)
(generator_function_declaration "async" @new)
(generator_function "async" @new)
(method_definition "async" "*" @new)
[(jsx_element) (jsx_self_closing_element) (namespace_export) (decorator) (hash_bang_line)] @new
(meta_property) @meta
(regex) @regex
"""
    + _EXPORTS.format(name="exported_function", right=_FUNCTIONS)
    + _EXPORTS.format(name="exported", right="(_)")
    + _EXPORTS.format(name="exported_bare", right=_BARE)
)

_SIMPLE = {
    "number", "string", "regex", "true", "false", "null", "undefined", "identifier", "unary_expression",
}  # fmt: skip
_FUNCTION_NODES = {
    "function_declaration", "function_expression", "arrow_function", "method_definition", "generator_function",
    "generator_function_declaration",
}  # fmt: skip
_MAYBE_NEW_NUMBER = re.compile(rb"[0-9a-fA-F](?:_|n\b)")
_NEW_NUMBER = re.compile(rb"_|n$")
_ESCAPE = re.compile(r"\\u\{([0-9a-fA-F]+)\}|\\u([a-fA-F0-9]{4})")


def javascript_compat(view) -> Structure:
    """Structure as esprima 4 would report it; `ok` False when it would reject the file."""
    found = view.compat_matches.get("tree")
    if found is None:
        found = view.compat_matches["tree"] = _parse(view)
    return found


def _parse(view) -> Structure:
    if too_deep(view):
        return Structure(False, False, {}, {})
    tree, nodes = captures("javascript", QUERY, view.utf8)
    ok = not tree.root_node.has_error and "new" not in nodes and "\u2028" not in view.content
    ok = ok and not any((n.text or b"").startswith(b"import") for n in nodes.get("meta", ()))
    ok = ok and not (_MAYBE_NEW_NUMBER.search(view.utf8) and _new_number(tree))
    ok = ok and not any(map(_at_top_level, nodes.get("await", ())))
    ok = ok and all(_regex_ok(n.text or b"") for n in nodes.get("regex", ()))
    names = {
        k: [n.text or b"" for n in v] for k, v in nodes.items() if k.endswith("_name") or k in ("declared", "exported")
    }
    exported = len(nodes.get("exported", ()))
    exported_functions = len(nodes.get("exported_function", ()))
    bound = sum(1 for n in nodes.get("function", ()) if n.type == "variable_declarator")
    counts = {k: len(v) for k, v in nodes.items()}
    counts["function"] = counts.get("function", 0) + exported_functions
    counts["variable"] = counts.get("declared", 0) - bound + exported - exported_functions
    counts["bare"] = counts.get("bare", 0) + counts.get("exported_bare", 0)
    counts["statement"] = counts.get("statement", 0) - counts.get("comment", 0)
    counts["return"] = sum(_bare_return(n) for n in nodes.get("returns", ()))
    names["variable_name"] = names.get("declared", []) + names.get("exported", [])
    return Structure(ok, counts["variable"] > 0, counts, names)


def _new_number(tree) -> bool:
    """Whether a number has a separator or is a BigInt."""
    texts = (n.text or b"" for n in again("javascript", "(number) @number", tree).get("number", ()))
    return any(_NEW_NUMBER.search(t) and not t.lower().startswith(b"0x0n") for t in texts)


def _at_top_level(node) -> bool:
    while (node := node.parent) is not None:
        if node.type in _FUNCTION_NODES:
            return False
    return True


def _bare_return(node) -> bool:
    children = [c for c in node.named_children if c.type != "comment"]
    return not children or children[0].type in _SIMPLE


@lru_cache(4096)
def _regex_ok(literal: bytes) -> bool:
    """The released filter's parser hands JavaScript's patterns to Python's `re`; what that rejects it rejects."""
    text = literal.decode("utf-8", "replace")
    end = text.rfind("/")
    pattern, flags = text[1:end], text[end + 1 :]
    pattern = _ESCAPE.sub(lambda m: chr(min(int(m.group(1) or m.group(2), 16), 0xFFFF)), pattern)
    try:
        re.compile(pattern, re.M if "m" in flags else re.I if "i" in flags else 0)
    except Exception:
        return False
    return True
