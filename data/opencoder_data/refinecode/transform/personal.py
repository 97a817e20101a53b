"""Personal data and secrets, replaced by placeholders: ``<email>``, ``<ip_address>``, ``<key>``, ``<token>``,
``<password>``, ``<name>``.

Code must come out as code. Candidates come from patterns over the bytes, in linear time, with checks that reject versions,
private addresses, example domains, coordinates of packages, test fixtures and words that only look like secrets. What
is in code, outside its comments and string literals, stays (`regions`); a file that parsed and would not parse after
stays as a whole. The paper names passwords, e-mail, IP addresses and names, with ``<name>`` and ``<password>`` as
placeholders; its patterns are not published.
"""

import bisect
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import re2

from opencoder_data.refinecode.transform.addresses import IPV4, IPV6, ipv4, ipv6
from opencoder_data.refinecode.transform.candidates import Candidate, Hits, Source, compile_latin1
from opencoder_data.refinecode.transform.credentials import TOKEN_MARKS, TRIGGERS, announced, tokens, url_passwords
from opencoder_data.refinecode.transform.emails import MARK as email_mark
from opencoder_data.refinecode.transform.emails import emails
from opencoder_data.refinecode.transform.private_keys import MARK as private_keys_mark
from opencoder_data.refinecode.transform.private_keys import private_keys
from opencoder_data.refinecode.transform.regions import Locator, Place

Finder = Callable[[Source, Hits], Iterator[Candidate]]

# What a replacement lays bare is looked at again; each pass replaces something, and files need two.
_MAX_PASSES = 20
# Languages whose literals may be delimited by angle brackets.
_ANGLE_LITERALS = frozenset(("ruby", "perl", "elixir", "crystal", "raku"))


def remove_personal(text: str, path: str = "", language: str | None = None) -> tuple[str, dict[str, int]]:
    """The text with placeholders, and how many of each kind were put in.

    `path` tells test fixtures, whose passwords stay, and lists of dependencies, whose versions do. `language` (canonical name)
    tells what is comment, literal and code; without it the file is text. Idempotent: a placeholder matches no pattern, and
    passes go on until one finds nothing.
    """
    counts: Counter[str] = Counter()
    data, locator = text.encode("utf-8"), Locator(language)
    parsed, delicate = None, language in _ANGLE_LITERALS
    for _ in range(_MAX_PASSES):
        found = _pass(Source(data, language, path), locator, counts)
        if found is None:
            break
        data, outside = found
        parsed = locator.parsed if parsed is None else parsed
        delicate = delicate or outside
    # In a comment or literal of a text that parsed, a placeholder cannot change the syntax; elsewhere it is checked.
    if not counts or (parsed and delicate and locator.parses(data) is False):
        return text, {}
    return data.decode("utf-8"), dict(counts)


def _pass(file: Source, locator: Locator, counts: Counter[str]) -> tuple[bytes, bool] | None:
    """The file with what one pass of every finder replaces, `counts` added to, and whether any of it stood outside comments
    and literals; None where there is nothing to replace."""
    data = file.data
    candidates = _candidates(file)
    if not candidates:
        return None
    spans = [piece for candidate in candidates for piece in candidate.pieces]
    where = dict(zip(spans, locator.places(data, spans), strict=True))
    taken: list[tuple[int, int, bytes]] = []
    for candidate in candidates:  # in order of precedence
        if Place.CODE in (where[piece] for piece in candidate.pieces) or any(
            _overlaps(taken, p) for p in candidate.pieces
        ):
            continue
        for piece in candidate.pieces:
            bisect.insort(taken, (*piece, _written(candidate.placeholder, where[piece])))
        counts[candidate.placeholder.decode()] += 1
    if not taken:
        return None
    pieces, position = [], 0
    for start, end, placeholder in taken:
        pieces += [data[position:start], placeholder]
        position = end
    outside = any(where[start, end] in (Place.MARKUP, Place.WORD) for start, end, _ in taken)
    return b"".join([*pieces, data[position:]]), outside


def _candidates(file: Source) -> list[Candidate]:
    """What the finders propose, in order of precedence."""
    hits: dict[Finder, Hits] = {}
    for match in _MARKS.finditer(file.data):
        start, end = match.span()
        finder = _finder(file.data[start:end])
        hits.setdefault(finder, []).append((start, end))
    candidates = [c for finder in _FINDERS if finder in hits for c in finder(file, hits[finder])]
    if b"://" in file.data:
        candidates[:0] = url_passwords(file)
    return candidates


