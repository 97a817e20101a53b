"""Signals beyond the published ones (prefix `x_`), default profile only: what the 118 let through.

Each is a small function of the document; the conditions are in `default_thresholds.json` with their reason.
"""

import re

from . import measures as m
from .document_view import View
from .registry import Value, ratio, signal

_default = {"profile": "default"}


@signal("x_code_cate_minified", **_default)
def minified(v: View) -> Value:
    """Machine-packed code: a line above 500 characters, mean line above 60, and less than 12 % whitespace."""
    spaces, lines, longest = (v.characters[i] for i in (m.SPACES, m.LINES, m.LONGEST_LINE))
    return float(longest > 500 and len(v.content) / lines > 60 and spaces < 0.12 * len(v.content))


_GENERATED_NAME = re.compile(
    r"[.-]min\.(?:js|css|mjs)$|[.-]bundle\.js$|_pb2(?:_grpc)?\.pyi?$|\.pb(?:\.gw)?\.go$|\.pb\.(?:cc|h)$|\.g\.(?:cs|dart)$"
    r"|\.g\.i\.cs$|\.designer\.(?:cs|vb)$|(?:^|/)(?:package-lock\.json|npm-shrinkwrap\.json|yarn\.lock|pnpm-lock\.yaml"
    r"|cargo\.lock|poetry\.lock|gemfile\.lock|composer\.lock|pipfile\.lock|go\.sum|assemblyinfo\.cs)$|zz_generated.*\.go$"
    r"|(?:^moc_|^ui_|^qrc_).*\.(?:cpp|h|py)$|\.(?:map|snap)$",
    re.IGNORECASE,
)


@signal("x_code_cate_generated_name", **_default)
def generated_name(v: View) -> Value:
    """The file's name is one that tools give to their output (`*.min.js`, `*_pb2.py`, `*.Designer.cs`, lock files)."""
    return float(bool(_GENERATED_NAME.search(v.file_name)))


@signal("x_code_cate_merge_conflict", **_default)
def merge_conflict(v: View) -> Value:
    """Unresolved merge-conflict markers at the start of lines."""
    if "<<<<<<< " not in v.content:
        return 0.0
    text = "\n" + v.content
    return float("\n<<<<<<< " in text and "\n=======\n" in text.replace("\r\n", "\n") and "\n>>>>>>> " in text)


@signal("x_code_frac_lines_lorem_ipsum", "x_doc_frac_lines_lorem_ipsum", **_default)
def lorem_ipsum(v: View) -> Value:
    """Lines of filler text ('lorem ipsum', 'dolor sit amet', ...) ÷ lines."""
    return ratio(v.characters[m.LOREM], v.num_lines) if v.characters[m.LOREM] else 0.0


@signal("x_code_frac_chars_consonant_runs", "x_doc_frac_chars_consonant_runs", **_default)
def consonant_runs(v: View) -> Value:
    """Characters of words with seven or more consonants in a row (struck keys, encodings) ÷ word characters."""
    return ratio(v.characters[m.CONSONANTS], v.word_chars)


@signal("x_code_frac_chars_control", "x_doc_frac_chars_control", **_default)
def control(v: View) -> Value:
    """Control characters other than tab, newline, return, form feed and escape ÷ characters: binary data in a text."""
    return ratio(v.characters[m.CONTROL], len(v.content))


@signal("x_code_cate_bidi_control", **_default)
def bidi_control(v: View) -> Value:
    """Characters that reorder the display of source text (U+202A-E, U+2066-9): code that reads other than it runs."""
    return float(v.characters[m.BIDI] > 0)


@signal("x_code_frac_chars_private_use", "x_doc_frac_chars_private_use", **_default)
def private_use(v: View) -> Value:
    """Private-use characters (icon fonts) ÷ visible characters."""
    if v.ascii:
        return 0.0
    return ratio(v.characters[m.PRIVATE], len(v.content) - v.characters[m.SPACES])


_LICENCE = re.compile(r"licen[cs]e|copyright|all rights reserved|warrant(?:y|ies)", re.IGNORECASE)


@signal("x_code_cate_licence_only", **_default)
def licence_only(v: View) -> Value:
    """Fewer than five lines of code under a licence text that makes up most of the file."""
    if v.num_code_lines >= 5 or not v.content:
        return 0.0
    commented = len(v.source_cp) - len(v.code_cp)
    return float(commented > 0.6 * len(v.content) and len(_LICENCE.findall(v.comment)) >= 2)


@signal("x_code_frac_lines_commented_code", **_default)
def commented_code(v: View) -> Value:
    """Comment lines that read as code ÷ lines that are not blank."""
    found, lines = v.measures[m.COMMENTED_CODE], v.measures[m.COMMENT_LINES]
    return ratio(found, v.num_code_lines + lines) if found else 0.0


@signal("x_code_frac_lines_numeric", **_default)
def numeric(v: View) -> Value:
    """Lines of nothing but numbers, signs and separators, with a digit ÷ lines: tables of data in code."""
    return ratio(v.characters[m.NUMERIC], v.num_lines)


@signal("x_code_cate_inline_source_map", **_default)
def inline_source_map(v: View) -> Value:
    """A source map is embedded: the file is a compiler's output."""
    return float("sourceMappingURL=data:" in v.content)


@signal("x_code_frac_chars_same_run", "x_doc_frac_chars_same_run", **_default)
def same_run(v: View) -> Value:
    """Characters in runs of 200 or more equal visible characters ÷ characters."""
    return ratio(v.characters[m.SAME], len(v.content))


@signal("x_code_frac_lines_not_implemented", **_default)
def not_implemented(v: View) -> Value:
    """Code lines that only say that something is not implemented ÷ code lines."""
    return ratio(v.measures[m.STUBS], v.num_code_lines)
