"""Structure of a document from a tree-sitter parse: one parse and one query per document, captures counted by name.

Captures every language uses: `function` (a definition with a name and a body), `class` (class, struct, interface, enum, record),
`import`, `bare` (lines with a declaration without a value, or with a literal or a name), `return` (of nothing, a literal
or a name), `print`, `variable` (what declares or assigns: variables, parameters, loop variables, fields; in Java and JavaScript a
search of its own). Further ones where a published signal asks for them. The parser cannot be interrupted from Python; the
time limit is `guard.Guard`'s.
"""

from dataclasses import dataclass
from functools import cache

from tree_sitter import Node, Parser, Query, QueryCursor, Tree
from tree_sitter_language_pack import get_language

from .kernels import depth, operator_run
from .measures import CLOSING, LONGEST_LINE, OPENING, OPERATORS

# Larger files are dropped for their size (3 MB) whatever their structure.
MAX_BYTES = 3_000_000
# With longer lines the text is packed by a machine, and shares per line of code say nothing; a file is dropped for a
# line of 1,000 characters.
MAX_LINE = 100_000
# Deepest nesting of brackets and longest run of one operator that is parsed; code written by hand stays below 30.
MAX_DEPTH = 500

_C = """
(function_definition) @function
(preproc_include) @import
(struct_specifier body: (_)) @class
(union_specifier body: (_)) @class
(enum_specifier body: (_)) @class
(declaration declarator: (identifier)) @bare
(return_statement) @returns
(goto_statement) @goto
[(parameter_declaration) (declaration) (field_declaration)] @variable
"""

QUERIES: dict[str, str] = {
    "c": _C,
    "cpp": _C
    + """
(class_specifier body: (_)) @class
(using_declaration) @import
(for_range_loop) @variable
""",
    "csharp": """
(method_declaration body: (_)) @function
[(constructor_declaration) (destructor_declaration) (operator_declaration) (conversion_operator_declaration)
 (local_function_statement)] @function
[(class_declaration) (struct_declaration) (interface_declaration) (enum_declaration) (record_declaration)] @class
(using_directive) @import
(variable_declaration (variable_declarator . (identifier) .)) @bare
(return_statement) @returns
[(variable_declarator) (parameter) (property_declaration) (foreach_statement)] @variable
""",
    "go": """
[(function_declaration) (method_declaration)] @function
(type_spec type: [(struct_type) (interface_type)]) @class
(import_spec) @import
(var_spec name: (identifier) type: (_) !value) @bare
(return_statement) @returns
[(var_spec) (const_spec) (short_var_declaration) (range_clause) (parameter_declaration)] @variable
""",
    "java": """
(method_declaration body: (_)) @function
(method_declaration !body) @prototype
[(constructor_declaration) (compact_constructor_declaration)] @function
(method_declaration name: (identifier) @function_name)
[(class_declaration) (interface_declaration) (enum_declaration) (record_declaration) (annotation_type_declaration)] @class
(class_declaration name: (identifier) @class_name)
(interface_declaration name: (identifier) @class_name)
(enum_declaration name: (identifier) @class_name)
(record_declaration name: (identifier) @class_name)
(method_declaration (modifiers) @modifiers)
(constructor_declaration (modifiers) @modifiers)
(class_declaration (modifiers) @modifiers)
(interface_declaration (modifiers) @modifiers)
(import_declaration) @import
(variable_declarator name: (identifier) @variable_name)
(variable_declarator !value) @bare
(return_statement) @returns
""",
    "javascript": """
(function_declaration name: (identifier) @function_name) @function
(generator_function_declaration name: (identifier) @function_name) @function
(method_definition name: (_) @function_name) @function
(variable_declarator name: (identifier) @function_name
 value: [(function_expression) (arrow_function) (generator_function)]) @function
(class_declaration name: (identifier) @class_name) @class
(import_statement) @import
(variable_declarator name: (identifier) @variable_name)
(variable_declarator !value) @bare
(variable_declarator value: [(number) (string) (identifier) (true) (false) (null) (undefined) (unary_expression)]) @bare
(return_statement) @returns
(program (_) @statement)
(program (comment) @comment)
""",
    "python": """
(function_definition) @function
(class_definition) @class
[(import_statement) (import_from_statement) (future_import_statement)] @import
(class_definition body: (block (expression_statement (assignment) @bare)))
(return_statement) @returns
(pass_statement) @pass
(function_definition body: (block . (return_statement) .)) @simple_function
[(assignment) (augmented_assignment) (named_expression) (for_statement) (for_in_clause) (as_pattern_target)] @variable
(parameters (_)) @variable
(lambda_parameters (_)) @variable
""",
}

# Patterns that can match only where one of these texts is in the document; elsewhere the query goes without them.
_C_PRINT = (
    (b"printf", b"puts", b"putchar"),
    '(call_expression function: (identifier) @print (#match? @print "^(v?f?printf|puts|putchar|fputs)$"))',
)
_C_MAIN = (
    (b"main",),
    """(function_definition declarator: (function_declarator declarator: (identifier) @main) (#eq? @main "main"))""",
)
RARE: dict[str, tuple[tuple[tuple[bytes, ...], str], ...]] = {
    "c": (_C_PRINT, _C_MAIN),
    "cpp": (
        _C_PRINT,
        _C_MAIN,
        ((b"cout",), "(expression_statement (binary_expression left: (_) @cout)) @print_statement"),
    ),
    "csharp": (
        (
            (b"Console.Write",),
            """(invocation_expression function: (member_access_expression) @print
 (#match? @print "^(System[.])?Console[.]Write"))""",
        ),
    ),
    "go": (
        (
            (b"fmt.Print", b"log.Print"),
            '(call_expression function: (selector_expression) @print (#match? @print "^(fmt[.]Print|log[.]Print)"))',
        ),
    ),
    "java": (
        (
            (b"System.out", b"System.err"),
            '(method_invocation object: (field_access) @print (#match? @print "^System[.](out|err)$"))',
        ),
    ),
    "javascript": (
        (
            (b"console.log", b"console.info", b"console.debug"),
            """(call_expression function: (member_expression) @print
 (#match? @print "^console[.](log|info|debug)$"))""",
        ),
    ),
    "python": (
        ((b"print",), '(call function: (identifier) @print (#eq? @print "print"))'),
        ((b"print",), "(print_statement) @print"),
    ),
}

