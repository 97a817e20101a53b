"""The cl100k-style split of text into words, before any byte-pair merge: no token crosses a word's boundary.

OpenCoder splits by a regular expression of this kind and gives each word to SentencePiece (its tokenization code on the
Hugging Face hub). Words: English contractions, letters with one leading sign or space, numbers in groups of 1 to 3
digits, runs of signs with the newlines after them, runs of whitespace; the words of a text joined are the text.
"""

from __future__ import annotations

import functools
import re
import sys
import unicodedata

# As published for cl100k; engines with \p classes (the Hugging Face export) take it as it stands.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# The Unicode property White_Space. Python's own \s also takes U+001C..U+001F, which no other engine does.
_WHITE_SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"


def split_words(text: str) -> list[str]:
    """Words of `text` in order; joined they are `text`."""
    # Classes of a few ranges are six times as fast, and most code is ASCII.
    return (_ascii_pattern() if text.isascii() else _unicode_pattern()).findall(text)


@functools.cache
def _ascii_pattern() -> re.Pattern[str]:
    return _compile("A-Za-z", "0-9", r"\t-\r ")


@functools.cache
def _unicode_pattern() -> re.Pattern[str]:
    return _compile(_category_class("L"), _category_class("N"), _WHITE_SPACE)


def _compile(letters: str, numbers: str, space: str) -> re.Pattern[str]:
    """PATTERN for Python's `re`, which has no \\p classes."""
    return re.compile(
        r"'(?i:s|t|re|ve|m|ll|d)"
        rf"|[^\r\n{letters}{numbers}]?[{letters}]+"
        rf"|[{numbers}]{{1,3}}"
        rf"| ?[^{space}{letters}{numbers}]+[\r\n]*"
        rf"|[{space}]*[\r\n]+"
        rf"|[{space}]+(?![^{space}])"
        rf"|[{space}]+"
    )


def _category_class(initial: str) -> str:
    """Ranges, as inside a regular expression's brackets, of all code points whose general category starts so."""
    ranges: list[list[int]] = []
    category = unicodedata.category
    for code in range(sys.maxunicode + 1):
        if category(chr(code))[0] == initial:
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)
