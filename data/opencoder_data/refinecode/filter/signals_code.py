"""General code signals (prefix `qsc_code_`, 33 published): size, characters, words, repetition, strings, comments.

Definitions: RefineCode's released filter; the base is RedPajama-v2 and StarCoder. Shares are 0..1.
"""

import re
from functools import cache

import numpy as np
import re2

from . import measures as m
from .document_view import View, class_table, text_of
from .kernels import RE_WORD, SPACE
from .registry import Value, ratio, signal
from .scan_strings import COMMENT


@signal("qsc_code_size_file_byte")
def size_file_byte(v: View) -> Value:
    """Size in bytes."""
    return float(v.size_bytes)


@signal("qsc_code_num_lines", "qsc_doc_num_lines")
def num_lines(v: View) -> Value:
    """Number of lines."""
    return float(v.num_lines)


@signal("qsc_code_num_chars", "qsc_doc_num_chars")
def num_chars(v: View) -> Value:
    """Number of characters."""
    return float(len(v.content))


@signal("qsc_code_num_words", "qsc_doc_num_words")
def num_words(v: View) -> Value:
    """Number of normalised words."""
    return float(v.num_words)


@signal("qsc_code_num_chars_line_max")
def num_chars_line_max(v: View) -> Value:
    """Characters of the longest line, newline included."""
    return float(v.characters[m.LONGEST_LINE])


@signal("qsc_code_num_chars_line_mean")
def num_chars_line_mean(v: View) -> Value:
    """Mean characters per line, newline included."""
    return ratio(len(v.content), v.num_lines) if v.num_lines else 0.0


@signal("qsc_code_mean_word_length", "qsc_doc_mean_word_length")
def mean_word_length(v: View) -> Value:
    """Characters per normalised word."""
    return ratio(v.word_chars, v.num_words)


@signal("qsc_code_frac_words_unique", "qsc_doc_frac_words_unique")
def frac_words_unique(v: View) -> Value:
    """Distinct words ÷ words."""
    return ratio(len(v.words[2]), v.num_words)


def _top(n: int):
    def top(v: View) -> Value:
        return round(v.ngrams[n], 8)

    return top


for _n in (2, 3, 4):
    signal(
        f"qsc_code_frac_chars_top_{_n}grams",
        f"qsc_doc_frac_chars_top_{_n}grams",
        about=f"Share of word characters in the most frequent {_n}-gram of words.",
    )(_top(_n))
for _n in range(5, 11):
    signal(
        f"qsc_code_frac_chars_dupe_{_n}grams",
        f"qsc_doc_frac_chars_dupe_{_n}grams",
        about=f"Share of word characters covered by {_n}-grams that occur at least twice.",
    )(_top(_n))


@signal("qsc_code_frac_chars_alphabet")
def frac_chars_alphabet(v: View) -> Value:
    """Alphabetic characters ÷ visible characters (0 when there are none)."""
    visible = len(v.content) - v.characters[m.SPACES]
    return ratio(v.characters[m.LETTERS], visible) if visible else 0.0


@signal("qsc_code_frac_chars_digital", "qsc_doc_frac_chars_digital")
def frac_chars_digital(v: View) -> Value:
    """Digits ÷ visible characters (1 when there are none)."""
    visible = len(v.content) - v.characters[m.SPACES]
    return ratio(v.characters[m.DIGITS], visible) if visible else 1.0


@signal("qsc_code_frac_chars_whitespace", "qsc_doc_frac_chars_whitespace")
def frac_chars_whitespace(v: View) -> Value:
    """Whitespace ÷ characters (1 when empty)."""
    return ratio(v.characters[m.SPACES], len(v.content)) if v.content else 1.0


@signal("qsc_code_frac_chars_replacement_symbols", "qsc_doc_frac_chars_replacement_symbols")
def frac_chars_replacement_symbols(v: View) -> Value:
    """U+FFFD ÷ characters: traces of a wrong decoding."""
    return ratio(v.characters[m.REPLACED], len(v.content))


@signal("qsc_code_frac_chars_comments", profile="default")
def frac_chars_comments(v: View) -> Value:
    """Characters in comments and doc-strings ÷ characters."""
    return ratio(len(v.source_cp) - len(v.code_cp), len(v.content))


@signal("qsc_code_frac_lines_dupe_lines")
def frac_lines_dupe_lines(v: View) -> Value:
    """Code lines that occur more than once ÷ code lines, whitespace ignored; single characters and `},` never count."""
    return ratio(v.measures[m.REPEATED_LINES], v.num_code_lines)


@signal("qsc_code_cate_xml_start")
def cate_xml_start(v: View) -> Value:
    """An XML declaration within the first 100 characters."""
    return float("<?xml version=" in v.content[:100])


_MARKS = (
    r"auto-?generated|automatically%(blank)s+generated|generated%(blank)s+automatically"
    r"|(?:file|code) (?:is|was) (?:\w+ )?generated|\bgenerated%(blank)s+(?:by|from|with|using)\b|@generated\b"
    r"|do%(blank)s+not%(blank)s+(?:edit|modify)|\bautogen\b"
)
_FOLD_TO_ASCII = re.compile("[\u0130\u0131\u017f\u212a]")  # equal to ASCII letters where case does not count


