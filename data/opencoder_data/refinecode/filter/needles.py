"""Search for a few fixed texts at once, capitals as small letters: which lines hold one, and of which group.

Each text is looked for at its rarest character. Only ASCII characters fold: no other character's small form is part of a
match, for that of U+0130, the one that begins with an ASCII letter, goes on with a combining dot.
"""

import numpy as np
from numba import njit

_RARE_FIRST = "!(<>@#zqxjkvbpygfwmucldhrsnioate "


def table(*groups: tuple[str, ...]) -> np.ndarray:
    """int64[texts, 3 + length]: group, position of the rarest character, length and characters of each text."""
    rows = [(g, text) for g, texts in enumerate(groups) for text in texts]
    out = np.zeros((len(rows), 3 + max(len(text) for _, text in rows)), np.int64)
    for row, (group, text) in zip(out, rows, strict=True):
        row[:3] = group, text.index(min(text, key=_RARE_FIRST.index)), len(text)
        row[3 : 3 + len(text)] = [ord(c) for c in text]
    return out


def hot(needles: np.ndarray) -> np.ndarray:
    """bool[128]: the rarest characters of the texts in either case, and the newline."""
    out = np.zeros(128, np.bool_)
    out[10] = True
    for row in needles:
        out[ord(chr(row[3 + row[1]]).upper())] = out[row[3 + row[1]]] = True
    return out


@njit(cache=True)
def _at(cp, start, row):
    if start < 0 or start + row[2] > cp.size:
        return False
    for j in range(row[2]):
        c = np.int64(cp[start + j])
        if c >= 65 and c <= 90:
            c += 32
        if c != row[3 + j]:
            return False
    return True


@njit(cache=True)
def lines_with(cp, needles, first, groups):
    """int64[groups]: lines of `cp` that hold a text of each group. first: `hot(needles)`."""
    out = np.zeros(groups, np.int64)
    seen = 0
    for i in range(cp.size):
        c = np.int64(cp[i])
        if c >= 128 or not first[c]:
            continue
        if c == 10:
            seen = 0
            continue
        if c >= 65 and c <= 90:
            c += 32
        for k in range(needles.shape[0]):
            row = needles[k]
            bit = 1 << row[0]
            if row[3 + row[1]] == c and not seen & bit and _at(cp, i - row[1], row):
                seen |= bit
                out[row[0]] += 1
    return out
