"""Natural-language signals (prefix `qsc_doc_`, 32 published; those shared with code are registered in `signals_code`)."""

import numpy as np

from . import document_kernels as d
from . import measures as m
from .document_view import View
from .registry import Value, ratio, signal
from .stop_words import STOP_WORDS
from .text_kernels import hex_words

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
    return float(v.document[d.SENTENCES])


@signal("qsc_doc_num_chars_sentence_length_mean")
def num_chars_sentence_length_mean(v: View) -> Value:
    """Mean characters between `.`, `?`, `!` and newlines (published, not used)."""
    breaks = v.document[d.BREAKS]
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
    return ratio(v.document[d.REPEATED_LINES], v.document[d.FILLED_LINES])


@signal("qsc_doc_frac_chars_dupe_lines")
def frac_chars_dupe_lines(v: View) -> Value:
    """Characters of lines that occur more than once ÷ characters of lines, outer whitespace apart."""
    return ratio(v.document[d.REPEATED_CHARS], v.document[d.LINE_CHARS])


@signal("qsc_doc_frac_lines_end_with_readmore")
def frac_lines_end_with_readmore(v: View) -> Value:
    """Lines that end in an ellipsis or a word such as 'more', 'full text', 'details' (zh, ja, ar) ÷ lines."""
    if not v.num_lines:
        return None
    if not any(mark in v.content for mark in (READ_MORE[:1] if v.ascii else READ_MORE)):
        return 0.0
    lines = v.content.split("\n")
    return ratio(sum(line.rstrip().rstrip("]】)>》").endswith(READ_MORE) for line in lines), v.num_lines)


@signal("qsc_doc_frac_lines_start_with_bullet")
def frac_lines_start_with_bullet(v: View) -> Value:
    """Lines that start with a bullet glyph ÷ lines."""
    return ratio(v.document[d.BULLETS], v.num_lines)


@signal("qsc_doc_frac_words_all_caps")
def frac_words_all_caps(v: View) -> Value:
    """Words in capitals ÷ words of the raw text."""
    return ratio(v.raw_words[d.CAPITALS], v.raw_words[d.WORDS])


@signal("qsc_doc_frac_words_full_bracket")
def frac_words_full_bracket(v: View) -> Value:
    """Words that are 【 or 】 ÷ words of the raw text."""
    return ratio(v.raw_words[d.BRACKETS], v.raw_words[d.WORDS])


@signal("qsc_doc_frac_words_redpajama_stop")
def frac_words_redpajama_stop(v: View) -> Value:
    """Stop words ÷ words of the raw text; en, fr, es, it, de only (published, not used)."""
    if v.natural not in STOP_WORDS:
        return None
    return ratio(v.raw_words[d.STOPS], v.raw_words[d.WORDS]) if v.num_words else 0.0


@signal("qsc_doc_frac_chars_curly_bracket")
def frac_chars_curly_bracket(v: View) -> Value:
    """Braces ÷ characters (published, not used)."""
    return ratio(v.characters[m.BRACES], len(v.content)) or 0.0


@signal("qsc_doc_frac_chars_hyperlink_html_tag")
def frac_chars_hyperlink_html_tag(v: View) -> Value:
    """Characters of links in parentheses and of <...> ÷ characters."""
    return ratio(v.document[d.LINK_CHARS], len(v.content))


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
