"""Copyright and licence notices, removed from the comments that open a file.

More than 15 % of code files open with one (paper, appendix); repeated a million times they teach nothing. Only comments
before the first code are looked at; of these only the paragraphs that are legal text go, and the whole comment when
nothing else is in it. Shebangs, encoding lines, compiler directives and doc-strings are not comments here and stay.
"""

import re
from typing import NamedTuple

from opencoder_data.refinecode.transform.comment_syntax import CommentSyntax, comment_syntax

_HEAD = 40_000

# A paragraph with one of these is legal text.
_LEGAL = re.compile(
    r"""
      \bcopyright\s*(?:\(c\)|©|\d{4}|:|by\b|holder|notice|owner|the\b|and\b|-)
    | ^\W*copyright\s+[\w"<]
    | \(c\)\s*(?:copyright|\d{4})
    | ©\s*(?:copyright\s*)?\d{4}
    | \ball\s+rights\s+reserved\b
    | \bspdx-license-identifier\b | \bspdx-(?:file)?copyright
    | \blicen[sc]ed\s+(?:under|to\s+the|by|for\s+use\s+under)\b
    | \bunder\s+(?:the\s+)?(?:terms|conditions)\s+of\s+(?:the|this|either|version)\b[^.]{0,120}\blicen[sc]e\b
    | \b(?:apache|mit|bsd|isc|mozilla\s+public|gnu\s+(?:lesser\s+|library\s+|affero\s+)?general\s+public|eclipse\s+public|
        boost\s+software|zlib|common\s+development\s+and\s+distribution|creative\s+commons|artistic|unlicense)[\w\s.,-]{0,24}\blicen[sc]e\b
    | \bpermission\s+(?:is\s+hereby\s+granted|to\s+use,\s+copy)
    | \bpermission\s+notice\s+shall\s+be\s+included\b
    | \bredistributions?\s+(?:and\s+use\s+in|of\s+source\s+code|in\s+binary\s+form)\b
    | \bprovided\s+(?:``|"|''|“)?as[\s-]is\b
    | \bwithout\s+(?:even\s+the\s+implied\s+)?warrant(?:y|ies)\b
    | \bwarranties\s+or\s+conditions\s+of\s+any\s+kind\b
    | \bmerchantability\b
    | \bin\s+no\s+event\s+shall\b
    | \byou\s+should\s+have\s+received\s+a\s+copy\s+of\b
    | \byou\s+may\s+(?:not\s+use\s+this\s+file\s+except|obtain\s+a\s+copy\s+of\s+the\s+licen[sc]e)
    | \bunless\s+required\s+by\s+applicable\s+law\b
    | \bneither\s+the\s+name\s+of\b
    | \b(?:is|are)\s+free\s+software\b
    | \blicen[sc]e\s+(?:file|information|terms|agreement|that\s+can\s+be\s+found)\b
    | \bsee\s+(?:the\s+)?(?:accompanying\s+)?(?:file\s+)?(?:license|licence|copying|notice|legal)\b
    | \blicen[sc]ed\s+as\s+described\s+in\b
    | \bto\s+whom\s+the\s+software\s+is\s+furnished\b
    | \bgoverned\s+by\s+an?\s+[\w-]+\s+licen[sc]e\b
    | ^\W*@licen[sc]e\b | ^\W*licen[sc]e\s*:
    | \bdistributed\s+under\s+(?:the|an?)\b[^.]{0,80}\blicen[sc]e\b
    """,
    re.IGNORECASE | re.VERBOSE | re.MULTILINE,
)
_MARKER = re.compile(
    r"copyright|licen[sc]e|\(c\)|©|rights reserved|warrant|spdx|free software|redistribut|permission", re.I
)

# First lines that mean something to an interpreter, a compiler or an editor; a licence may follow an include guard.
_DIRECTIVE = re.compile(
    r"""^(?: \#! | <\?(?:xml|php|hh)\b | <!doctype\b | \s*\#.*?coding[:=] | \s*//\s*(?:go:|\+build) | \#\s*frozen_string_literal
        | \s*//\s*@(?:flow|ts-|jsx) | \s*(?:\#|//|;+|/\*)\s*-\*-.*-\*- | \s*\#\s*(?:cython|distutils|vim|typed): | \s*--\s*\#
        | \s*\#\s*(?:syntax|escape)= | \#[ ]?ifndef\s+\w+\s*$ | \#[ ]?define\s+\w+\s*$ | \#[ ]?pragma\s+once\b )""",
    re.IGNORECASE | re.VERBOSE,
)


class _Comment(NamedTuple):
    """A leading comment: `start`, `end` in the text; its lines with their line ends; `block` delimiters or None."""

    start: int
    end: int
    lines: list[str]
    block: tuple[str, str] | None


def remove_header(text: str, language: str | None) -> str:
    """The text without legal paragraphs in its leading comments; unchanged for languages without known comments."""
    syntax = comment_syntax(language)
    if syntax is None or not _MARKER.search(text, 0, _HEAD):
        return text
    # What goes may bring two comments together; a second look makes the function idempotent.
    for _ in range(8):
        shorter = _pass(text, syntax)
        if shorter == text:
            break
        text = shorter
    return text


