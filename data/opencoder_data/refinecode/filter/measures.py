"""What the signals of one document share, measured in few calls: characters, lines, words, code and comments.

A call from Python into compiled code, and every array that comes back, costs as much as some hundred characters of text,
and most files are small. So each function here fills all numbers of one subject into an int64 array, whose entries are
named by the constants below, and runs in time proportional to the text.
"""

import numpy as np
from numba import njit

from .kernels import ALPHA, DIGIT, SPACE, group_ids, line_hashes, line_spans, ngram_shares, words
from .needles import lines_with, needles
from .scan_strings import COMMENT, STRING
from .text_kernels import (
    base64_runs,
    concatenates,
    hex_byte_runs,
    hex_words,
    long_word_chars,
    quoted,
    string_token_lines,
)
from .unpublished_kernels import commented_code, consonant_chars, line_measures, long_runs

# Entries of `characters`.
(
    SPACES, LETTERS, DIGITS, REPLACED, BRACES, LINES, LONGEST_LINE, PRIVATE, BIDI, CONTROL, NUMERIC, CONSONANTS, SAME,
    BASE64, LONGEST_BASE64, HEX_BYTES, LOREM, OPENING, CLOSING, OPERATORS,
) = range(20)  # fmt: skip
# Entries of `code`.
(
    CODE_LINES, REPEATED_LINES, STRING_CHARS, LONG_STRING_LINES, LONG_WORDS, HEX_WORDS, CONCATS, ASSERTS, STUBS, PROMPTS,
    COMMENT_LINES, COMMENTED_CODE,
) = range(12)  # fmt: skip

LONG_RUN = 200
LONG_STRING_TOKENS = 20
LONG_WORD_CHARS = 20

_CLOSING = np.array([125, 44], np.uint32)  # },
_LOREM, _LOREM_SHIFT, _LOREM_WINDOW = needles(("lorem ipsum", "dolor sit amet", "consectetur adipi"))
_CODE_WORDS, _CODE_SHIFT, _CODE_WINDOW = needles(
    ("assert",), ("notimplemented", "not implemented", "unimplemented!", "todo!(")
)
_PROMPTS, _PROMPTS_SHIFT, _PROMPTS_WINDOW = needles(("your code here", "fixme", "todo"))


@njit(cache=True)
def _counts(cp, classes, out):
    """The entries of `characters` that do not depend on what is beside a character."""
    seen = np.zeros((2, 128), np.int32)  # two rows, so that equal neighbours do not wait for each other
    space = letters = digits = replaced = private = bidi = control = 0
    for i in range(cp.size):
        c = cp[i]
        if c < 128:
            seen[i & 1, c] += 1
            continue
        k = classes[c]
        if k & ALPHA:
            letters += 1
        elif k & SPACE:
            space += 1
        elif k & DIGIT:
            digits += 1
        elif c == 0xFFFD:
            replaced += 1
        elif c >= 0xE000 and c <= 0xF8FF:
            private += 1
        elif (c >= 0x202A and c <= 0x202E) or (c >= 0x2066 and c <= 0x2069):
            bidi += 1
        if c < 160 and c != 133:
            control += 1
    for c in range(128):
        times = seen[0, c] + seen[1, c]
        k = classes[c]
        if k & ALPHA:
            letters += times
        elif k & SPACE:
            space += times
        elif k & DIGIT:
            digits += times
        if (c < 32 and c != 10 and c != 9 and c != 13 and c != 12 and c != 27) or c == 127:
            control += times
    out[SPACES], out[LETTERS], out[DIGITS], out[REPLACED] = space, letters, digits, replaced
    out[PRIVATE], out[BIDI], out[CONTROL] = private, bidi, control
    for c in (40, 91, 123):
        out[OPENING] += seen[0, c] + seen[1, c]
        out[CLOSING] += seen[0, c + (1 if c == 40 else 2)] + seen[1, c + (1 if c == 40 else 2)]
    for c in (126, 43, 45, 42, 33, 38, 60):
        out[OPERATORS] = max(out[OPERATORS], seen[0, c] + seen[1, c])
    out[BRACES] = seen[0, 123] + seen[1, 123] + seen[0, 125] + seen[1, 125]


