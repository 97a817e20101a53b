"""Linear-time loops of the signals in `signals_unpublished`."""

import numpy as np
from numba import njit

from .kernels import RE_WORD, SPACE
from .runs import next_run

_CONSONANTS = np.zeros(128, np.bool_)
_CONSONANTS[[ord(c) for c in "bcdfghjklmnpqrstvwxz"]] = True
_MANY = 7


@njit(cache=True)
def _letter(c):
    return (c >= 97 and c <= 122) or (c >= 65 and c <= 90)


@njit(cache=True)
def consonant_chars(cp):
    """Characters of ASCII-letter words that hold seven or more consonants in a row. A capital starts a new word of an
    identifier, and constants in capitals abbreviate: only small letters count."""
    total = 0
    n = cp.size
    a, b = next_run(cp, _CONSONANTS, 0, _MANY)
    while a < n:
        start = a
        while start > 0 and _letter(cp[start - 1]):
            start -= 1
        while b < n and _letter(cp[b]):
            b += 1
        total += b - start
        a, b = next_run(cp, _CONSONANTS, b, _MANY)
    return total


_NUMERIC = np.zeros(128, np.bool_)
_NUMERIC[[ord(c) for c in "0123456789abcdefABCDEFxX \t\r+,-.;[]{}():"]] = True


@njit(cache=True)
def line_measures(cp):
    """(lines, characters of the longest with its newline, lines that hold a digit and else only digits, signs, separators,
    brackets, blanks and the letters of 0x and e)."""
    lines = longest = numeric = 0
    n = cp.size
    i = 0
    while i < n:
        start = i
        digits = False
        while i < n and cp[i] < 128 and _NUMERIC[cp[i]]:
            digits |= cp[i] >= 48 and cp[i] <= 57
            i += 1
        if digits and (i == n or cp[i] == 10):
            numeric += 1
        while i < n and cp[i] != 10:
            i += 1
        i += 1
        lines += 1
        longest = max(longest, min(i, n) - start)
    return lines, longest, numeric


_KEYWORDS = np.array(
    [
        int.from_bytes(word.encode(), "big")
        for word in ("if", "for", "while", "return", "import", "def", "function", "var", "let", "const")
    ],
    np.uint64,
)


@njit(cache=True)
def commented_code(cp, classes):
    """(lines that are not blank, those of them that read as code) of comments; none where no `;`, `(` or `{` stands.

    A line reads as code when it ends in `;`, `{` or `}`, or when its first word is a keyword with `(`, `=` or `:` somewhere
    behind it.
    """
    lines = 0
    found = 0
    marks = False
    n = cp.size
    i = 0
    while i < n:
        last = np.uint32(0)  # visible character
        blank = True
        word = np.uint64(0)
        letters = 0
        first = True  # no word has ended yet
        keyword = False
        reads = False
        while i < n and cp[i] != 10:
            c = cp[i]
            k = classes[c]
            if not k & SPACE:
                blank = False
                last = c
            if first and k & RE_WORD:
                word = (word << np.uint64(8)) | np.uint64(c) if c < 128 else np.uint64(0xFF)
                letters += 1
            elif first and letters:
                first = False
                keyword = letters <= 8 and np.any(word == _KEYWORDS)
            if keyword and (c == 40 or c == 61 or c == 58):
                reads = True
            marks |= c == 59 or c == 40 or c == 123
            i += 1
        i += 1
        if not blank:
            lines += 1
            if reads or last == 59 or last == 123 or last == 125:
                found += 1
    return lines, found if marks else 0


@njit(cache=True)
def long_runs(cp, limit):
    """Characters in runs of at least `limit` equal characters, blanks and newlines apart."""
    total = 0
    start = 0
    for i in range(1, cp.size + 1):
        if i == cp.size or cp[i] != cp[start]:
            if i - start >= limit and cp[start] != 32 and cp[start] != 10 and cp[start] != 9:
                total += i - start
            start = i
    return total
