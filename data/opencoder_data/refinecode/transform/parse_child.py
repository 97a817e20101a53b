"""The process that runs tree-sitter: asked for the syntax around spans of a text, by a parent that can lose it.

Run as a script (`python -P parse_child.py FD`), so that it loads nothing but the parser. A parser is native code and cannot
be interrupted; a timer of processor time ends this process instead, with whatever it hangs in. It also ends when the
parent does.
"""

import re
import signal
import sys
from functools import cache
from multiprocessing.connection import Connection

from tree_sitter import Node, Parser
from tree_sitter_language_pack import get_language

CODE, COMMENT, STRING, MARKUP, BARE, OPAQUE, ERROR = b"-", b"c", b"s", b"m", b"b", b"o", b"e"

_COMMENT = re.compile(r"comment(?!_statement)|marginalia|haddock|data_section|^(?:pod|docstring)$")
_STRING = re.compile(
    r"(?:^|_)str(?:ing)?(?:_|$)|string$|^(?:heredoc|nowdoc|charlist|char|rune_literal|sigil|literalString|quoted_(?:argument|template|word))$"
    r"|^character|heredoc_(?:body|content|template|block)|text_block|STRING|nowdoc_body|bracket_argument"
)
# Longer names of which `_STRING` would say yes: expressions inside literals, and quoted names.
_CODE = re.compile(
    r"(?:^|_)(?:interpolation|substitution|expansion|interpolated_expression|interpolated_identifier|embedded_expression|splice)$"
    r"|^(?:quoted_atom|system_lib_string|regex.*|.*_regex|bit_?string.*)$"
)
# What a literal is made of; anything else inside one is an expression.
_INSIDE = re.compile(
    r"content|fragment|escape|text|(?:^|_)str(?:ing)?(?:_|$)|comment|char|chunk|doc|template_literal|quoted_element|_line$|_body$|STRING"
)
_LITERAL = re.compile(r"lit(?:eral)?$|^constant$|^term$")
_QUOTED = re.compile(rb"(?s)[A-Za-z&@$]{0,3}(['\"`]).*\1\Z")


@cache
def _parser(grammar: str) -> Parser:
    return Parser(get_language(grammar))  # pyright: ignore[reportArgumentType]


def _kind(root: Node, source: bytes, start: int, end: int, bare: frozenset[str]) -> bytes:
    """Where the bytes from `start` to `end` lie: the innermost node around them that says so."""
    node = root.descendant_for_byte_range(start, end)
    plain = True  # only parts of a literal so far
    innermost = True
    while node is not None:
        name = node.type
        if name in bare:
            return BARE
        if _CODE.search(name):
            return CODE
        if _COMMENT.search(name):
            return COMMENT
        if _STRING.search(name) or (_LITERAL.search(name) and _QUOTED.match(source[node.start_byte : node.end_byte])):
            # Expressions in a literal that the bytes overlap are code, whatever the grammar calls them; a literal with an error
            # in it may have been made up by the parser.
            overlapped = (
                (c for c in node.named_children if c.start_byte < end and c.end_byte > start) if innermost else ()
            )
            whole = not node.has_error and all(_INSIDE.search(child.type) for child in overlapped)
            return STRING if plain and whole else CODE
        if name in ("text", "jsx_text", "html_text"):
            return MARKUP
        if name == "preproc_arg":
            return OPAQUE
        if name == "ERROR":
            return ERROR
        plain = plain and bool(_INSIDE.search(name))
        innermost = False
        node = node.parent
    return CODE


def look(grammar: str, source: bytes, spans: list[tuple[int, int]], bare: frozenset[str]) -> tuple[bool, bytes]:
    """(the text parses without error, one kind per span)."""
    tree = _parser(grammar).parse(source)
    root = tree.root_node
    return not root.has_error, b"".join(_kind(root, source, start, end, bare) for start, end in spans)


def serve(descriptor: int) -> None:
    """Answer (grammar, source, spans, bare names, seconds) with what `look` says, until the parent goes away."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to answer
    pipe = Connection(descriptor)
    while True:
        try:
            grammar, source, spans, bare, seconds = pipe.recv()
        except (EOFError, OSError):
            return
        signal.setitimer(signal.ITIMER_PROF, seconds)  # whose signal ends a process that does not handle it
        answer = look(grammar, source, spans, bare)
        signal.setitimer(signal.ITIMER_PROF, 0)
        pipe.send(answer)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
