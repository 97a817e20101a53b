"""Copyright and licence notices, removed from the comments that open a file.

More than 15 % of code files open with one (paper, appendix); repeated a million times they teach nothing. Only comments
before the first code are looked at (`leading_comments`); of these only the sentences that are a notice go (`notice_text`),
and the whole comment when nothing else is in it. What a program reads, descriptions and doc-strings stay. What is cut lies
inside comments, checked by a parser where there is one (`parse_check`); where in doubt the file stays as it is.
"""

import re
from itertools import groupby, pairwise

from opencoder_data.refinecode.transform.comment_syntax import CommentSyntax, comment_syntax
from opencoder_data.refinecode.transform.leading_comments import HEAD, Comment, Row, leading_comments, rows_of
from opencoder_data.refinecode.transform.notice_lists import Part
from opencoder_data.refinecode.transform.notice_patterns import MARKER
from opencoder_data.refinecode.transform.notice_text import machine_rows, notice_parts, read_as_a_whole
from opencoder_data.refinecode.transform.parse_check import is_in_comments

Span = tuple[int, int]

_BLANK_LINES = re.compile(r"(?:[ \t]*(?:\r*\n|\r(?!\n)))*")
# What counts only on a file's first lines would begin to count when the lines before it go.
_POSITIONAL = {
    "python": re.compile(
        r"(?:[^\n\r]*[\n\r]+)?[ \t\f]*#[^\n\r]*?coding[:=](?![ \t]*(?:utf_?-?8|latin|iso|(?:us-)?ascii|cp\d|windows|koi8|gb|big5|euc|s|mac))"
    ),
    "dockerfile": re.compile(r"(?:#[ \t]*\w+[ \t]*=[^\n\r]*[\n\r]+)*#[ \t]*(syntax|escape|check)[ \t]*=", re.I),
    "emacs lisp": re.compile(r";[^\n\r]*-\*-[^\n\r]*lexical-binding"),
    "tex": re.compile(r"%&"),
    "markdown": re.compile(r"(---|\+\+\+)[ \t]*[\r\n]"),
}
_BORDER = " \t\r\n*#/;%!\"'~=+-|<>{}"
_LONE_BULLET = re.compile(
    r"[ \t]*(?:(?:[*#;%!]+|//+|--)[ \t]+[-+*\u2022\u25e6\u25aa]{1,2}|[-+\u2022\u25e6\u25aa]{1,2})[ \t]*$"
)
_PASSES = 8


def remove_header(text: str, language: str | None) -> str:
    """The text without notices in its leading comments; unchanged for languages without known comments."""
    syntax = comment_syntax(language)
    if syntax is None:
        return text
    original = text
    # What goes may bring two comments together; further looks make the function idempotent.
    for _ in range(_PASSES):
        cuts, end = notice_spans(text, syntax)
        if not cuts or not is_in_comments(text, cuts, end, language or ""):
            return text
        shorter = without(text, cuts)
        positional = _POSITIONAL.get(language or "")
        if positional is not None and positional.match(shorter) and not positional.match(text):
            return text
        text = shorter
    return original


def notice_spans(text: str, syntax: CommentSyntax) -> tuple[list[Span], int]:
    """(where the notices are, the end of the last comment that holds one).

    The spans are disjoint and in order: whole comments with the blank lines after them, or parts of one.
    """
    cuts: list[Span] = []
    end = 0
    for comment in leading_comments(text, syntax):
        if MARKER.search(text[comment.start : comment.end]):
            found = _cuts(text, comment, rows_of(text, comment), syntax.blank_lines_count)
            if found:
                cuts += found
                end = max(comment.end, found[-1][1])
    return cuts, end


def without(text: str, cuts: list[Span]) -> str:
    """The text without the spans."""
    kept, position = [], 0
    for start, end in cuts:
        kept.append(text[position:start])
        position = end
    return "".join(kept) + text[position:]


def _cuts(text: str, comment: Comment, rows: list[Row], blank_lines_count: bool) -> list[Span]:
    if comment.block is not None and read_as_a_whole(text[rows[0].text_start : rows[-1].text_end][:HEAD]):
        return []
    machine = machine_rows(text, rows)
    parts = notice_parts(text, rows, machine)
    if not parts:
        return []
    by_row = {row: list(group) for row, group in groupby(sorted(parts), key=lambda part: part.row)}
    gone = [i in by_row and _covers(text, rows[i], by_row[i]) for i in range(len(rows))]
    if comment.block is None:
        cuts: list[Span] = []
        for begin, end in _runs(machine):
            if _nothing_left(text, rows[begin:end], gone[begin:end]):
                # A line such as `// +build` needs the empty line behind it.
                before = text[rows[0].start : rows[begin].start]
                stay = blank_lines_count or end < len(rows) or (begin > 0 and "coding" not in before)
                cuts.append(_whole(text, rows[begin].start, rows[end - 1].end, stay))
            else:
                cuts += _partly(text, rows, False, range(begin, end), by_row, gone)
        return cuts
    if not any(machine) and _nothing_left(text, rows, gone):
        return [_whole(text, comment.start, comment.end, blank_lines_count)]
    return [] if comment.knotted else _partly(text, rows, True, range(len(rows)), by_row, gone)


