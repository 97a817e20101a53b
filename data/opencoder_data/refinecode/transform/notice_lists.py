"""List marks of a notice's clauses: `1.`, `(a)`, `iv)` go with what they number, and so do the clauses between.

A mark stays where what it numbers stays.
"""

import re
from typing import NamedTuple

from opencoder_data.refinecode.transform.leading_comments import Row

_MARK = re.compile(
    r"""(?P<open>[(\[{§#]?)\s?(?:(?P<prefix>\d{1,2}\.)?(?P<number>\d{1,2})|(?P<roman>[ivx]{1,5}|[IVX]{1,5})|(?P<letter>[A-Za-z]))
        (?P<close>[.):\]}]{1,2}|\s?[-\u2013](?=\s|$)|(?=\s|$))(?:\s+|$)""",
    re.VERBOSE,
)
_BULLET = re.compile(r"[o\u2022\u25e6\u25aa\u00b7](?:\s+|$)")
_ROMAN = {"i": 1, "v": 5, "x": 10}


class Part(NamedTuple):
    """Some of a row's words: from `left` to `right` in the text."""

    row: int
    left: int
    right: int


class _Item(NamedTuple):
    """A list mark: how it is written, the numbers it may mean (`i` is 1 or 9), and where it ends."""

    form: tuple[str, str, str]
    numbers: frozenset[int]
    end: int


def with_marks(text: str, rows: list[Row], machine: list[bool], parts: list[Part]) -> list[Part]:
    """The parts, with the marks of clauses that go and the clauses whose numbers go on from these."""
    parts = sorted(parts)
    by_row = {part.row: part for part in reversed(parts)}  # the first of each row
    last: tuple[_Item, int] | None = None  # the clause that goes, and its column
    point: tuple[str, int] | None = None  # the bullet of the clause that goes, and its column
    for i, row in enumerate(rows):
        if machine[i]:
            last = point = None
        if row.left == row.right or machine[i]:
            continue
        item, first, column = _item(text, row), by_row.get(i), row.left - row.start
        bullet = _BULLET.match(text, row.left, row.right)
        sign = _sign(text, row)
        if first is not None:
            point = (sign, column) if sign and first.left == row.left else point
            if item is not None:
                last = (item, column)
                if first.left == item.end:
                    parts.append(Part(i, row.left, item.end))
            elif bullet is not None and first.left == bullet.end():
                parts.append(Part(i, row.left, first.left))
        elif item is not None and _goes_on(item, last):
            last = (item, column)
            parts += _clause(text, rows, machine, by_row, i)
        elif (
            item is not None and item.end == row.right and not _copyright(text, row) and _goes(rows, by_row, i + 1)
        ) or (bullet is not None and bullet.end() == row.right and _goes(rows, by_row, i + 1)):
            last = (item, column) if item is not None else last
            parts.append(Part(i, row.left, row.right))
        elif (
            point is not None
            and point == (sign, column)
            and _goes_after(rows, by_row, clause := _clause(text, rows, machine, by_row, i))
        ):
            parts += clause
        elif last is not None and column <= last[1]:
            last = None
    return _joined(text, parts)


def _item(text: str, row: Row) -> _Item | None:
    match = _MARK.match(text, row.left, row.right)
    if match is None or (
        not match["close"]
        and not match["open"]
        and not match["prefix"]
        and (match["number"] is None or match.end() < row.right)
    ):
        return None
    if match["number"]:
        numbers = frozenset((int(match["number"]),))
    elif match["roman"]:
        numbers = frozenset((_roman(match["roman"].lower()), ord(match["roman"][0].lower()) - 96))
    else:
        numbers = frozenset((ord(match["letter"].lower()) - 96,))
    return _Item((match["open"], match["prefix"] or "", match["close"].strip()), numbers, match.end())


def _copyright(text: str, row: Row) -> bool:
    """`(c)` without a `(b)` before it is the sign."""
    return text[row.left : row.right].lower() == "(c)"


def _roman(text: str) -> int:
    values = [_ROMAN[c] for c in text]
    return sum(-v if v < max(values[i:]) else v for i, v in enumerate(values))


def _goes_on(item: _Item, last: tuple[_Item, int] | None) -> bool:
    return last is not None and item.form == last[0].form and any(n - 1 in last[0].numbers for n in item.numbers)


def _goes(rows: list[Row], by_row: dict[int, Part], index: int) -> bool:
    """Whether the words of a row go from their beginning."""
    return index < len(rows) and index in by_row and by_row[index].left == rows[index].left


def _goes_after(rows: list[Row], by_row: dict[int, Part], clause: list[Part]) -> bool:
    """Whether the words behind a clause go: it is then in the midst of a notice."""
    following = (i for i in range(clause[-1].row + 1, len(rows)) if rows[i].left < rows[i].right)
    return _goes(rows, by_row, next(following, len(rows)))


def _sign(text: str, row: Row) -> str:
    """The bullet before a row's words, beside the comment's own mark; empty where there is none."""
    before = text[row.text_start : row.left].strip()
    if before[-1:] not in ("*", "-", "+", "\u2022") or not (before[-1:] != "*" or " " in before or "\t" in before):
        return ""
    return before[-1]


def _clause(text: str, rows: list[Row], machine: list[bool], by_row: dict[int, Part], index: int) -> list[Part]:
    """The rows of the clause that begins at `index`: what is indented deeper than its mark, up to the next mark."""
    column = rows[index].left - rows[index].start
    out = [Part(index, rows[index].left, rows[index].right)]
    for i in range(index + 1, len(rows)):
        row = rows[i]
        deeper = row.left - row.start > column
        if row.left == row.right or machine[i] or i in by_row or not deeper or _item(text, row) is not None:
            break
        out.append(Part(i, row.left, row.right))
    return out


def _joined(text: str, parts: list[Part]) -> list[Part]:
    """The parts in order, each row's neighbors made one."""
    out: list[Part] = []
    for part in sorted(set(parts)):
        if out and out[-1].row == part.row and not text[out[-1].right : part.left].strip():
            out[-1] = Part(part.row, out[-1].left, max(out[-1].right, part.right))
        else:
            out.append(part)
    return out
