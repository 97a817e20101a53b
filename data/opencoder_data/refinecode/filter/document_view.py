"""A document and everything that more than one signal looks at, each part built once, on first use."""

import re
import string
from functools import cache, cached_property, lru_cache

import numpy as np
import regex

from . import document_kernels, kernels, measures
from .normalise import CONTROL, by_runs, by_table
from .syntax import compat_syntax, default_syntax


@cache
def class_table() -> np.ndarray:
    """uint8[0x110000]: SPACE, ALPHA, DIGIT as `str` defines them, and WORD as Unicode does for regular expressions
    (letters, marks, decimal digits, connectors, joiners), of every code point."""
    table = np.zeros(0x110000, np.uint8)
    characters = "".join(map(chr, range(0x110000)))
    for match in regex.finditer(r"\w+", characters):
        table[match.start() : match.end()] = kernels.WORD
    for code in range(0x323B0):  # above: letters newer than `str`, marks, private use
        c = chr(code)
        if c.isspace():
            table[code] = kernels.SPACE
        elif c.isalpha():
            table[code] |= kernels.ALPHA | kernels.RE_WORD
        elif c.isalnum():
            table[code] |= kernels.RE_WORD | (kernels.DIGIT if c.isdigit() else 0)
        elif c.isdigit():
            table[code] |= kernels.DIGIT
        if c.isupper():
            table[code] |= kernels.CAPITAL
        elif c.islower() or c.istitle():
            table[code] |= kernels.SMALL
    table[ord("_")] |= kernels.RE_WORD
    return table


@cache
def _ascii_table() -> np.ndarray:
    return np.array(
        [
            kernels.SPACE
            if chr(c).isspace()
            else (kernels.WORD | kernels.RE_WORD if chr(c).isalnum() or c == 95 else 0)
            | (kernels.CAPITAL if chr(c).isupper() else 0)
            | (kernels.SMALL if chr(c).islower() else 0)
            | (kernels.ALPHA if chr(c).isalpha() else 0)
            | (kernels.DIGIT if chr(c).isdigit() else 0)
            for c in range(128)
        ],
        np.uint8,
    )


@cache
def _ascii_word_table() -> np.ndarray:
    table = _ascii_table().copy()
    table[[ord(c) for c in string.punctuation]] = kernels.SPACE
    table[CONTROL] = kernels.DELETED
    return table


@cache
def _word_table() -> np.ndarray:
    """For normalised words: `_ascii_word_table` below 128, `class_table` above."""
    table = class_table().copy()
    table[:128] = _ascii_word_table()
    return table


