"""The visible text of HTML, in one pass over code points.

What is not text, leftmost first, as the pattern `signals_html.MARKUP` says: comments, scripts and style sheets with all
between their tags, declarations, tags. Quotes in a tag hide `>`. NUL is a blank.
"""

import numpy as np
from numba import njit

from .kernels import SPACE

_SCRIPT = np.array([ord(c) for c in "script"], np.uint32)
_STYLE = np.array([ord(c) for c in "style"], np.uint32)


@njit(cache=True)
def _blank(c):
    return c == 32 or c == 9 or c == 10 or c == 12 or c == 13 or c == 0


@njit(cache=True)
def _named(cp, i, name):
    """Whether `name` is at i, in either case."""
    if i + name.size > cp.size:
        return False
    for j in range(name.size):  # noqa: SIM110  numba knows no `all`
        if cp[i + j] != name[j] and cp[i + j] != name[j] - 32:
            return False
    return True


@njit(cache=True)
def _tag_end(cp, i):
    """(position behind the first `>` from i that no quotes hide, position up to which was looked); -1: there is none."""
    n = cp.size
    while i < n:
        c = cp[i]
        i += 1
        if c == 62:
            return i, i
        if c == 34 or c == 39:
            while i < n and cp[i] != c:
                i += 1
            if i == n:
                break
            i += 1
    return -1, n


@njit(cache=True)
def _close(cp, i, name):
    """Position behind the first end tag of that name from i; -1: there is none."""
    n = cp.size
    while i + 2 < n:
        if cp[i] == 60 and cp[i + 1] == 47 and _named(cp, i + 2, name):
            j = i + 2 + name.size
            while j < n and _blank(cp[j]):
                j += 1
            if j < n and cp[j] == 62:
                return j + 1
        i += 1
    return -1


@njit(cache=True)
def _element(cp, i, name):
    """Whether a start tag of that name begins at the `<` at i."""
    end = i + 1 + name.size
    if end >= cp.size or not _named(cp, i + 1, name):
        return False
    c = cp[end]
    return not ((c >= 97 and c <= 122) or (c >= 65 and c <= 90) or (c >= 48 and c <= 57) or c == 95)


@njit(cache=True)
def _after(cp, i, missing):
    """(position behind the mark-up that begins with the `<` at i or -1, position up to which was looked in vain).

    missing bool[2]: no end tag of a script or a style sheet follows any more."""
    n = cp.size
    if i + 1 >= n:
        return -1, i
    c = cp[i + 1]
    if c == 33 and i + 3 < n and cp[i + 2] == 45 and cp[i + 3] == 45:
        j = i + 4
        while j + 2 < n and not (cp[j] == 45 and cp[j + 1] == 45 and cp[j + 2] == 62):
            j += 1
        return (j + 3 if j + 2 < n else n), i
    if c == 33 or c == 63:
        j = i + 2
        while j < n and cp[j] != 62:
            j += 1
        return (j + 1, i) if j < n else (-1, n)
    first = c
    if c == 47:
        if i + 2 >= n:
            return -1, i
        first = cp[i + 2]
    if not ((first >= 97 and first <= 122) or (first >= 65 and first <= 90)):
        return -1, i
    end, looked = _tag_end(cp, i + (2 if c == 47 else 1) + 1)
    if end < 0 or c == 47:
        return end, looked if end < 0 else i
    for k in range(2):
        name = _SCRIPT if k == 0 else _STYLE
        if not missing[k] and _element(cp, i, name):
            close = _close(cp, end, name)
            if close >= 0:
                return close, i
            missing[k] = True
    return end, i


@njit(cache=True)
def visible(cp, classes):
    """(characters of the text between mark-up, spans int64[S, 2] of the pieces of it with an `&`, which are not counted);
    a piece of blanks counts as one character. (-1, nothing) for a text that makes the search quadratic."""
    n = cp.size
    spans = np.empty((16, 2), np.int64)
    num = total = vain = start = i = 0
    missing = np.zeros(2, np.bool_)
    while True:
        end = -1
        if i < n:
            if cp[i] != 60:
                i += 1
                continue
            end, looked = _after(cp, i, missing)
            vain += looked - i
            if vain > 4 * n + 10_000:
                return -1, spans[:0]
            if end < 0:
                i += 1
                continue
        blank = True
        entity = False
        for j in range(start, i):
            blank = blank and (classes[cp[j]] & SPACE or cp[j] == 0)
            entity = entity or cp[j] == 38
        if entity:
            if num == spans.shape[0]:
                wider = np.empty((2 * num, 2), np.int64)
                wider[:num] = spans
                spans = wider
            spans[num, 0], spans[num, 1] = start, i
            num += 1
        elif blank:
            total += i > start
        else:
            total += i - start
        if i >= n:
            return total, spans[:num]
        start = i = end
