"""One pass over source text that tells comments and string literals from code, for every comment syntax in use.

The scanner knows line and block comments (nested or not), quotes with their escapes, triple quotes, verbatim and raw
strings, JavaScript's templates and regular-expression literals, Python's doc-strings, and PHP's islands. It never
fails and is linear in the length of the text: an unterminated string ends with its line, an unterminated block comment
or template with the text.
"""

from dataclasses import dataclass, field

import numpy as np
from numba import njit

from .scan_strings import CODE, COMMENT, STRING, character, is_word, quoted, raw_cpp, raw_rust, template, triple

__all__ = ["CODE", "COMMENT", "STRING", "Syntax"]

# Quote modes, per quote character.
NONE, LINE, MULTI, DOUBLED, CHAR, RAW, TEMPLATE, DOUBLED_LINE = range(8)
# Flags.
NESTED, HASH_AFTER_SPACE, TRIPLE, REGEX, VERBATIM, RAW_CPP, RUST, PHP, EAT_NEWLINE, LINE_START, DOC_ANYWHERE, NO_DOC = (
    1 << i for i in range(12)
)

_FIRST = {REGEX: "/", VERBATIM: "@", RAW_CPP: "R", RUST: "r", PHP: "?"}


@dataclass(frozen=True)
class Syntax:
    """Comment and string syntax of a language.

    line: markers that start a comment up to the end of the line. block: (open, close) pairs. double, single, backtick:
    quote modes. flags: see this module's constants.
    """

    line: tuple[str, ...] = ()
    block: tuple[tuple[str, str], ...] = ()
    double: int = LINE
    single: int = LINE
    backtick: int = NONE
    flags: int = 0
    marks: np.ndarray = field(init=False, repr=False, compare=False)
    hot: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        rows = [*self.line, *(p[0] for p in self.block), *(p[1] for p in self.block)]
        marks = np.zeros((max(len(rows), 1), 8), np.uint32)
        for i, row in enumerate(rows):
            marks[i, : len(row)] = [ord(c) for c in row]
        object.__setattr__(self, "marks", marks)
        # First characters that need a closer look.
        first = "".join(row[0] for row in (*self.line, *(p[0] for p in self.block)))
        first += '"' * bool(self.double) + "'" * bool(self.single) + "`" * bool(self.backtick)
        first += "".join(c for flag, c in _FIRST.items() if self.flags & flag)
        hot = np.zeros(128, np.uint8)
        hot[[ord(c) for c in first + first.lower()]] = 1
        object.__setattr__(self, "hot", hot)

    def scan(self, cp: np.ndarray) -> np.ndarray:
        """uint8 mask of CODE, COMMENT or STRING (the inside of a literal), one entry per code point of `cp`."""
        quotes = (self.double, self.single, self.backtick)
        return _scan(cp, self.marks, self.hot, len(self.line), len(self.block), *quotes, self.flags)


@njit(cache=True)
def _at(cp, i, mark):
    n = cp.size
    j = 0
    while j < 8 and mark[j] != 0:
        if i + j >= n:
            return 0
        c = cp[i + j]
        m = mark[j]
        if c != m and not (m >= 65 and m <= 90 and c == m + 32):  # markers in capitals (REM) match both cases
            return 0
        j += 1
    return j


@njit(cache=True)
def _regex_end(cp, i):
    """End of the regular-expression literal that starts with the '/' at i, or -1."""
    n = cp.size
    j = i + 1
    in_class = False
    while j < n and j < i + 5000:
        c = cp[j]
        if c == 10:
            return -1
        if c == 92:
            j += 2
            continue
        if c == 91:
            in_class = True
        elif c == 93:
            in_class = False
        elif c == 47 and not in_class:
            return j + 1 if j > i + 1 else -1
        j += 1
    return -1


@njit(cache=True)
def _regex_may_start(cp, i):
    """Whether a '/' at i stands where an expression may begin (after an operator, an opening bracket or a keyword)."""
    j = i - 1
    while j >= 0 and (cp[j] == 32 or cp[j] == 9):
        j -= 1
    if j < 0:
        return True
    c = cp[j]
    if c == 10 or c == 13:
        while j >= 0 and (cp[j] == 32 or cp[j] == 9 or cp[j] == 10 or cp[j] == 13):
            j -= 1
        if j < 0:
            return True
        c = cp[j]
    if not is_word(c):
        return c != 41 and c != 93 and c != 125 and c != 34 and c != 39 and c != 96 and c != 36
    k = j
    while k >= 0 and is_word(cp[k]):
        k -= 1
    m = j - k
    # return typeof case do else in instanceof void delete new throw: told by first letter and length
    f = cp[k + 1]
    if m == 6:
        return f == 114 or f == 116 or f == 100  # return, typeof, delete
    if m == 4:
        return (f == 99 and cp[k + 2] == 97) or f == 101 or (f == 118 and cp[k + 2] == 111)  # case, else, void
    if m == 2:
        return (f == 100 and cp[k + 2] == 111) or (f == 105 and cp[k + 2] == 110)  # do, in
    if m == 10:
        return f == 105  # instanceof
    if m == 5:
        return f == 116 and cp[k + 2] == 104  # throw
    return False


