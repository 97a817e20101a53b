"""Which words of a comment are a copyright or licence notice. What is in doubt is none.

A comment's rows are cut into paragraphs (by empty rows and by rows that a program reads), a paragraph into sentences (by
punctuation, by rows that begin something new, by short rows). In a paragraph with an unmistakable notice those sentences
go that speak of rights; descriptions, usage, tags and fields stay.
"""

import re

from opencoder_data.refinecode.transform.leading_comments import Row
from opencoder_data.refinecode.transform.notice_lists import Part, with_marks
from opencoder_data.refinecode.transform.notice_patterns import (
    ABOUT,
    COPYRIGHT_OF,
    MACHINE,
    PART_OF,
    RANGE_MARKER,
    RANGES,
    STRONG,
    TAG,
    WEAK,
    WHOLE,
)

# Begins a sentence, whatever stands before it.
_STARTER = re.compile(
    r"""^\W*(?: copyright\b(?!\s+(?:notice|holder|owner|and|law|in)) | \(c\)\s*\d | © | spdx- | licen[sc]e\s*: | all\s+rights\s+reserved | authors?\s*: | written\s+by\b
      | maintain\w+\s*: )
    | ^[-*•+]\s | ^\(?(?:\d{1,2}|[a-zA-Z]|[ivx]{1,4})[.)]\s | ^[@\\$+!%&:={\[] | ^[\w.+-]+\s*[:=](?!//)\s*\w
    | ^(?!and/or\b|he/she\b|\w+[-/]\w+\s+\w+\s+\w+\s+\w)[^\s,]*\w[-_.:=/]\w[^\s,]*(?:\s|$)""",
    re.IGNORECASE | re.VERBOSE,
)
# Begins one unless the row before it breaks off.
_OPENER = re.compile(
    r"""^\W*(?: copyright\b | licen[sc]ed\b | permission\s+(?:is|to)\b | redistribution | (?:this|the)\s | see\b | use\s+of
      | unless\s+required | you\s+(?:may|should|can)\b | distributed\b | released\b | it\s+is | parts?\s+of | portions\b | based\s+on | neither\b
      | in\s+no\s+event | usage\b | note\b | file\b | created\b | description\b | version\b | date\b )""",
    re.IGNORECASE | re.VERBOSE,
)  # fmt: skip
_COPYRIGHT = re.compile(r"^\W*(?:portions\s+)?(?:copyright|\(c\)|©|spdx-|all\s+rights\s+reserved)", re.I)
_HOLDER = re.compile(
    r"^\W*(?:\d{4}\b|\S+\s*@|.{0,60}(?:@|\bat\b).*[>)]\W*$|(?:and|by)\s|.{0,50}\b(?:inc|ltd|llc|gmbh|corp|corporation|foundation|university|"
    r"institute|laborator(?:y|ies)|contributors?|authors|others|company|co|b\.v|s\.a|ag|all\s+rights\s+reserved|reserved)\b\.?\W*$)",
    re.I,
)
_GOES_ON = re.compile(
    r"(?:[,(-]|\b(?:and|or|the|of|by|to|(?-i:an?)|in|under|with|for|is|are|as|that|this|any|see|from|at|be|which|on|not|may|"
    r"if|your|its|without|no|including|either|version|such|other|all|shall|gnu|public|general|lesser|software|free|following))$",
    re.I,
)
_SENTENCE_END = re.compile(r"[.!?:][\"')\]]*$")
_BOUNDARY = re.compile(r"(?<=[.!?])[\"')\]]?\s+(?=[\"'(\[]?[A-Z©@])")
_ABBREVIATION = re.compile(
    r"(?:^\W*\d{1,2}|\b[A-Za-z]|\b(?:inc|ltd|co|corp|dr|mr|mrs|ms|st|jr|sr|vs|e\.g|i\.e|no|dept|univ|prof|etc|al|ver|vol|llc|cf|fig|sec|bros))\.[\"')\]]?$",
    re.I,
)


def machine_rows(text: str, rows: list[Row]) -> list[bool]:
    """Which rows a program reads."""
    lines = [text[row.start : row.text_end].strip(" \t\r\n\f") for row in rows]
    out = [
        MACHINE.search(line) is not None
        or TAG.match(text, row.text_start, row.text_end) is not None
        or (row.worded and MACHINE.search(text[row.left : row.right]) is not None)
        for line, row in zip(lines, rows, strict=True)
    ]
    if RANGE_MARKER.search(text, rows[0].start, rows[-1].end):
        for opening, closing in RANGES:
            begin = 0
            while (first := _next(lines, opening, begin)) is not None and (
                last := _next(lines, closing, first + 1)
            ) is not None:
                out[first : last + 1] = [True] * (last + 1 - first)
                begin = last + 1
    return out


def _next(lines: list[str], pattern: re.Pattern[str], begin: int) -> int | None:
    return next((i for i in range(begin, len(lines)) if pattern.search(lines[i])), None)


def read_as_a_whole(inside: str) -> bool:
    """Whether a block comment with this inside is read by a program."""
    return WHOLE.match(inside) is not None