@cache
def _autogen():
    """The marks over ASCII bytes, and over any text."""
    blank = {"blank": r"[\t-\r\x1c-\x20]"}
    return re2.compile(b"(?i)" + (_MARKS % blank).encode()), re.compile(_MARKS % {"blank": r"\s"}, re.IGNORECASE)


def _ascii_form(cp: np.ndarray, ascii: bool) -> bytes:
    """A text in which other word characters than ASCII's are a letter that no mark holds, blanks a blank, the rest NUL."""
    if not ascii:
        kind = class_table()[cp]
        other = np.where(kind & RE_WORD, ord("q"), np.where(kind & SPACE, ord(" "), 0))
        cp = np.where(cp < 128, cp, other)
    return cp.astype(np.uint8).tobytes()


@signal("qsc_code_cate_autogen", profile="default")
def cate_autogen(v: View) -> Value:
    """A marker of generated code in the comments of the first 1,000 characters (or `@generated`, `do not edit`)."""
    head = v.content[:1000]
    low = head.lower()
    blanks = np.uint32(32)
    if not v.ascii and _FOLD_TO_ASCII.search(head):
        marks = _autogen()[1]
        comments = text_of(np.where(v.mask[:1000] == COMMENT, v.source_cp[:1000], blanks))
        return float(bool(marks.search(head) and marks.search(comments)))
    # Each alternative holds one of these words.
    if not ("generated" in low or "autogen" in low or ("not" in low and ("edit" in low or "modify" in low))):
        return 0.0
    cp = v.source_cp[:1000]
    marks = _autogen()[0]
    if not marks.search(_ascii_form(cp, v.ascii)):
        return 0.0
    return float(bool(marks.search(_ascii_form(np.where(v.mask[:1000] == COMMENT, cp, blanks), v.ascii))))


@signal("qsc_code_cate_autogen", profile="compat")
def cate_autogen_compat(v: View) -> Value:
    """'generate', 'autogen' or 'do not edit' anywhere in the first 200 characters."""
    head = v.content[:200].lower()
    return float(any(s in head for s in ("generate", "autogen", "do not edit", "auto-generated")))


@signal("qsc_code_frac_lines_long_string")
def frac_lines_long_string(v: View) -> Value:
    """Lines of string literals with more than 20 tokens ÷ code lines."""
    return ratio(v.measures[m.LONG_STRING_LINES], v.num_code_lines)


@signal("qsc_code_frac_chars_string_length")
def frac_chars_string_length(v: View) -> Value:
    """Characters inside string literals ÷ characters of code."""
    return ratio(v.measures[m.STRING_CHARS], len(v.code_cp))


@signal("qsc_code_frac_chars_long_word_length")
def frac_chars_long_word_length(v: View) -> Value:
    """Characters of blank-separated words longer than 20 inside literals, URLs apart ÷ characters of code."""
    return ratio(v.measures[m.LONG_WORDS], len(v.code_cp))


@cache
def _concat():
    return re2.compile(rb"=[\t\f\r ]*[\"'][^\n]+?[\"'][\t\f\r ]*\+[\t\f\r ]*[\"'][^\n]+?[\"'][^\n]*")


@signal("qsc_code_frac_lines_string_concat")
def frac_lines_string_concat(v: View) -> Value:
    """Lines that assign one literal plus another ÷ code lines (published, not used)."""
    if not v.num_code_lines:
        return None
    found = sum(1 for _ in _concat().finditer(v.code_utf8)) if v.measures[m.CONCATS] else 0  # one a line: it ends there
    return ratio(found, v.num_code_lines)


@cache
def _encoded():
    return (
        re2.compile(rb"(?:\b(?:0x|\\x)?[0-9a-fA-F]{2}(?:,|\b\s*)){8,}"),
        re2.compile(rb"(?:\\u[0-9a-fA-F]{4}){8,}"),
    )


@signal("qsc_code_cate_encoded_data")
def cate_encoded_data(v: View) -> Value:
    """Base64-like runs of 64 or more, 8 or more hexadecimal bytes or \\u escapes: one above 1,024 characters, or all
    of them together above half of the file."""
    total, longest = v.characters[m.BASE64], v.characters[m.LONGEST_BASE64]
    hexadecimal, escapes = _encoded()
    patterns = [hexadecimal] if v.characters[m.HEX_BYTES] else []
    if v.utf8.count(b"\\u") >= 8:
        patterns.append(escapes)
    for pattern in patterns:
        for match in pattern.finditer(v.utf8):
            size = match.end() - match.start()
            total += size
            longest = max(longest, size)
    return float(longest > 1024 or total > 0.5 * len(v.content)) if v.content else 0.0


@signal("qsc_code_frac_chars_hex_words")
def frac_chars_hex_words(v: View) -> Value:
    """Characters of 0x... words ÷ characters of code."""
    return ratio(v.measures[m.HEX_WORDS], len(v.code_cp))


@signal("qsc_code_frac_lines_prompt_comments")
def frac_lines_prompt_comments(v: View) -> Value:
    """Comment lines with 'your code here', 'fixme' or 'todo' ÷ lines."""
    return ratio(v.measures[m.PROMPTS], v.num_lines)


@signal("qsc_code_frac_lines_assert")
def frac_lines_assert(v: View) -> Value:
    """Code lines that contain 'assert' ÷ code lines."""
    return ratio(v.measures[m.ASSERTS], v.num_code_lines)