@njit(cache=True)
def characters(cp, classes, compat):
    """int64[20] of a raw text: see SPACES and what follows it. classes: uint8 table of code points. `compat`: runs of
    base64 as the released pattern finds them."""
    out = np.zeros(20, np.int64)
    _counts(cp, classes, out)
    out[LINES], out[LONGEST_LINE], out[NUMERIC] = line_measures(cp)
    out[CONSONANTS] = consonant_chars(cp)
    if out[LONGEST_LINE] >= LONG_RUN:
        out[SAME] = long_runs(cp, LONG_RUN)
    out[BASE64], out[LONGEST_BASE64] = base64_runs(cp, compat)
    out[HEX_BYTES] = hex_byte_runs(cp)
    out[LOREM] = lines_with(cp, _LOREM, _LOREM_SHIFT, _LOREM_WINDOW, 1)[0]
    return out


@njit(cache=True)
def word_measures(cp, classes, lower):
    """Of normalised words: (number, characters in them, occurrences int32[distinct words], `ngram_shares` float64[11])."""
    hashes, lengths = words(cp, classes, lower)
    ids, counts = group_ids(hashes)
    return hashes.size, int(lengths.sum()), counts, ngram_shares(ids, counts, lengths)


@njit(cache=True)
def split(cp, mask, keep_lines):
    """Code without comments, and comments (with `keep_lines` also every newline outside them), as code points."""
    n = cp.size
    code = np.empty(n, np.uint32)
    comment = np.empty(n, np.uint32)
    a = b = 0
    for i in range(n):
        c = cp[i]
        commented = mask[i] == COMMENT
        code[a] = c
        comment[b] = c
        a += not commented
        b += commented or (keep_lines and c == 10)
    return code[:a].copy(), comment[:b].copy()


@njit(cache=True)
def literals(mask):
    """Spans int64[S, 2] of what is inside string literals."""
    n = mask.size
    out = np.empty((n // 2 + 1, 2), np.int64)
    k = 0
    inside = False
    for i in range(n):
        if (mask[i] == STRING) != inside:
            if inside:
                out[k, 1] = i
                k += 1
            else:
                out[k, 0] = i
            inside = not inside
    if inside:
        out[k, 1] = n
        k += 1
    return out[:k].copy()


@njit(cache=True)
def _lines_of_code(cp, classes, out):
    hashes, lengths = line_hashes(cp, line_spans(cp), classes, False)
    m = 0
    for i in range(hashes.size):
        if lengths[i] > 0:
            hashes[m] = hashes[i]
            lengths[m] = lengths[i]
            m += 1
    closing = line_hashes(_CLOSING, line_spans(_CLOSING), classes, False)[0][0]
    ids, counts = group_ids(hashes[:m])
    repeated = 0
    for i in range(m):
        if counts[ids[i]] > 1 and lengths[i] != 1 and hashes[i] != closing:
            repeated += 1
    out[CODE_LINES], out[REPEATED_LINES] = m, repeated


@njit(cache=True)
def code_measures(cp, mask, classes, compat):
    """(int64[12], code, comments) of a text whose comments and literals `mask` tells: see CODE_LINES and what follows it.
    Single characters and `},` are never repeated lines. code and comments: see `split`."""
    out = np.zeros(12, np.int64)
    code, comment = split(cp, mask, not compat)
    _lines_of_code(code, classes, out)
    if compat:
        spans, long_spans, text = quoted(code, False), quoted(code, True), code
    else:
        spans, text = literals(mask), cp
        long_spans = spans
    for s in range(spans.shape[0]):
        out[STRING_CHARS] += spans[s, 1] - spans[s, 0]
    out[LONG_STRING_LINES] = string_token_lines(text, long_spans, classes, LONG_STRING_TOKENS)
    out[LONG_WORDS] = long_word_chars(text, spans, classes, LONG_WORD_CHARS)
    out[HEX_WORDS] = hex_words(code, classes)
    out[CONCATS] = concatenates(code)
    found = lines_with(code, _CODE_WORDS, _CODE_SHIFT, _CODE_WINDOW, 2)
    out[ASSERTS], out[STUBS] = found[0], found[1]
    out[PROMPTS] = lines_with(comment, _PROMPTS, _PROMPTS_SHIFT, _PROMPTS_WINDOW, 1)[0]
    if not compat:
        out[COMMENT_LINES], out[COMMENTED_CODE] = commented_code(comment, classes)
    return out, code, comment
