"""Linear-time searches used by the string, encoding and hexadecimal signals."""

import numpy as np
from numba import njit

from .kernels import SPACE, WORD
from .runs import next_run

_BASE64 = np.zeros(128, np.bool_)
_BASE64[[ord(c) for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="]] = True
_FULL_LINE = 40


@njit(cache=True)
def base64_runs(cp, join_lines):
    """Runs of 64 or more base64 characters: (characters in all of them, longest).

    join_lines: newlines belong to a run (the released pattern); otherwise a run may span lines only where each full
    line is at least 40 characters of the alphabet and nothing else, as wrapped base64 is.
    """
    n = cp.size
    total = 0
    longest = 0
    i = 0
    while i < n:
        if not join_lines:  # what is shorter is not a run, and does not begin one
            i = next_run(cp, _BASE64, i, _FULL_LINE)[0]
        start = i
        line = 0
        while i < n:
            c = cp[i]
            if c < 128 and _BASE64[c]:
                line += 1
                i += 1
            elif c == 10 and (join_lines or line >= _FULL_LINE):
                line = 0
                i += 1
            else:
                break
        if i - start >= 64:
            total += i - start
            longest = max(longest, i - start)
        if i == start:
            i += 1
    return total, longest


@njit(cache=True)
def _hexadecimal(c):
    return (c >= 48 and c <= 57) or (c >= 97 and c <= 102) or (c >= 65 and c <= 70)


@njit(cache=True)
def _word(c):
    return (c >= 97 and c <= 122) or (c >= 65 and c <= 90) or (c >= 48 and c <= 57) or c == 95


_HEX_BYTES = np.zeros(128, np.bool_)
_HEX_BYTES[[ord(c) for c in "0123456789abcdefABCDEFx\\, \t\n\f\r"]] = True


@njit(cache=True)
def hex_byte_runs(cp):
    """Whether eight hexadecimal bytes may follow each other (`41 42`, `0x41,0x42`, `x\\x41\\x42`): necessary for the first
    pattern of `signals_code.cate_encoded_data`, and seldom met by what it does not match."""
    a, b = next_run(cp, _HEX_BYTES, 0, 23)
    while a < cp.size:
        if _hex_bytes_in(cp, a, b):
            return True
        a, b = next_run(cp, _HEX_BYTES, b, 23)
    return False


@njit(cache=True)
def _hex_bytes_in(cp, start, stop):
    """`hex_byte_runs` of a run of the characters that the pattern allows."""
    run = 0
    end = start  # of the word before
    i = start
    while i < stop:
        if not _word(cp[i]):
            i += 1
            continue
        begin = i
        while i < stop and _word(cp[i]):
            i += 1
        m = i - begin
        prefix = m == 2 or (m == 3 and cp[begin] == 120) or (m == 4 and cp[begin] == 48 and cp[begin + 1] == 120)
        if not prefix or not (_hexadecimal(cp[i - 1]) and _hexadecimal(cp[i - 2])):
            run = 0
        elif m == 3:
            run = run + 1 if begin - end == 1 and cp[end] == 92 else 1
        elif begin - end == 1 and cp[end] == 44:
            run += 1
        else:
            while end < begin and (cp[end] == 32 or (cp[end] >= 9 and cp[end] <= 13 and cp[end] != 11)):
                end += 1
            run = run + 1 if end == begin else 1
        if run >= 8:
            return True
        end = i
    return False


@njit(cache=True)
def concatenates(cp):
    """Whether a plus stands between two quotes, blanks apart."""
    n = cp.size
    for i in range(1, n - 1):
        if cp[i] != 43:
            continue
        a = i - 1
        while a > 0 and (cp[a] == 32 or cp[a] == 9 or cp[a] == 12 or cp[a] == 13):
            a -= 1
        if cp[a] != 34 and cp[a] != 39:
            continue
        b = i + 1
        while b < n - 1 and (cp[b] == 32 or cp[b] == 9 or cp[b] == 12 or cp[b] == 13):
            b += 1
        if cp[b] == 34 or cp[b] == 39:
            return True
    return False


@njit(cache=True)
def hex_words(cp, table):
    """Characters of words of the form 0x followed by hexadecimal digits."""
    n = cp.size
    total = 0
    for i in range(n - 2):
        if cp[i] == 48 and (cp[i + 1] == 120 or cp[i + 1] == 88) and (i == 0 or not table[cp[i - 1]] & WORD):
            j = i + 2
            while j < n and (
                (cp[j] >= 48 and cp[j] <= 57) or (cp[j] >= 97 and cp[j] <= 102) or (cp[j] >= 65 and cp[j] <= 70)
            ):
                j += 1
            if j > i + 2 and (j == n or not table[cp[j]] & WORD):
                total += j - i
    return total


@njit(cache=True)
def string_token_lines(cp, spans, table, limit):
    """Lines inside the spans int64[S, 2] that hold more than `limit` tokens (runs of word or of other characters)."""
    found = 0
    for s in range(spans.shape[0]):
        kind = 0
        w = 0
        for i in range(spans[s, 0], spans[s, 1] + 1):
            if i == spans[s, 1] or cp[i] == 10:
                if w > limit:
                    found += 1
                w = 0
                kind = 0
                continue
            k = table[cp[i]]
            now = 0 if k & SPACE else (1 if k & WORD else 2)
            if now != kind:
                if now:
                    w += 1
                kind = now
    return found


@njit(cache=True)
def long_word_chars(cp, spans, table, limit):
    """Characters of whitespace-separated words longer than `limit` inside the spans, those with a URL apart."""
    total = 0
    for s in range(spans.shape[0]):
        i = spans[s, 0]
        end = spans[s, 1]
        while i < end:
            while i < end and table[cp[i]] & SPACE:
                i += 1
            start = i
            url = False
            while i < end and not table[cp[i]] & SPACE:
                if cp[i] == 58 and i + 3 < end and cp[i + 1] == 47 and cp[i + 2] == 47 and i - start >= 4:  # ://
                    p = i - 2 if cp[i - 1] == 115 else i - 1
                    if (
                        p - 3 >= start and cp[p] == 112 and cp[p - 1] == 116 and cp[p - 2] == 116 and cp[p - 3] == 104
                    ) and not table[cp[i + 3]] & SPACE:
                        url = True
                i += 1
            if i - start > limit and not url:
                total += i - start
    return total


@njit(cache=True)
def quoted(cp, across_lines):
    """Spans int64[S, 2] between quotes as the released filter's pattern finds them: three single quotes, three double
    quotes, one single, one double, without escapes; single-character quotes span lines only with `across_lines`.
    Empty pairs of quotes are consumed and yield nothing."""
    n = cp.size
    out = np.empty((n // 2 + 1, 2), np.int64)
    # position of the next closing quote, found from behind: triple and single, for ' and "
    k = 0
    i = 0
    # none_after[q]: no closing quote of that kind exists beyond this position
    lost = np.full(4, n + 1, np.int64)
    while i < n:
        c = cp[i]
        if c != 39 and c != 34:
            i += 1
            continue
        base = 0 if c == 39 else 2
        if i + 2 < n and cp[i + 1] == c and cp[i + 2] == c and i < lost[base]:
            j = i + 3
            while j + 2 < n and not (cp[j] == c and cp[j + 1] == c and cp[j + 2] == c):
                j += 1
            if j + 2 < n:
                if j > i + 3:
                    out[k, 0] = i + 3
                    out[k, 1] = j
                    k += 1
                i = j + 3
                continue
            lost[base] = min(lost[base], i)
        if i < lost[base + 1]:
            j = i + 1
            while j < n and cp[j] != c and (across_lines or cp[j] != 10):
                j += 1
            if j < n and cp[j] == c:
                if j > i + 1:
                    out[k, 0] = i + 1
                    out[k, 1] = j
                    k += 1
                i = j + 1
                continue
            if j >= n:
                lost[base + 1] = min(lost[base + 1], i)
        i += 1
    return out[:k].copy()