@njit(cache=True)
def _scan(cp, marks, hot, num_line, num_block, double, single, backtick, flags):
    n = cp.size
    out = np.zeros(n, np.uint8)
    nested = flags & 1
    hash_after_space = flags & 2
    triple_quotes = flags & 4
    regex = flags & 8
    verbatim = flags & 16
    raw_strings = flags & 32
    rust = flags & 64
    php = flags & 128
    eat_newline = flags & 256
    line_start = flags & 512
    doc_anywhere = flags & 1024
    no_doc = flags & 2048
    i = 0
    in_php = not php
    # template literals: brace depth at which each open one resumes
    stack = np.zeros(64, np.int32)
    depth_at = 0
    brace = 0
    while i < n:
        c = cp[i]
        if not in_php:
            if c == 60 and i + 1 < n and cp[i + 1] == 63:
                in_php = True
                i += 2
            else:
                i += 1
            continue
        if depth_at > 0:
            if c == 123:
                brace += 1
            elif c == 125:
                if brace == stack[depth_at - 1]:  # back in the template
                    depth_at -= 1
                    i += 1
                    i, opened = template(cp, i, out)
                    if opened and depth_at < 64:
                        stack[depth_at] = brace
                        depth_at += 1
                    continue
                brace -= 1
        if c >= 128 or not hot[c]:
            i += 1
            continue
        if php and c == 63:
            if i + 1 < n and cp[i + 1] == 62:
                in_php = False
            i += 1
            continue
        # comments
        done = False
        for b in range(num_block):
            m = _at(cp, i, marks[num_line + b])
            if m:
                close = marks[num_line + num_block + b]
                j = i + m
                depth = 1
                while j < n:
                    e = _at(cp, j, close)
                    if e:
                        j += e
                        depth -= 1
                        if depth == 0:
                            break
                        continue
                    if nested:
                        e = _at(cp, j, marks[num_line + b])
                        if e:
                            depth += 1
                            j += e
                            continue
                    j += 1
                out[i:j] = COMMENT
                i = j
                done = True
                break
        if done:
            continue
        for r in range(num_line):
            m = _at(cp, i, marks[r])
            if m == 0:
                continue
            if hash_after_space and i > 0:
                p = cp[i - 1]
                if not (p == 32 or p == 9 or p == 10 or p == 13 or p == 59 or p == 40 or p == 41):
                    continue
            word_mark = is_word(marks[r, 0])
            if line_start or word_mark:
                k = i - 1
                while k >= 0 and (cp[k] == 32 or cp[k] == 9 or cp[k] == 64):
                    k -= 1
                if k >= 0 and cp[k] != 10:
                    continue
            if word_mark and i + m < n and is_word(cp[i + m]):
                continue
            j = i + m
            while j < n and cp[j] != 10:
                if php and cp[j] == 63 and j + 1 < n and cp[j + 1] == 62:
                    break
                j += 1
            if eat_newline and j < n and cp[j] == 10:
                # in C a backslash before the newline continues the comment
                while j < n and cp[j - 1] == 92 and j > i + m:
                    j += 1
                    while j < n and cp[j] != 10:
                        j += 1
                if j < n:
                    j += 1
            out[i:j] = COMMENT
            i = j
            done = True
            break
        if done:
            continue
        # strings
        if c == 34 or c == 39 or c == 96:
            mode = double if c == 34 else (single if c == 39 else backtick)
            if mode == 0:
                i += 1
                continue
            if triple_quotes and c != 96 and i + 2 < n and cp[i + 1] == c and cp[i + 2] == c:
                i = triple(cp, i, out, doc_anywhere, no_doc)
            elif mode == TEMPLATE:
                i, opened = template(cp, i + 1, out)
                if opened and depth_at < 64:
                    stack[depth_at] = brace
                    depth_at += 1
            elif mode == CHAR:
                i = character(cp, i, out)
            else:
                escapes = mode in (LINE, MULTI)
                doubled = mode in (DOUBLED, DOUBLED_LINE)
                i = quoted(cp, i, i + 1, out, escapes, doubled, mode in (LINE, DOUBLED_LINE))
            continue
        if verbatim and c == 64:
            if i + 1 < n and cp[i + 1] == 34:
                i = quoted(cp, i, i + 2, out, False, True, False)
                continue
            if i + 2 < n and cp[i + 1] == 36 and cp[i + 2] == 34:
                i = quoted(cp, i, i + 3, out, False, True, False)
                continue
        if raw_strings and c == 82 and i + 1 < n and cp[i + 1] == 34:
            i = raw_cpp(cp, i, out)
            continue
        if rust and c == 114 and (i == 0 or not is_word(cp[i - 1]) or cp[i - 1] == 98):
            i = raw_rust(cp, i, out)
            continue
        if regex and c == 47 and _regex_may_start(cp, i):
            e = _regex_end(cp, i)
            if e > 0:
                i = e
                continue
        i += 1
    return out
