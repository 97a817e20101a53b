"""Search for a few fixed texts at once, capitals as small letters: how many lines hold one, by group of texts.

Horspool's search for a set of texts: the character at a window's end tells how far the window may move on, mostly several
characters. Only ASCII characters fold. The small forms of U+0130 (an i and a combining dot) and U+212A (a k) hold ASCII
letters too; no text of ours holds a k, or an i before a combining dot.
"""

from typing import NamedTuple

import numpy as np
from numba import njit


class Needles(NamedTuple):
    """texts int64[K, 2 + length]: group, length and characters of each. shift int64[128]: how far a window may move on
    that ends in a character, in either case; 0: a text may be there. window: length of the shortest text."""

    texts: np.ndarray
    shift: np.ndarray
    window: int


def needles(*groups: tuple[str, ...]) -> Needles:
    """Tables of the search for texts in small letters, by group."""
    rows = [(g, text) for g, texts in enumerate(groups) for text in texts]
    window = min(len(text) for _, text in rows)
    table = np.zeros((len(rows), 2 + max(len(text) for _, text in rows)), np.int64)
    shift = np.full(128, window, np.int64)
    for row, (group, text) in zip(table, rows, strict=True):
        row[:2] = group, len(text)
        row[2 : 2 + len(text)] = [ord(c) for c in text]
        for at, c in enumerate(text[:window]):
            for form in {c, c.upper()}:
                shift[ord(form)] = min(shift[ord(form)], window - 1 - at)
    return Needles(table, shift, window)


@njit(cache=True)
def _at(cp, start, row):
    if start + row[1] > cp.size:
        return False
    for j in range(row[1]):
        c = np.int64(cp[start + j])
        if c >= 65 and c <= 90:
            c += 32
        if c != row[2 + j]:
            return False
    return True


@njit(cache=True)
def lines_with(cp, texts, shift, window, groups):
    """int64[groups]: lines of `cp` that hold a text of each group; the other arguments are those of `Needles`."""
    out = np.zeros(groups, np.int64)
    known = np.zeros(groups, np.int64)  # end of the last line that counts
    n = cp.size
    i = window - 1
    while i < n:
        c = cp[i]
        step = shift[c] if c < 128 else window
        if step:
            i += step
            continue
        start = i - window + 1
        for k in range(texts.shape[0]):
            group = texts[k, 0]
            if start >= known[group] and _at(cp, start, texts[k]):
                end = start
                while end < n and cp[end] != 10:
                    end += 1
                known[group] = end
                out[group] += 1
        i += 1
    return out
