"""Linear-time loops of the signals in `signals_unpublished`."""

import numpy as np
from numba import njit


@njit(cache=True)
def consonant_chars(cp):
    """Characters of ASCII-letter words that hold seven or more consonants in a row."""
    vowels = np.zeros(128, np.uint8)
    for c in (97, 101, 105, 111, 117, 121, 65, 69, 73, 79, 85, 89):
        vowels[c] = 1
    total = 0
    length = 0
    run = 0
    worst = 0
    for i in range(cp.size + 1):
        c = cp[i] if i < cp.size else np.uint32(32)
        lower = c >= 97 and c <= 122
        upper = c >= 65 and c <= 90
        if lower or upper:
            length += 1
            if vowels[c] or upper:  # a capital starts a new word of an identifier; constants in capitals abbreviate
                run = 0
            else:
                run += 1
                worst = max(worst, run)
        else:
            if worst >= 7:
                total += length
            length = 0
            run = 0
            worst = 0
    return total


@njit(cache=True)
def numeric_lines(cp):
    """Lines that hold a digit and else only digits, signs, separators, brackets, blanks and the letters of 0x and e."""
    total = 0
    digits = 0
    other = False
    n = cp.size
    for i in range(n + 1):
        if i == n or cp[i] == 10:
            if digits and not other:
                total += 1
            digits = 0
            other = False
            continue
        c = cp[i]
        if c >= 48 and c <= 57:
            digits += 1
        elif (c >= 97 and c <= 102) or (c >= 65 and c <= 70) or c == 120 or c == 88:
            pass
        elif not (
            c == 32 or c == 9 or c == 13 or c == 43 or c == 44 or c == 45 or c == 46 or c == 59 or c == 91 or c == 93
            or c == 123 or c == 125 or c == 40 or c == 41 or c == 58
        ):  # fmt: skip
            other = True
    return total


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
