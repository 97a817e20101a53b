"""Linear-time loops of the signals in `signals_unpublished`."""

import numpy as np
from numba import njit

from .kernels import RE_WORD, SPACE

_VOWELS = np.uint32(0x1104111)  # bits of a, e, i, o, u, y, counted from a


@njit(cache=True)
def consonant_chars(cp):
    """Characters of ASCII-letter words that hold seven or more consonants in a row."""
    total = 0
    length = 0
    run = 0
    worst = 0
    for i in range(cp.size):
        c = cp[i]
        if c >= 97 and c <= 122:
            length += 1
            if (_VOWELS >> (c - np.uint32(97))) & np.uint32(1):
                run = 0
            else:
                run += 1
                worst = max(worst, run)
        elif c >= 65 and c <= 90:  # a capital starts a new word of an identifier; constants in capitals abbreviate
            length += 1
            run = 0
        else:
            if worst >= 7:
                total += length
            length = 0
            run = 0
            worst = 0
    return total + length if worst >= 7 else total


_NUMERIC = np.zeros(128, np.bool_)
_NUMERIC[[ord(c) for c in "0123456789abcdefABCDEFxX \t\r+,-.;[]{}():"]] = True


@njit(cache=True)
def numeric_lines(cp):
    """Lines that hold a digit and else only digits, signs, separators, brackets, blanks and the letters of 0x and e."""
    total = 0
    n = cp.size
    i = 0
    while i < n:
        digits = False
        while i < n and cp[i] < 128 and _NUMERIC[cp[i]]:
            digits |= cp[i] >= 48 and cp[i] <= 57
            i += 1
        if digits and (i == n or cp[i] == 10):
            total += 1
        while i < n and cp[i] != 10:
            i += 1
        i += 1
    return total


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
