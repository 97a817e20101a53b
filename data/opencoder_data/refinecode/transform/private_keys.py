"""Private keys in PEM, PGP and SSH2 armour, wherever they are written: plain, in literals of any language, behind comment marks.

Only the base64 text is replaced. Where its lines are parted by nothing but line breaks (or escapes of such), one placeholder
means all of them; else (literals that are joined, comment marks) one is in each line, so that quotes, operators,
marks and indentation remain.
"""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from opencoder_data.refinecode.transform.candidates import Candidate, Hits, Source, compile_latin1

PLACEHOLDER = b"<key>"
_MAX = 40_000
_LONG, _ENOUGH = 16, 64

MARK = r"PRIVATE KEY|Private-Lines"
_BEGIN = compile_latin1(r"-----? ?BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?(?:-----| ----)")
_END = re.compile(rb"-----? ?END (?:[A-Z0-9]+ ){0,3}PRIVATE KEY")
# Escapes and entities of line breaks, so that their letters are not taken for base64; then base64 itself.
_TOKEN = re.compile(
    rb"(?P<break>\\+[nrt]|\\+u000[adAD]|\\+x0[adAD]|\\+0?1[25]|%0[adAD]|&#(?:1[03]|x0?[adAD]);|\\$)|(?P<text>(?:[A-Za-z0-9+/=]|\\/|\\u00(?:3d|2b|2f))+)",
    re.IGNORECASE | re.MULTILINE,
)
_PUTTY = re.compile(rb"^[ \t]*Private-Lines: (\d{1,3})\r?\n((?:[ \t]*[A-Za-z0-9+/=]{1,76}\r?\n){1,200})", re.MULTILINE)


def private_keys(source: Source, hits: Hits) -> Iterator[Candidate]:
    """Bodies of private keys of at least 64 characters; hits: where `MARK` matches."""
    if source.fixture or not hits:
        return
    data = source.data
    begin = -1
    for start, end, opens in sorted(
        [(*m.span(), True) for m in _BEGIN.finditer(data)] + [(*m.span(), False) for m in _END.finditer(data)]
    ):
        if opens:
            begin = end
        elif 0 <= begin <= start <= begin + _MAX:
            pieces = _body(data, begin, start)
            begin = -1
            if pieces:
                yield Candidate(PLACEHOLDER, pieces)
    for match in _PUTTY.finditer(data):
        body = match.group(2).rstrip()
        start = match.start(2) + len(match.group(2)) - len(match.group(2).lstrip(b" \t"))
        yield Candidate(PLACEHOLDER, ((start, match.start(2) + len(body)),))


def _body(data: bytes, begin: int, end: int) -> tuple[tuple[int, int], ...]:
    """Pieces of base64 between the armour's lines; none where the text between is something else."""
    tokens = [m for m in _TOKEN.finditer(data, begin, end) if m.lastgroup == "text"]
    long = [m for m in tokens if len(m.group()) >= _LONG]
    total = sum(len(m.group()) for m in long)
    if total < _ENOUGH or total * 3 < end - begin or not _random(b"".join(m.group() for m in long)):
        return ()
    sides = {_sides(data, m.start(), m.end(), begin, end) for m in long}
    first, times = long[0].start(), Counter(m.group() for m in tokens)
    chosen = [
        m
        for m in tokens
        if len(m.group()) >= _LONG
        # The last line of a body is short. Words between lines (REM, vbCrLf) be there more than once.
        or (
            m.start() > first
            and times[m.group()] == 1
            and re.search(rb"\w", m.group())
            and _alike(_sides(data, m.start(), m.end(), begin, end), sides)
        )
    ]
    gaps = [data[a.end() : b.start()] for a, b in pairwise(chosen)]
    if all(
        re.fullmatch(rb"(?:\s|\\+[nr]|\\+u000[adAD]|%0[adAD]|&#(?:1[03]|x0?[adAD]);|\\\r?\n)*", gap) for gap in gaps
    ):
        return ((chosen[0].start(), chosen[-1].end()),)
    return tuple((m.start(), m.end()) for m in chosen)


def _random(text: bytes) -> bool:
    return bool(re.search(rb"[0-9+/]", text) and re.search(rb"[A-Z]", text) and re.search(rb"[a-z]", text))


def _sides(data: bytes, start: int, end: int, begin: int, finish: int) -> tuple[bytes, bytes]:
    """The marks beside a token, spaces and line breaks apart: what tells a line of the body from a word between lines."""
    left, right = data[max(begin, start - 80) : start].rstrip(), data[end : min(finish, end + 80)].lstrip()
    return _mark(left[-1:]), _mark(right[:1])


def _mark(character: bytes) -> bytes:
    return b"w" if character.isalnum() or character in (b"+", b"/", b"=", b"") else character


def _alike(sides: tuple[bytes, bytes], known: set[tuple[bytes, bytes]]) -> bool:
    lefts, rights = {left for left, _ in known}, {right for _, right in known}
    return sides in known or (sides[0] in lefts and sides[1] in rights and sides[0] != b"w")
