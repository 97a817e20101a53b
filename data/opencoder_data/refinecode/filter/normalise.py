"""Normalised words of a text beyond ASCII: NFKC, small letters, punctuation as blanks.

Most characters become one other whatever is beside them. Those are replaced by a table, filled as characters are met;
a text with any other (combining marks, ligatures, a sigma) is normalised run by run, as the published steps say.
"""

import re
import string
import unicodedata
from functools import cache, lru_cache

import numpy as np
from numba import njit

CONTROL = [*range(8), *range(0x0E, 0x1B), *range(0x1C, 0x20)]
_FULL_TO_HALF = {chr(ord(c) + 0xFEE0): c for c in string.punctuation} | dict(
    zip("。、《》【】「」“”￥‘’", ".,\"\"[]''\"\"¥''", strict=True)
)
_UNKNOWN, _DEPENDS = 0xFFFFFFFF, 0xFFFFFFFE  # entries of the table: not met yet; not one character, or not alone


@cache
def _normalise_map() -> dict[int, str]:
    table = dict.fromkeys(CONTROL, "") | {0x2009: " ", 0x200B: " ", 0x202C: ""}
    table |= {ord(c): " " for c in string.punctuation}
    table |= {ord(full): " " if half in string.punctuation else half for full, half in _FULL_TO_HALF.items()}
    return table


@cache
def _beyond_ascii():
    return re.compile(r"[\x00-\x7f]?[^\x00-\x7f]+")


def _fold(match: re.Match) -> str:
    return _folded(match.group())


@lru_cache(65536)
def _folded(run: str) -> str:
    """Normalised form of a run of characters beyond ASCII and the one before it (a base that may compose with it).

    Punctuation that NFKC makes (an ellipsis becomes three dots) is a word of its own, unlike punctuation of the text;
    it is moved to the private-use area, where the word splitter sees a visible character.
    """
    text = unicodedata.normalize("NFKC", run.translate(_normalise_map()))
    return text.translate(_private()) if not text.isalnum() else text


@cache
def _private() -> dict[int, int]:
    return {ord(c): 0xE000 + ord(c) for c in string.punctuation}


def by_runs(text: str) -> str:
    """Normalised text; ASCII characters keep their case where the text has it."""
    # Lower case first: a capital that NFKC makes stays one. A sigma's form depends on the neighbours, marks removed.
    lower = text.translate(_normalise_map()).lower() if "Σ" in text else text.lower()
    return _beyond_ascii().sub(_fold, lower)


@cache
def _table() -> np.ndarray:
    """uint32[0x110000]: what each code point becomes, or `_UNKNOWN`, or `_DEPENDS`. ASCII becomes lower case."""
    table = np.full(0x110000, _UNKNOWN, np.uint32)
    table[:128] = [ord(chr(c).lower()) for c in range(128)]
    return table


@cache
def _seconds() -> frozenset[int]:
    """Code points that may join the one before them in NFC."""
    found = {*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)}  # vowels and finals of Hangul
    for code in range(0xC0, 0x20000):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and parts[0][0] != "<":
            found.add(int(parts[1], 16))
    return frozenset(found)


def _alone(code: int) -> int:
    """Entry of the table for a code point beyond ASCII."""
    c = chr(code)
    lower = c.lower()
    first = unicodedata.normalize("NFKD", lower)[:1]
    folded = _folded(lower)
    if c == "Σ" or len(lower) != 1 or len(folded) != 1 or "A" <= folded <= "Z":
        return _DEPENDS
    if any(unicodedata.combining(x) or ord(x) in _seconds() for x in (lower, first, folded)):
        return _DEPENDS
    return ord(folded)


@njit(cache=True)
def _replace(cp, table):
    """(text after the table, code points not met yet; a text with one that depends on others comes back empty)."""
    n = cp.size
    out = np.empty(n, np.uint32)
    unknown = np.empty(64, np.uint32)
    num = 0
    for i in range(n):
        c = table[cp[i]]
        out[i] = c
        if c >= _DEPENDS:
            if c == _DEPENDS:
                return out[:0], unknown[:0]
            unknown[num] = cp[i]
            num += 1
            if num == unknown.size:
                break
    return out, unknown[:num]


def by_table(cp: np.ndarray) -> np.ndarray | None:
    """`by_runs` of code points, ASCII letters in lower case, as code points; None where the table does not do."""
    table = _table()
    while True:
        out, unknown = _replace(cp, table)
        if not unknown.size:
            return out if out.size == cp.size else None
        for code in set(unknown.tolist()):
            table[code] = _alone(code)
