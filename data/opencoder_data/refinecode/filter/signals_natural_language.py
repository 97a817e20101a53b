"""Natural-language signals (prefix `qsc_doc_`, 32 published; those shared with code are registered in `signals_code`)."""

import re
from functools import cache

import numpy as np
import re2

from . import kernels
from . import measures as m
from .document_view import View
from .registry import Value, ratio, signal
from .stop_words import STOP_WORDS
from .text_kernels import hex_words

_SENTENCE = re.compile(r"\b[^.!?。！？؟]+")

# Bullet glyphs: U+2022..., geometric shapes and boxes.
BULLETS = (
    "\u2022\u2023\u2043\u204c\u204d\u2219\u25a0\u25a1\u25a2\u25a3\u25a4\u25a5\u25a6\u25a7\u25a8\u25a9\u25aa\u25ab\u25ac"
    "\u25ad\u25ae\u25af\u25cb\u25cf\u25e6\u25c6\u25c7\u25c8\u25c9\u25ca\u25d0\u25d1\u25d2\u25d3\u25d4\u25d5\u25d6\u25d8"
    "\u25d9\u25e2\u25e3\u25e4\u25e5\u25ef\u2611\u2612\u2b1b\u2b1c\u2b24\u2b1e\u2b1f\u29be"
)

READ_MORE = (
    "...",
    "…",
    "全文",
    "详情",
    "详细",
    "更多",
    "المزيد",
    "تفاصيل",
    "اقرأ المزيد",
    "もっと",
    "詳細",
    "もっと読む",
)


@signal("qsc_doc_num_sentences")
def num_sentences(v: View) -> Value:
    """Sentences, told by Latin, CJK and Arabic end marks."""
    return float(sum(1 for _ in _SENTENCE.finditer(v.content)))


@signal("qsc_doc_num_chars_sentence_length_mean")
def num_chars_sentence_length_mean(v: View) -> Value:
    """Mean characters between `.`, `?`, `!` and newlines (published, not used)."""
    breaks = sum(v.content.count(c) for c in ".?!\n")
    return round((len(v.content) - breaks) / (breaks + 1), 8)


@signal("qsc_doc_entropy_unigram")
def entropy_unigram(v: View) -> Value:
    """Entropy of the distribution of words, natural logarithm."""
    if not v.num_words:
        return None
    share = v.words[2] / v.num_words
    return round(float(-(share * np.log(share)).sum()), 8) + 0.0


@signal("qsc_doc_frac_lines_dupe_lines")
def frac_lines_dupe_lines(v: View) -> Value:
    """Lines that occur more than once ÷ lines that are not blank."""
    hashes, lengths = _stripped_lines(v)
    keep = lengths > 0
    if not keep.any():
        return None
    ids, counts = kernels.group_ids(hashes[keep])
    return ratio(int((counts[ids] > 1).sum()), int(keep.sum()))


@signal("qsc_doc_frac_chars_dupe_lines")
def frac_chars_dupe_lines(v: View) -> Value:
    """Characters of lines that occur more than once ÷ characters of lines, outer whitespace apart."""
    hashes, lengths = _stripped_lines(v)
    if not len(hashes):
        return None
    ids, counts = kernels.group_ids(hashes)
    return ratio(int(lengths[counts[ids] > 1].sum()), int(lengths.sum()))


def _stripped_lines(v: View):
    return kernels.line_hashes(v.cp, v.spans, v.table, True)


@signal("qsc_doc_frac_lines_end_with_readmore")
def frac_lines_end_with_readmore(v: View) -> Value:
    """Lines that end in an ellipsis or a word such as 'more', 'full text', 'details' (zh, ja, ar) ÷ lines."""
    if not v.num_lines:
        return None
    if not any(mark in v.content for mark in READ_MORE):
        return 0.0
    lines = v.content.split("\n")
    return ratio(sum(line.rstrip().rstrip("]】)>》").endswith(READ_MORE) for line in lines), v.num_lines)


@signal("qsc_doc_frac_lines_start_with_bullet")
def frac_lines_start_with_bullet(v: View) -> Value:
    """Lines that start with a bullet glyph ÷ lines."""
    if not v.num_lines:
        return None
    if v.ascii:
        return 0.0
    return ratio(sum(line.lstrip().startswith(tuple(BULLETS)) for line in v.content.split("\n")), v.num_lines)


@signal("qsc_doc_frac_words_all_caps")
def frac_words_all_caps(v: View) -> Value:
    """Words in capitals ÷ words of the raw text."""
    return ratio(sum(map(str.isupper, v.raw_words)), len(v.raw_words))


@signal("qsc_doc_frac_words_full_bracket")
def frac_words_full_bracket(v: View) -> Value:
    """Words that are 【 or 】 ÷ words of the raw text."""
    return ratio(sum(w in ("【", "】") for w in v.raw_words), len(v.raw_words))


@signal("qsc_doc_frac_words_redpajama_stop")
def frac_words_redpajama_stop(v: View) -> Value:
    """Stop words ÷ words of the raw text; en, fr, es, it, de only (published, not used)."""
    stop = STOP_WORDS.get(v.natural)
    if stop is None:
        return None
    return ratio(sum(w in stop for w in v.raw_words), len(v.raw_words)) if v.num_words else 0.0


@signal("qsc_doc_frac_chars_curly_bracket")
def frac_chars_curly_bracket(v: View) -> Value:
    """Braces ÷ characters (published, not used)."""
    return ratio(v.characters[m.BRACES], len(v.content)) or 0.0


@cache
def _links():
    return re2.compile(rb"\(https?://[^\s]+\)"), re2.compile(rb"<[^\n]*?>")


@signal("qsc_doc_frac_chars_hyperlink_html_tag")
def frac_chars_hyperlink_html_tag(v: View) -> Value:
    """Characters of links in parentheses and of <...> ÷ characters."""
    count = 0
    for pattern in _links():
        for found in pattern.finditer(v.utf8):
            a, b = found.span()
            count += b - a if v.ascii else len(v.utf8[a:b].decode("utf-8", "replace"))
    return ratio(count, len(v.content))


@signal("qsc_doc_frac_chars_alphabet")
def frac_chars_alphabet(v: View) -> Value:
    """Alphabetic characters ÷ visible characters; English text only."""
    visible = len(v.content) - v.characters[m.SPACES]
    if not visible:
        return 0.0
    return ratio(v.characters[m.LETTERS], visible) if v.natural == "en" else None


@signal("qsc_doc_frac_chars_hex_words")
def frac_chars_hex_words(v: View) -> Value:
    """Characters of 0x... words ÷ characters."""
    return ratio(hex_words(v.cp, v.table), len(v.content))


_RELATED = ("readme", "notes", "todo", "description", "cmakelists")


@signal("qsc_doc_cate_code_related_file_name")
def cate_code_related_file_name(v: View) -> Value:
    """The file's stem is readme, notes, todo, description or cmakelists, or holds 'requirement' (published, not used)."""
    stem = v.file_name.split(".")[0].lower()
    return float("requirement" in stem or stem in _RELATED)