def code_points(text: str) -> np.ndarray:
    """uint32[len(text)]."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def text_of(cp: np.ndarray, ascii: bool = False) -> str:
    """Inverse of `code_points`. ascii: no code point is beyond 127."""
    if ascii:
        return cp.astype(np.uint8).tobytes().decode("ascii")
    return cp.tobytes().decode("utf-32-le", "surrogatepass")


def natural_language(content: str) -> str:
    """'ja' (kana above 5 % of the characters), 'zh' (Han above 15 %) or 'en': enough to choose the text group and the
    word splitter; a caller that runs a language identifier passes its own result instead."""
    if content.isascii() or not content:
        return "en"
    cp = code_points(content)
    if np.count_nonzero((cp >= 0x3040) & (cp <= 0x30FF)) > 0.05 * cp.size:
        return "ja"
    if np.count_nonzero((cp >= 0x4E00) & (cp <= 0x9FFF)) > 0.15 * cp.size:
        return "zh"
    return "en"


class View:
    """One document.

    content: the text. language: canonical lower-case name of the programming language ('cpp', 'csharp', 'python', ...).
    doc_type: 'code', 'data' or 'text'. file_name: last part of the path, with extension. natural: 'en', 'zh', 'ja' or
    another ISO code; found by `natural_language` when None. size_bytes: size on disk; that of the UTF-8 text when None.
    profile: 'default' or 'compat'.
    """

    def __init__(self, content, language, doc_type, file_name="", natural=None, size_bytes=None, profile="default"):
        self.content: str = content
        self.language: str = language
        self.doc_type: str = doc_type
        self.file_name: str = file_name
        self.profile: str = profile
        self.natural: str = natural or natural_language(content)
        self._size_bytes = size_bytes

    @property
    def compat(self) -> bool:
        return self.profile == "compat"

    @property
    def extension(self) -> str:
        return self.file_name.rpartition(".")[2] if "." in self.file_name else ""

    @cached_property
    def size_bytes(self) -> int:
        return len(self.content.encode("utf-8", "surrogatepass")) if self._size_bytes is None else self._size_bytes

    # --- characters and lines of the raw text -------------------------------------------------------------------
    @cached_property
    def ascii(self) -> bool:
        return self.content.isascii()

    @cached_property
    def table(self) -> np.ndarray:
        return _ascii_table() if self.ascii else class_table()

    @cached_property
    def cp(self) -> np.ndarray:
        return code_points(self.content)

    @cached_property
    def characters(self) -> list[int]:
        """Counts over the raw text: see `measures.characters`."""
        return measures.characters(self.cp, self.table, self.compat).tolist()

    @cached_property
    def spans(self) -> np.ndarray:
        """int64[lines, 2], each with its newline."""
        return kernels.line_spans(self.cp)

    @cached_property
    def num_lines(self) -> int:
        return self.characters[measures.LINES]

    @cached_property
    def lower(self) -> str:
        return self.content.lower()

    @cached_property
    def utf8(self) -> bytes:
        return self.content.encode("utf-8", "replace")

    # --- words ---------------------------------------------------------------------------------------------------
    @cached_property
    def words(self) -> tuple[int, int, np.ndarray, np.ndarray]:
        """`measures.word_measures` of the normalised words: punctuation removed, lower case, NFKC."""
        if self.ascii:
            return measures.word_measures(self.cp, _ascii_word_table(), True)
        if self.natural not in ("zh", "ja"):
            normalised = by_table(self.cp)
            if normalised is not None:
                return measures.word_measures(normalised, _word_table(), False)
        text = by_runs(self.content)
        if self.natural in ("zh", "ja"):
            text = split_han(text, self.natural)
        return measures.word_measures(code_points(text), _word_table(), False)

    @property
    def num_words(self) -> int:
        return self.words[0]

    @property
    def word_chars(self) -> int:
        return self.words[1]

    @cached_property
    def ngrams(self) -> list[float]:
        """[11]: see `kernels.ngram_shares`."""
        return self.words[3].tolist()

    @cached_property
    def raw_words(self) -> list[int]:
        """Counts over the words of the raw text: see `document_kernels.raw_words`."""
        cp = self.cp
        if self.natural in ("zh", "ja"):
            cp = code_points(split_han(self.content, self.natural))
        return document_kernels.raw_words(cp, self.table, _stop_table(self.natural)).tolist()

    @cached_property
    def document(self) -> list[int]:
        """Counts over sentences, lines and links: see `document_kernels.document_measures`."""
        return document_kernels.document_measures(self.cp, self.table).tolist()

    # --- comments and code ---------------------------------------------------------------------------------------
    @cached_property
    def source(self) -> str:
        """The text the comment scanner sees: in `compat` line ends are normalised and outer newlines cut, as a
        Pygments lexer does before it starts (Perl is split by lines there, without a lexer)."""
        if not self.compat or self.language == "perl" or compat_syntax(self.language) is None:
            return self.content
        text = self.content.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
        return text.strip("\n") + "\n"

    @cached_property
    def source_cp(self) -> np.ndarray:
        return self.cp if self.source is self.content else code_points(self.source)

    @cached_property
    def mask(self) -> np.ndarray:
        """uint8 per character of `source`: scan.CODE, COMMENT or STRING."""
        if self.compat:
            from .compat_comments import comment_mask

            return comment_mask(self)
        return default_syntax(self.language).scan(self.source_cp)

    @cached_property
    def split(self) -> tuple[list[int], np.ndarray, np.ndarray]:
        """(measures, code, comments): see `measures.code_measures`."""
        out, code, comment = measures.code_measures(self.source_cp, self.mask, self.table, self.compat)
        return out.tolist(), code, comment

    @property
    def measures(self) -> list[int]:
        """Counts over code, literals and comments: see `measures.CODE_LINES`."""
        return self.split[0]

    @property
    def code_cp(self) -> np.ndarray:
        """The text without comments."""
        return self.split[1]

    @cached_property
    def code(self) -> str:
        return text_of(self.code_cp, self.ascii)

    @cached_property
    def code_lower(self) -> str:
        return self.code.lower()

    @cached_property
    def comment(self) -> str:
        """Comments. In `default` every line end of the file stays, so that each comment keeps its line; the released
        filter joins line comments whose token leaves the newline to the code."""
        return text_of(self.split[2], self.ascii)

    @property
    def num_code_lines(self) -> int:
        """Lines of the code that are not blank."""
        return self.split[0][measures.CODE_LINES]

    @cached_property
    def code_utf8(self) -> bytes:
        return self.code_cp.astype(np.uint8).tobytes() if self.ascii else self.code.encode("utf-8", "replace")

    # --- compat only ---------------------------------------------------------------------------------------------
    @cached_property
    def compat_matches(self) -> dict:
        """Results shared by signals of `compat_languages`."""
        return {}

    @cached_property
    def structure(self):
        """What the parser says of this document (`structure.Structure`), None for a language without a query."""
        from .structure import parse

        return parse(self)


@lru_cache(64)
def _stop_table(natural: str) -> np.ndarray:
    return document_kernels.stop_table(natural)


@cache
def _han():
    return re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+|[【】]")


def split_han(text: str, natural: str) -> str:
    """Put blanks between the words of Chinese or Japanese runs.

    Without a dictionary a run is cut into pairs of characters: the mean length of a Chinese word is 1.6 to 1.8
    characters, so that counts and mean lengths stay near those of a segmenter (docs/refinecode/filter_decisions.md).
    """

    def cut(match):
        run = match.group()
        return " " + " ".join(run[i : i + 2] for i in range(0, len(run), 2)) + " "

    return _han().sub(cut, text)


def count_lines_with(text: str, *needles: str) -> int:
    """Number of lines of `text` that contain one of `needles`."""
    hits: set[int] = set()
    for needle in needles:
        at = text.find(needle)
        while at >= 0:
            start = text.rfind("\n", 0, at) + 1
            hits.add(start)
            end = text.find("\n", at)
            if end < 0:
                break
            at = text.find(needle, end)
    return len(hits)
