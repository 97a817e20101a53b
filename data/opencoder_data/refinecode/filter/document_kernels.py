"""Numbers of natural-language documents: sentences, lines, words of the raw text, links."""

import numpy as np
from numba import njit

from .kernels import CAPITAL, RE_WORD, SMALL, SPACE, WORD, group_ids, hash_step, line_hashes, line_spans, mix
from .stop_words import STOP_WORDS

# Entries of `document_measures`, and of `raw_words`.
(
    SENTENCES, BREAKS, FILLED_LINES, REPEATED_LINES, REPEATED_CHARS, LINE_CHARS, BULLETS, LINK_CHARS,
) = range(8)  # fmt: skip
WORDS, CAPITALS, BRACKETS, STOPS = range(4)

_BULLETS = np.array(
    sorted(
        ord(c)
        for c in "\u2022\u2023\u2043\u204c\u204d\u2219\u25a0\u25a1\u25a2\u25a3\u25a4\u25a5\u25a6\u25a7\u25a8\u25a9\u25aa\u25ab"
        "\u25ac\u25ad\u25ae\u25af\u25cb\u25cf\u25e6\u25c6\u25c7\u25c8\u25c9\u25ca\u25d0\u25d1\u25d2\u25d3\u25d4\u25d5\u25d6"
        "\u25d8\u25d9\u25e2\u25e3\u25e4\u25e5\u25ef\u2611\u2612\u2b1b\u2b1c\u2b24\u2b1e\u2b1f\u29be"
    ),
    np.uint32,
)
_SEED = np.uint64(0x13198A2E03707344)


@njit(cache=True)
def _sentence_end(c):
    return c == 46 or c == 33 or c == 63 or c == 0x3002 or c == 0xFF01 or c == 0xFF1F or c == 0x61F


@njit(cache=True)
def _sentences(cp, classes, out):
    """Pieces between end marks that hold a word; breaks: `.`, `?`, `!` and newlines."""
    sentences = breaks = 0
    empty = True
    for i in range(cp.size):
        c = cp[i]
        if classes[c] & RE_WORD:
            sentences += empty
            empty = False
        elif _sentence_end(c):
            empty = True
            breaks += c < 64
        elif c == 10:
            breaks += 1
    out[SENTENCES], out[BREAKS] = sentences, breaks


@njit(cache=True)
def _lines(cp, classes, out):
    """Lines by their text without outer whitespace, and those whose first visible character is a bullet."""
    spans = line_spans(cp)
    hashes, lengths = line_hashes(cp, spans, classes, True)
    ids, counts = group_ids(hashes)
    for k in range(hashes.size):
        out[LINE_CHARS] += lengths[k]
        out[FILLED_LINES] += lengths[k] > 0
        if counts[ids[k]] > 1:
            out[REPEATED_CHARS] += lengths[k]
            out[REPEATED_LINES] += lengths[k] > 0
        i, end = spans[k, 0], spans[k, 1]
        while i < end and classes[cp[i]] & SPACE:
            i += 1
        if i < end and cp[i] >= _BULLETS[0]:
            at = np.searchsorted(_BULLETS, cp[i])
            out[BULLETS] += at < _BULLETS.size and _BULLETS[at] == cp[i]


@njit(cache=True)
def _blank(c):
    return c == 32 or c == 9 or c == 10 or c == 12 or c == 13


@njit(cache=True)
def _link_chars(cp):
    """Characters of `(http://...)` and `(https://...)` up to the last `)` before a blank, and of `<...>` within a line."""
    n = cp.size
    total = 0
    end = last = 0  # end of the visible run that was looked at, and its last ')'
    i = 0
    while i < n:
        if cp[i] != 40 or i + 8 >= n or cp[i + 1] != 104 or cp[i + 2] != 116 or cp[i + 3] != 116 or cp[i + 4] != 112:
            i += 1
            continue
        j = i + 5 + (cp[i + 5] == 115)
        if cp[j] != 58 or j + 2 >= n or cp[j + 1] != 47 or cp[j + 2] != 47:
            i += 1
            continue
        if i >= end:
            end = i
            last = -1
            while end < n and not _blank(cp[end]):
                if cp[end] == 41:
                    last = end
                end += 1
        if last > j + 3:
            total += last + 1 - i
            i = last + 1
        else:
            i += 1
    i = 0
    while i < n:
        if cp[i] == 60:
            j = i + 1
            while j < n and cp[j] != 62 and cp[j] != 10:
                j += 1
            if j < n and cp[j] == 62:
                total += j + 1 - i
            i = j
        i += 1
    return total


@njit(cache=True)
def document_measures(cp, classes):
    """int64[8] of a raw text: see SENTENCES and what follows it."""
    out = np.zeros(8, np.int64)
    _sentences(cp, classes, out)
    _lines(cp, classes, out)
    out[LINK_CHARS] = _link_chars(cp)
    return out


@njit(cache=True)
def raw_words(cp, classes, stop):
    """int64[4]: words of a text, case and punctuation kept, those in capitals, those that are a bracket 【 or 】, and those
    in `stop` (`stop_table`)."""
    out = np.zeros(4, np.int64)
    n = cp.size
    mask = np.uint64(stop.size - 1)
    i = 0
    while i < n:
        k = classes[cp[i]]
        if k & SPACE and not (cp[i] >= 0x1C and cp[i] <= 0x1F):  # which `regex` does not count as blanks
            i += 1
            continue
        start = i
        kind = k & WORD
        h = _SEED
        capital = small = False
        while i < n:
            c = cp[i]
            k = classes[c]
            if (k & WORD) != kind or (k & SPACE and not (c >= 0x1C and c <= 0x1F)):
                break
            h = hash_step(h, c)
            capital |= (k & CAPITAL) != 0
            small |= (k & SMALL) != 0
            i += 1
        out[WORDS] += 1
        out[CAPITALS] += capital and not small
        out[BRACKETS] += i == start + 1 and (cp[start] == 0x3010 or cp[start] == 0x3011)
        h = mix(h)
        j = h & mask
        while stop[j] != 0 and stop[j] != h:
            j = (j + np.uint64(1)) & mask
        out[STOPS] += stop[j] != 0
    return out


@njit(cache=True)
def _insert(stop, cp):
    h = _SEED
    for c in cp:
        h = hash_step(h, c)
    h = mix(h)
    mask = np.uint64(stop.size - 1)
    j = h & mask
    while stop[j] != 0 and stop[j] != h:
        j = (j + np.uint64(1)) & mask
    stop[j] = h


def stop_table(natural: str) -> np.ndarray:
    """uint64[1024]: hashes of the stop words of a language, for `raw_words`; zeros where there are none."""
    table = np.zeros(1024, np.uint64)
    for word in sorted(STOP_WORDS.get(natural, ())):
        _insert(table, np.array([ord(c) for c in word], np.uint32))
    return table