def _runs(machine: list[bool]) -> list[tuple[int, int]]:
    """Ranges of rows between those that a program reads."""
    bounds = [-1, *(i for i, yes in enumerate(machine) if yes), len(machine)]
    return [(a + 1, b) for a, b in pairwise(bounds) if a + 1 < b]


def _whole(text: str, start: int, end: int, blank_lines_stay: bool) -> Span:
    """A comment from `start` to `end` with the blank lines after it, or with the blanks before it on a line it shares."""
    if text[end - 1] not in "\n\r":
        while start and text[start - 1] in " \t":
            start -= 1
    elif not blank_lines_stay:
        blank = _BLANK_LINES.match(text, end)
        assert blank is not None
        if not text.startswith("=", blank.end()):  # POD begins a paragraph
            end = blank.end()
    return start, end


def _covers(text: str, row: Row, parts: list[Part]) -> bool:
    """Whether the parts are all of the row's words."""
    left = row.left
    for part in parts:
        if text[left : part.left].strip():
            return False
        left = part.right
    return not text[left : row.right].strip()


def _nothing_left(text: str, rows: list[Row], gone: list[bool]) -> bool:
    """Whether only ornament is left: no words behind the notice, and before it at most a banner drawn with punctuation."""
    if not any(gone):
        return False
    last = len(gone) - 1 - gone[::-1].index(True)
    if any(row.left < row.right for row in rows[last + 1 :]):
        return False
    left = "".join(text[r.text_start : r.text_end].strip(_BORDER) for r, yes in zip(rows, gone, strict=True) if not yes)
    return sum(map(str.isalnum, left)) <= 0.3 * sum(not c.isspace() for c in left)


def _partly(
    text: str, rows: list[Row], block: bool, indices: range, by_row: dict[int, list[Part]], gone: list[bool]
) -> list[Span]:
    """Cuts that leave the comment's delimiters and its other words, and one empty row for two around what went."""
    cuts: list[Span] = []
    previous_empty = True  # the last row that stays has no words
    after_cut = False
    ended = _end_of_words(text, rows, block, indices, gone)
    for i in indices:
        row = rows[i]
        opens = block and i == 0
        closes = block and i == len(rows) - 1
        empty = row.left == row.right and not (opens or closes)
        if gone[i]:
            if opens or closes:
                cuts.append(_inside(text, row, opens, closes))
            else:
                cuts.append((row.start, row.end))
            after_cut = True
        elif i in by_row:
            if "\n" not in text[row.left : row.right]:
                cuts += _pieces(text, row, by_row[i])
            previous_empty = after_cut = False
        elif empty and (
            i >= ended or (i + 1 < len(rows) and gone[i + 1] and _LONE_BULLET.match(text, row.start, row.text_end))
        ):
            cuts.append((row.start, row.end))
        elif empty and not text[row.text_start : row.text_end].strip(" \t\r\n\f*#/;%!-|\"'"):
            if after_cut and previous_empty and (_blank(text, row) or _ruled(text, rows, i, gone)):
                cuts.append((row.start, row.end))
            previous_empty = True
        else:
            previous_empty, after_cut = opens and row.left == row.right, False
    return cuts


def _blank(text: str, row: Row) -> bool:
    """Whether a row has no words and is not a rule drawn across the comment."""
    return row.left == row.right and len(text[row.start : row.text_end].strip()) <= 3


def _ruled(text: str, rows: list[Row], index: int, gone: list[bool]) -> bool:
    """Whether the last row that stays before this one is a rule like it: between the two all is gone."""
    before = next((i for i in range(index - 1, -1, -1) if not gone[i] and not _blank(text, rows[i])), None)
    return before is not None and rows[before].left == rows[before].right


def _end_of_words(text: str, rows: list[Row], block: bool, indices: range, gone: list[bool]) -> int:
    """The first of the empty rows that end a comment whose last words are gone; behind the last row where there is none."""
    end = indices.stop - (1 if block and rows[indices.stop - 1].left == rows[indices.stop - 1].right else 0)
    first = end
    while first > indices.start and (gone[first - 1] or _blank(text, rows[first - 1])):
        first -= 1
    return first if any(gone[first:end]) else indices.stop


def _inside(text: str, row: Row, opens: bool, closes: bool) -> Span:
    """All of a delimiter's row that may go: its words, with the blanks before them, and with a continuation's mark."""
    start = row.left
    if opens:
        while start > row.text_start and text[start - 1] in " \t":
            start -= 1
    else:
        start = row.start + len(text[row.start : row.left]) - len(text[row.start : row.left].lstrip(" \t"))
        start = max(start, row.text_start)
    end = row.right
    if closes and not opens:
        while end < row.text_end and text[end] in " \t.":
            end += 1
    return start, end


def _pieces(text: str, row: Row, parts: list[Part]) -> list[Span]:
    """Sentences of a row that others share: with the blanks behind them, or before them at the row's end."""
    cuts: list[Span] = []
    for part in parts:
        start, end = part.left, part.right
        while end < row.right and text[end] in " \t":
            end += 1
        if end == row.right:
            while start > row.left and text[start - 1] in " \t":
                start -= 1
        if cuts and cuts[-1][1] >= start:
            start = cuts.pop()[0]
        cuts.append((start, end))
    return cuts