def _pass(text: str, syntax: CommentSyntax) -> str:
    position = _after_directives(text)
    out = [text[:position]]
    removed = False
    while (comment := _next_comment(text, position, syntax)) is not None:
        gap = text[position : comment.start]
        kept = _without_legal(comment)
        if kept is None:
            out += [gap, text[comment.start : comment.end]]
        else:
            # The blank lines after a comment that goes away go with it.
            removed = True
            out += [gap, kept]
            if not kept:
                rest = re.compile(r"(?:[ \t]*\r?\n)*").match(text, comment.end)
                assert rest is not None
                position = rest.end()
                continue
        position = comment.end
    return "".join(out) + text[position:] if removed else text


def _after_directives(text: str) -> int:
    position = 0
    for _ in range(6):
        end = text.find("\n", position)
        line = text[position : end if end >= 0 else len(text)]
        if not _DIRECTIVE.match(line) or end < 0:
            break
        if _LEGAL.search(line):
            break
        position = end + 1
    return position


def _next_comment(text: str, position: int, syntax: CommentSyntax) -> _Comment | None:
    """The comment that follows `position` after blank space only; runs of line comments are one comment."""
    blank = re.compile(r"\s*").match(text, position)
    assert blank is not None
    start = blank.end()
    if start >= min(len(text), _HEAD):
        return None
    # Indentation before the mark belongs to the comment.
    line_start = text.rfind("\n", 0, start) + 1
    start_of_line = max(line_start, position)
    for opening, closing in syntax.block:
        if text.startswith(opening, start):
            close = text.find(closing, start + len(opening))
            if close < 0:
                return None
            end = close + len(closing)
            stop = text.find("\n", end)
            stop = len(text) if stop < 0 else stop + 1
            if text[end:stop].strip():
                return None  # code on the closing line
            return _Comment(start_of_line, stop, text[start_of_line:stop].splitlines(keepends=True), (opening, closing))
    lines: list[str] = []
    cursor = start_of_line
    while cursor < len(text):
        stop = text.find("\n", cursor)
        stop = len(text) if stop < 0 else stop + 1
        line = text[cursor:stop]
        if not line.lstrip(" \t").startswith(syntax.line) or (not lines and not syntax.line):
            break
        if _DIRECTIVE.match(line) and not _LEGAL.search(line):
            break
        lines.append(line)
        cursor = stop
    return _Comment(start_of_line, cursor, lines, None) if lines else None


def _without_legal(comment: _Comment) -> str | None:
    """The comment without its legal paragraphs; "" when nothing is left, None when nothing is legal."""
    lines = comment.lines
    bodies = [_body(line, comment.block, i == 0, i == len(lines) - 1) for i, line in enumerate(lines)]
    legal = [False] * len(lines)
    begin = 0
    for i in range(len(lines) + 1):
        if i == len(lines) or not bodies[i]:
            if i > begin and _LEGAL.search("\n".join(bodies[begin:i])):
                legal[begin:i] = [True] * (i - begin)
            begin = i + 1
    if not any(legal):
        return None
    # Short paragraphs between two legal ones belong to the licence (its name, its list of conditions).
    first, last = legal.index(True), len(legal) - 1 - legal[::-1].index(True)
    for i in range(first, last):
        if not legal[i] and (len(bodies[i]) < 40 or re.match(r"[-*\d(]|\w\)|https?://\S+$", bodies[i])):
            legal[i] = True
    left = "".join(b for b, gone in zip(bodies, legal, strict=True) if not gone)
    if sum(map(str.isalnum, left)) <= 0.3 * sum(not c.isspace() for c in left):
        return ""  # nothing, or a banner drawn with punctuation
    kept = []
    for i, line in enumerate(lines):
        if not legal[i]:
            # One blank line for two around what went.
            after_cut = kept and i and legal[i - 1] and i != len(lines) - 1
            if after_cut and not bodies[i] and not _body(kept[-1], comment.block, len(kept) == 1, False):
                continue
            kept.append(line)
            continue
        if comment.block and i == 0:
            kept.append(line[: len(line) - len(line.lstrip())] + comment.block[0] + _line_end(line))
        if comment.block and i == len(lines) - 1:
            indent = line[: len(line) - len(line.lstrip())]
            kept.append(indent + comment.block[1] + _line_end(line))
    return "".join(kept)


def _line_end(line: str) -> str:
    return "\r\n" if line.endswith("\r\n") else "\n" if line.endswith("\n") else ""


def _body(line: str, block: tuple[str, str] | None, first: bool, last: bool) -> str:
    """Text of a comment's line without delimiters, marks and ornament."""
    text = line.strip()
    if block:
        if first and text.startswith(block[0]):
            text = text[len(block[0]) :]
        if last and text.endswith(block[1]):
            text = text[: -len(block[1])]
    text = text.strip(" \t*#/;%!\"'~=+-|<>{}")
    return text if re.search(r"\w|©", text) else ""
