"""The comments that open a file, line by line, with the spans of their words. Linear in what is scanned.

Only `\\n`, `\\r\\n` and, in a file without any `\\n`, `\\r` end a line; whatever else ends a line in some language makes a
line comment doubtful, and the scan ends before it, as it does before anything that is not surely a comment.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from opencoder_data.refinecode.transform.comment_syntax import Block, CommentSyntax

# Comments that begin further on are not looked at, and longer ones not either.
HEAD = 40_000
_BLANK = re.compile(r"[ \t\r\n\f\v]*")
_MARKS = re.compile(r"[^\w\s©@<\[({\"'`$\\.+&]*")
_ORNAMENT = "*#/;%!\"'~=+-|<>{}_^`\\ \t\r\f\v" + "".join(map(chr, range(0x2500, 0x2580)))
_LEADING_ORNAMENT = re.compile(rf"[{re.escape(_ORNAMENT)}]*")
_WORD = re.compile(r"\w|©")


class Row(NamedTuple):
    """A line of a comment: `start`, `end` with its line end; its words are at `left`, `right` (equal when it has none).

    `mark` is what stands before the words apart from blanks; `text_start` where the text that may be removed begins and `text_end`
    where it ends: behind the opening delimiter and before the closing one. `worded`: the mark has a letter (REM, dnl).
    """

    start: int
    end: int
    left: int
    right: int
    mark: str
    text_start: int
    text_end: int
    worded: bool = False


class Line(NamedTuple):
    """A line of a comment before its words are looked for: see `Row`."""

    start: int
    end: int
    text_start: int
    text_end: int


class Comment(NamedTuple):
    """`start` to `end` is what goes when nothing is left: whole lines, or less of them where other text is on them.

    `block` is None for a run of line comments. A block that holds another opening goes whole or stays: `knotted`.
    """

    start: int
    end: int
    lines: list[Line]
    block: Block | None
    knotted: bool


def leading_comments(text: str, syntax: CommentSyntax) -> Iterator[Comment]:
    """Comments before the first code, in order, until one is met whose end is in doubt."""
    newline = "\n" if "\n" in text or "\r" not in text else "\r"
    position = _first(text, newline)
    begun = not syntax.begins_with_preamble
    while position < len(text):
        blank = _BLANK.match(text, position)
        assert blank is not None
        start = blank.end()
        if start >= min(len(text), HEAD):
            return
        line_start = max(text.rfind(newline, position, start) + 1, position)
        preamble = (
            syntax.preamble.match(text, line_start) or syntax.preamble.match(text, start) if syntax.preamble else None
        )
        if preamble is not None and preamble.end() > start:
            position = preamble.end()
            begun = True
            continue
        if not begun:
            return
        block = next(((b, m) for b in syntax.blocks if (m := b.opening.match(text, start))), None)
        if block is not None:
            comment = _block_comment(text, line_start, start, *block, newline)
            if comment is not None and _boxed(comment):
                comment = _boxes(text, comment, block[0], newline)
        else:
            comment = _run(text, line_start, syntax, newline)
        if comment is None:
            return
        yield comment
        position = comment.end


def _first(text: str, newline: str) -> int:
    """Where comments may begin: behind a byte order mark and an interpreter's line."""
    position = 1 if text.startswith("\ufeff") else 0
    if text.startswith("#!", position) and not text.startswith("#![", position):
        end = text.find(newline, position)
        position = len(text) if end < 0 else end + 1
    return position


def _line_end(text: str, position: int, newline: str) -> int:
    end = text.find(newline, position)
    return len(text) if end < 0 else end + 1


def _block_comment(
    text: str, line_start: int, start: int, block: Block, opening: re.Match[str], newline: str
) -> Comment | None:
    if block.never and block.never.match(text, start):
        return None
    if block.whole_lines and start != line_start and block.nests is False:
        return None
    close = _closing(text, block, opening)
    if close is None:
        return None
    inner_end, end, knotted = close
    stop = _line_end(text, end, newline)
    if text[end:stop].strip(" \t\r\n\f\v"):
        return None  # code on the closing line
    lines: list[Line] = []
    cursor = start if text[line_start:start].strip(" \t\f\v") else line_start
    own_line = cursor == 0 or text[cursor - 1] in ("\n", newline) or (cursor == 1 and text[0] == "\ufeff")
    body = opening.end()
    while cursor < end:
        line_end = min(_line_end(text, cursor, newline), stop)
        text_start = max(cursor, body)
        lines.append(Line(cursor, line_end, text_start, min(line_end, inner_end)))
        cursor = line_end
    return Comment(lines[0].start, stop if own_line else end, lines, block, knotted)