def notice_parts(text: str, rows: list[Row], machine: list[bool]) -> list[Part]:
    """The parts of the rows that are notices."""
    paragraphs: list[list[list[Part]]] = []
    begin = 0
    for i in range(len(rows) + 1):
        if i == len(rows) or rows[i].left == rows[i].right or machine[i]:
            if i > begin:
                paragraphs.append(_sentences(text, rows, begin, i))
            begin = i + 1
    out: list[Part] = []
    words = [[_words(text, sentence) for sentence in sentences] for sentences in paragraphs]
    strong = [[_strong(w) for w in of_paragraph] for of_paragraph in words]
    legal = [i for i, of_paragraph in enumerate(strong) if any(of_paragraph)]
    if not legal:
        return out
    first, last = legal[0], legal[-1]
    while first > 0 and all(PART_OF.match(w) for w in words[first - 1]):
        first -= 1
    for i in range(first, len(paragraphs)):
        # Behind a notice, a paragraph that speaks of rights twice goes on with it.
        if i > last and not all(PART_OF.match(w) for w in words[i]) and len(WEAK.findall(" ".join(words[i]))) < 2:
            break
        last = max(last, i)
        for sentence in _legal_sentences(paragraphs[i], words[i], strong[i]):
            out += sentence
    return with_marks(text, rows, machine, out)


def _words(text: str, sentence: list[Part]) -> str:
    return " ".join(text[p.left : p.right] for p in sentence)


def _strong(words: str) -> bool:
    return (STRONG.search(words) is not None or COPYRIGHT_OF.match(words) is not None) and ABOUT.match(words) is None


def _legal_sentences(sentences: list[list[Part]], words: list[str], strong: list[bool]) -> list[list[Part]]:
    legal = [
        yes or (WEAK.search(w) is not None and ABOUT.match(w) is None) for yes, w in zip(strong, words, strict=True)
    ]
    if not any(strong):  # between two paragraphs with notices
        return [s for s, w, yes in zip(sentences, words, legal, strict=True) if yes or w in ("or", "and", "either")]
    for i, w in enumerate(words):
        if legal[i] or not i or not legal[i - 1]:
            continue
        # Fragments that end a notice: a name's second half, an address.
        same_row = sentences[i][0].row == sentences[i - 1][-1].row
        if (same_row and len(w.split()) <= 2) or (_COPYRIGHT.match(words[i - 1]) and _HOLDER.match(w)):
            legal[i] = True
    return [s for s, yes in zip(sentences, legal, strict=True) if yes]


def _sentences(text: str, rows: list[Row], begin: int, end: int) -> list[list[Part]]:
    """The sentences of the rows `begin` to `end`."""
    out: list[list[Part]] = []
    for i in range(begin, end):
        row = rows[i]
        pieces = _pieces(text, i, row)
        if out and i > begin and _continues(text, rows[i - 1], row, out[-1]):
            out[-1].append(pieces[0])
        else:
            out.append([pieces[0]])
        out += [[piece] for piece in pieces[1:]]
    return out


def _pieces(text: str, index: int, row: Row) -> list[Part]:
    out = []
    left = row.left
    words = text[row.left : row.right]
    for boundary in _BOUNDARY.finditer(words):
        if _ABBREVIATION.search(words[: boundary.start()]):
            continue
        out.append(Part(index, left, row.left + boundary.start()))
        left = row.left + boundary.end()
    return [*out, Part(index, left, row.right)]


def _continues(text: str, before: Row, row: Row, sentence: list[Part]) -> bool:
    """Whether a row goes on with the sentence that the row before it ends with."""
    previous, words = text[before.left : before.right], text[row.left : row.right]
    broken_off = _GOES_ON.search(previous) is not None
    if broken_off and words.startswith(("http://", "https://")):
        return True
    if _STARTER.match(words) and not (words[:1].islower() and broken_off and " " in words):
        return False
    if _OPENER.match(words) and not words[:1].islower() and not broken_off:
        return False
    if (
        before.mark != row.mark
        and before.text_end == before.end
        and {before.mark[:3], row.mark[:3]} & {"///", "//!", "#'", "#:", "#!"}
    ):
        return False
    if _SENTENCE_END.search(previous) and not _ABBREVIATION.search(previous):
        return False
    tail = text[sentence[-1].left : sentence[-1].right]
    if _COPYRIGHT.match(_words(text, sentence)) and len(sentence) == 1 and _COPYRIGHT.match(tail):
        deeper = row.left - row.start >= before.left - before.start + 8 and len(words.split()) <= 6
        return (
            deeper
            or previous.endswith((",", "&", "-"))
            or previous.endswith((" and", " by"))
            or _HOLDER.match(words) is not None
        )
    if " " not in words and not words.endswith((".", ",", ";")) and row.text_end > row.right:
        return words[-1:].isalnum() is False or text[row.right : row.text_end].strip()[:1] in (".", ",", ";")
    return len(previous) + len(words.split(maxsplit=1)[0]) >= 45 or broken_off