def _finder(mark: bytes) -> Finder:
    """Whose mark it is."""
    if mark[-1:] == b"@":
        return emails
    if mark.count(b".") == 3 and mark[:1].isdigit():
        return ipv4
    if mark.count(b":") >= 4:
        return ipv6
    if mark in _AUTHOR_MARKS:
        return _names
    return (
        private_keys
        if mark in (b"PRIVATE KEY", b"Private-Lines")
        else announced
        if _TRIGGER.fullmatch(mark)
        else tokens
    )


def _overlaps(taken: list[tuple[int, int, bytes]], piece: tuple[int, int]) -> bool:
    i = bisect.bisect_left(taken, (piece[1],))
    return i > 0 and taken[i - 1][1] > piece[0]


def _written(placeholder: bytes, place: Place) -> bytes:
    """The placeholder as it can be there without opening a tag or redirecting a command."""
    if place is Place.MARKUP:
        return placeholder.replace(b"<", b"&lt;").replace(b">", b"&gt;")
    return b"'" + placeholder + b"'" if place is Place.WORD else placeholder


# --- names ------------------------------------------------------------------------------------------------------------

_AUTHOR = None


def _author_patterns() -> tuple[Any, Any, Any]:
    global _AUTHOR
    if _AUTHOR is None:
        word = r"\p{Lu}\p{L}*(?:['-]\p{L}+)*"
        name = rf"({word}(?: \p{{Lu}}\.)?(?: (?:van|von|de|der|den|la|le|da|di|del|dos))?(?: {word}){{1,3}})"
        more = re2.compile(rf" (?:and|&) {name}")
        tag = re2.compile(
            r"(?m)^[ \t]*(?:[*#;%!]+|//+|--+|/\*+|REM)?[ \t]*(?:@author:?|\\author|[Aa]uthors?[ \t]*:|[Ww]ritten by:?|[Cc]reated by:?|"
            r"[Mm]aintainer[ \t]*:|[Cc]ontributors?[ \t]*:)[ \t]+" + name
        )
        dunder = re2.compile(r"(?m)^__(?:author|maintainer|credits)__[ \t]*=[ \t]*[\"']" + name)
        _AUTHOR = tag, dunder, more
    return _AUTHOR


_NO_NAME = re.compile(
    r"\b(?:Team|Inc|Ltd|LLC|Corp|Corporation|Company|GmbH|Limited|Foundation|Project|University|Institute|Laboratory|Laboratories|Labs?|Center|Centre|"
    r"Department|Association|Consortium|Committee|Contributors?|Authors?|Developers?|Group|The|Visual|Studio|IntelliJ|Idea|IDEA|Xcode|PhpStorm|PyCharm|"
    r"Android|Eclipse|Maven|Apache|Google|Microsoft|Intel|Oracle|Amazon|Software|Systems|Technolog(?:y|ies)|Solutions|Services|Networks?|Research|"
    r"International|Community|Open|Source|Name|Code|Tool|Generator|Date|Version|Template)\b"
)


def _names(file: Source, hits: Hits) -> Iterator[Candidate]:
    """Names of persons after a tag that says author."""
    *patterns, more = _author_patterns()
    for pattern in patterns:
        for match in pattern.finditer(file.data):
            while match is not None and not _NO_NAME.search(match[1].decode("utf-8", "replace")):
                yield Candidate(b"<name>", (match.span(1),))
                match = more.match(file.data, match.end(1))  # "Ann Bell and Carl Dahl"


# In order of precedence.
_FINDERS: tuple[Finder, ...] = (private_keys, tokens, announced, emails, ipv4, ipv6, _names)
_AUTHOR_MARKS = frozenset((b"uthor", b"ritten by", b"reated by", b"aintainer", b"ontributor", b"__credits__"))
# One pass over a file finds where any finder may look.
_MARKS = compile_latin1(
    "|".join(
        (
            private_keys_mark,
            TOKEN_MARKS,
            TRIGGERS,
            email_mark,
            IPV4,
            IPV6,
            "uthor|ritten by|reated by|aintainer|ontributor|__credits__",
        )
    )
)
_TRIGGER = compile_latin1(TRIGGERS)