# What declares or assigns a name, where most nodes of that kind are captured anyway. Only whether there is one is asked,
# so that the search ends at the first.
VARIABLES: dict[str, str] = {
    "java": """[(variable_declarator) (formal_parameter) (enhanced_for_statement) (resource)
 (enum_constant)] @variable""",
    "javascript": """
[(variable_declarator) (for_in_statement)] @variable
(formal_parameters (_)) @variable
(assignment_expression left: [(identifier) (member_expression) (subscript_expression)]) @variable
""",
}

_SIMPLE_RETURN = {
    "identifier", "number_literal", "string_literal", "char_literal", "true", "false", "null", "this", "boolean_literal",
    "integer_literal", "real_literal", "character_literal", "null_literal", "nil", "int_literal", "float_literal",
    "interpreted_string_literal", "raw_string_literal", "decimal_integer_literal", "decimal_floating_point_literal",
    "number", "string", "undefined", "none", "integer", "float",
}  # fmt: skip


@dataclass(frozen=True)
class Structure:
    """Counts and names of one parse. ok: no syntax error was met. declares: a name is declared or assigned."""

    ok: bool
    declares: bool
    counts: dict[str, int]
    names: dict[str, list[bytes]]

    def __getitem__(self, capture: str) -> int:
        return self.counts.get(capture, 0)


@cache
def _tools(language: str, query: str) -> tuple[Parser, QueryCursor]:
    grammar = get_language(language)  # pyright: ignore[reportArgumentType]
    return Parser(grammar), QueryCursor(Query(grammar, query))


def captures(language: str, query: str, source: bytes) -> tuple[Tree, dict[str, list[Node]]]:
    """Parse `source` (UTF-8) and run `query`: the tree and its captures by name."""
    tree = _tools(language, query)[0].parse(source)
    return tree, again(language, query, tree)


def again(language: str, query: str, tree: Tree) -> dict[str, list[Node]]:
    """Captures of a further query over a tree."""
    return _tools(language, query)[1].captures(tree.root_node)


_FIRST_WINDOW = 1024


def declares(language: str, tree: Tree, size: int) -> bool:
    """Whether the tree of a text of `size` bytes holds one of `VARIABLES`, looked for in growing pieces of it."""
    _, cursor = _tools(language, VARIABLES[language])
    start, window = 0, _FIRST_WINDOW
    while start < size:
        cursor.set_byte_range(start, min(start + window, size))
        if cursor.captures(tree.root_node):
            return True
        start, window = start + window, window * 4
    return False


def too_large(view) -> bool:
    """Whether the text or its longest line is beyond what is parsed."""
    return view.size_bytes > MAX_BYTES or view.characters[LONGEST_LINE] > MAX_LINE


def too_deep(view) -> bool:
    """Whether brackets nest, or one operator repeats outside comments and strings, more than `MAX_DEPTH` times."""
    c = view.characters  # a text of few brackets and operators is not looked at
    nests = max(c[OPENING], c[CLOSING]) > MAX_DEPTH and depth(view.cp) > MAX_DEPTH
    return nests or (c[OPERATORS] > MAX_DEPTH and operator_run(view.source_cp, view.mask) > MAX_DEPTH)


def parse(view) -> Structure | None:
    """Structure of a document; None for a language without a query, for a file dropped for its size or its longest line
    anyway, and for one the parser's error recovery would take quadratic time for (`too_deep`)."""
    if view.language not in QUERIES or too_large(view) or too_deep(view):
        return None
    source = view.utf8
    tree, captured = captures(view.language, query_of(view.language, source), source)
    counts = {name: len(nodes) for name, nodes in captured.items()}
    # By line: `int x, y;` is one line without logic, not two.
    counts["bare"] = len({node.start_point.row for node in captured.get("bare", ())})
    counts["return"] = sum(map(_is_simple, captured.get("returns", ())))
    names = {k: [n.text or b"" for n in v] for k, v in captured.items() if k.endswith(("_name", "modifiers", "cout"))}
    declared = "variable" in captured or "variable_name" in captured
    if not declared and view.language in VARIABLES:
        declared = declares(view.language, tree, len(source))
    return Structure(not tree.root_node.has_error, declared, counts, names)


def query_of(language: str, source: bytes) -> str:
    """The query of a document: that of its language, and those of the patterns in `RARE` that may match."""
    return QUERIES[language] + "\n".join(
        pattern for marks, pattern in RARE[language] if any(mark in source for mark in marks)
    )


def _is_simple(node: Node) -> bool:
    if not node.named_child_count:
        return True
    value = node.named_child(0)
    assert value is not None
    if value.type == "expression_list":
        return all(child.type in _SIMPLE_RETURN for child in value.named_children)
    return value.type in _SIMPLE_RETURN