def _boxed(comment: Comment) -> bool:
    """Whether a block comment is one line, with its line end, and nothing else is on it."""
    return len(comment.lines) == 1 and not comment.knotted and comment.end == comment.lines[0].end


def _boxes(text: str, comment: Comment, block: Block, newline: str) -> Comment:
    """With the block comments of one line each that follow line upon line: together they are a run."""
    lines = comment.lines
    while (start := lines[-1].end) < len(text) and start - comment.start < HEAD:
        inner = _behind_indent(text, start)
        opening = block.opening.match(text, inner)
        following = _block_comment(text, start, inner, block, opening, newline) if opening else None
        if following is None or not _boxed(following):
            break
        lines += following.lines
    return comment if len(lines) == 1 else Comment(comment.start, lines[-1].end, lines, None, False)


def _closing(text: str, block: Block, opening: re.Match[str]) -> tuple[int, int, bool] | None:
    """(where the inside ends, where the comment ends, whether it holds another opening); None when in doubt."""
    begin = opening.end()
    limit = begin + HEAD
    if isinstance(block.closing, re.Pattern):
        found = block.closing.search(text, begin, limit)
        if found is None:
            return None
        knotted = block.inner is not None and block.inner.search(text, begin, found.start()) is not None
        return None if knotted else (found.start(), found.end(), False)
    closing = block.closing if isinstance(block.closing, str) else block.closing(opening)
    close = text.find(closing, begin, limit)
    if close < 0:
        return None
    inside = block.inner.search(text, begin, close) if block.inner else None
    if inside is None:
        return (close, close + len(closing), False) if _strings_agree(text, begin, close, closing) else None
    if block.nests is None:
        return None
    another = block.opening.pattern if isinstance(block.closing, str) else re.escape(opening[1])
    depth = 1
    for token in re.compile(f"({another})|{re.escape(closing)}").finditer(text, begin, limit):
        depth += 1 if token[1] else -1
        if depth == 0:
            agree = _strings_agree(text, begin, token.start(), closing)
            return (token.start(), token.end(), True) if agree else None
    return None


def _strings_agree(text: str, begin: int, close: int, closing: str) -> bool:
    """ML reads strings inside comments: an odd number of quotes before the end leaves the end in doubt."""
    return closing != "*)" or text.count('"', begin, close) % 2 == 0


def _run(text: str, line_start: int, syntax: CommentSyntax, newline: str) -> Comment | None:
    """Consecutive lines that are comments; a line that goes on over its end takes the next one with it."""
    if syntax.line is None:
        return None
    lines: list[Line] = []
    cursor = line_start
    while cursor < len(text) and cursor - line_start < HEAD:
        mark = syntax.line.match(text, cursor)
        if mark is None or any(b.opening.match(text, _behind_indent(text, cursor)) for b in syntax.blocks):
            break
        end = _line_end(text, cursor, newline)
        content = text[cursor:end].rstrip("\r\n")
        if syntax.doubt and syntax.doubt.search(content):
            break
        while content.rstrip(" \t").endswith("\\") and end < len(text):
            if not syntax.continued and syntax.line.match(text, end) is None:
                return _comment(
                    lines
                )  # another language, or another reader of a polyglot, would go on with the comment
            begin, end = end, _line_end(text, end, newline)
            content = text[begin:end].rstrip("\r\n")
        lines.append(Line(cursor, end, mark.end(), end))
        cursor = end
    return _comment(lines)


def _comment(lines: list[Line]) -> Comment | None:
    return Comment(lines[0].start, lines[-1].end, lines, None, False) if lines else None


def _behind_indent(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t":
        position += 1
    return position


def rows_of(text: str, comment: Comment) -> list[Row]:
    """The comment's rows."""
    return [_row(text, *line) for line in comment.lines]


def _row(text: str, start: int, end: int, text_start: int, text_end: int) -> Row:
    """The row between `start` and `end` whose words are looked for between `text_start` and `text_end`."""
    content_end = text_end
    while content_end > text_start and text[content_end - 1] in "\r\n":
        content_end -= 1
    lead = _LEADING_ORNAMENT.match(text, text_start, content_end)
    assert lead is not None
    left = lead.end()
    right = left + len(text[left:content_end].rstrip(_ORNAMENT))
    if not _WORD.search(text, left, right):
        right = left
    worded = text_start > start and _WORD.search(text, start, text_start) is not None
    mark = _MARKS.match(text, _behind_indent(text, start), content_end)
    return Row(start, end, left, right, mark[0] if mark else "", text_start, content_end, worded)
