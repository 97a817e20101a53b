"""Personal data and secrets, replaced by placeholders: ``<email>``, ``<ip_address>``, ``<key>``, ``<token>``,
``<password>``, ``<name>``.

Code must come out as code. Candidates come from patterns over the bytes, in linear time, with checks that refuse versions,
private addresses, example domains, coordinates of packages, test fixtures and words that only look like secrets. What
stands in code, outside its comments and string literals, stays (`regions`); a file that parsed and would not parse after
stays as a whole. The paper names passwords, e-mail, IP addresses and names, with ``<name>`` and ``<password>`` as
placeholders; its patterns are not published.
"""

import bisect
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import re2

from opencoder_data.refinecode.transform.addresses import ipv4, ipv6
from opencoder_data.refinecode.transform.candidates import Candidate, Source, source
from opencoder_data.refinecode.transform.credentials import assigned, tokens, url_passwords
from opencoder_data.refinecode.transform.emails import emails
from opencoder_data.refinecode.transform.private_keys import private_keys
from opencoder_data.refinecode.transform.regions import Locator, Place

# What a replacement lays bare is looked at again; each pass replaces something, and files need two.
_MAX_PASSES = 20


def remove_personal(text: str, path: str = "", language: str | None = None) -> tuple[str, dict[str, int]]:
    """The text with placeholders, and how many of each kind were put in.

    `path` tells test fixtures, whose passwords stay, and lists of dependencies, whose versions do. `language` (canonical name)
    tells what is comment, literal and code; without it the file is text. Idempotent: a placeholder matches no pattern, and
    passes go on until one finds nothing.
    """
    counts: Counter[str] = Counter()
    data, locator = text.encode("utf-8"), Locator(language)
    parsed = None
    for _ in range(_MAX_PASSES):
        found = _pass(source(data, language, path), locator, counts)
        if found is None:
            break
        if parsed is None:
            parsed = locator.parsed
        data = found
    if not counts or (parsed and locator.parses(data) is False):
        return text, {}
    return data.decode("utf-8"), dict(counts)


def _pass(file: Source, locator: Locator, counts: Counter[str]) -> bytes | None:
    """The file with what one pass of every finder replaces, `counts` added to; None where that is nothing."""
    data = file.data
    candidates = [c for needed, find in _FINDERS if not needed or any(n in data for n in needed) for c in find(file)]
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
    return b"".join([*pieces, data[position:]])


def _overlaps(taken: list[tuple[int, int, bytes]], piece: tuple[int, int]) -> bool:
    i = bisect.bisect_left(taken, (piece[1],))
    return i > 0 and taken[i - 1][1] > piece[0]


def _written(placeholder: bytes, place: Place) -> bytes:
    """The placeholder as it can stand there without opening a tag or redirecting a command."""
    if place is Place.MARKUP:
        return placeholder.replace(b"<", b"&lt;").replace(b">", b"&gt;")
    return b"'" + placeholder + b"'" if place is Place.WORD else placeholder


# --- names ------------------------------------------------------------------------------------------------------------

_AUTHOR = None


def _author_patterns() -> tuple[Any, Any]:
    global _AUTHOR
    if _AUTHOR is None:
        word = r"\p{Lu}\p{L}*(?:['-]\p{L}+)*"
        name = rf"({word}(?: \p{{Lu}}\.)?(?: (?:van|von|de|der|den|la|le|da|di|del|dos))?(?: {word}){{1,3}})"
        tag = re2.compile(
            r"(?m)^[ \t]*(?:[*#;%!]+|//+|--+|/\*+|REM)?[ \t]*(?:@author:?|\\author|[Aa]uthors?[ \t]*:|[Ww]ritten by:?|[Cc]reated by:?|"
            r"[Mm]aintainer[ \t]*:|[Cc]ontributors?[ \t]*:)[ \t]+" + name
        )
        dunder = re2.compile(r"(?m)^__(?:author|maintainer|credits)__[ \t]*=[ \t]*[\"']" + name)
        _AUTHOR = tag, dunder
    return _AUTHOR


_NO_NAME = re.compile(r"\b(?:Team|Inc|Ltd|LLC|Corp|Foundation|Project|University|Contributors?|Authors?|Group|The|Visual|Studio|"
                      r"Android|Eclipse|Maven|Apache|Google|Microsoft|Software|Community|Name|Code|Tool|Generator|Date|Version)\b")  # fmt: skip


def _names(file: Source) -> Iterator[Candidate]:
    """Names of persons after a tag that says author."""
    for pattern in _author_patterns():
        for match in pattern.finditer(file.data):
            start, end = match.span(1)
            if not _NO_NAME.search(file.data[start:end].decode("utf-8", "replace")):
                yield Candidate(b"<name>", ((start, end),))


# In order of precedence, each with what a file must hold to be searched.
_FINDERS: tuple[tuple[tuple[bytes, ...], Callable[[Source], Iterator[Candidate]]], ...] = (
    ((b"PRIVATE KEY", b"Private-Lines"), private_keys),
    ((), tokens),
    ((b"://",), url_passwords),
    ((), assigned),
    ((b"@",), emails),
    ((b".",), ipv4),
    ((b":",), ipv6),
    ((b"uthor", b"ritten by", b"reated by", b"aintainer", b"ontributor", b"__credits__"), _names),
)
