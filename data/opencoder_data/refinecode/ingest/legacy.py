"""Which legacy encoding a text is in that is not UTF-8: the shortest description wins.

Source files hold few characters beyond ASCII, often a single letter, so that statistics of whole texts (charset detectors)
fail: they made `é}` a Chinese character. Here each pair of an encoding and a language that is written in it is charged, in
bits, for every character beyond ASCII: how rare it is in that language (`tables/characters.json`), how odd its place is (a
letter without neighbors, a sign inside a word, a lone Chinese character between Latin letters), and a start fee by which
cp1252 goes before all others. Pieces that repeat are charged once.

An encoding whose characters take an ASCII byte as their second (GB 18030, Big5, Shift JIS, UHC) is considered only where the
text is in its script: most characters beyond ASCII are in runs and are usual in the language, and hardly any that takes
an ASCII byte stands alone. A lone Latin letter therefore never swallows what follows it.
"""

import json
import re
from functools import cache
from importlib import resources
from typing import NamedTuple

from opencoder_data.refinecode.ingest import central

# Pieces around bytes beyond ASCII that are looked at, at most.
_PIECES = 4_000
# Dearer per character than this is not text of any language here; a few characters may be rare ones.
_TOO_DEAR = 15.0
_DEAR_FOR_A_TEXT = 12.0
_ASCII_BYTE = 6
# A run of so many letters of which none occurs twice is a list of letters, not a word.
_LISTED = 10

_WESTERN = ("de", "fr", "es", "pt", "it", "da", "nb", "sv", "fi", "nl", "ca", "is", "sq", "gl", "ga")
_CENTRAL = ("pl", "cs", "sk", "hu", "hr", "sl", "ro")


class Candidate(NamedTuple):
    """An encoding, languages written in it, its start fee in bits, and whether its characters are two bytes wide."""

    encoding: str
    languages: tuple[str, ...]
    fee: int
    wide: bool = False

    @property
    def latin(self) -> bool:
        """Whether its letters beyond ASCII are Latin ones."""
        return self.encoding in ("cp1252", "cp1250", "iso8859-2", "cp1254", "cp1257")


CANDIDATES = (
    Candidate("cp1252", _WESTERN, 0),
    Candidate("cp1250", _CENTRAL, 14),
    Candidate("iso8859-2", _CENTRAL, 15),
    Candidate("cp1251", ("ru", "uk", "bg"), 8),
    Candidate("koi8-r", ("ru",), 9),
    Candidate("koi8-u", ("uk",), 12),
    Candidate("cp1253", ("el",), 12),
    Candidate("cp1254", ("tr",), 20),
    Candidate("cp1255", ("he",), 12),
    Candidate("cp1256", ("ar",), 12),
    Candidate("cp1257", ("lt", "lv", "et"), 22),
    Candidate("cp874", ("th",), 14),
    Candidate("gb18030", ("zh",), 10, True),
    Candidate("big5", ("zh_tw",), 11, True),
    Candidate("cp932", ("ja",), 10, True),
    Candidate("euc_jp", ("ja",), 10, True),
    Candidate("cp949", ("ko",), 10, True),
)
# Signs of every Western text: any language may use them.
_SIGNS = frozenset("°§£©®«»“”‘’–—…€µ±²³½¼·×™•¿¡ªº¹÷¬¢¥\xa0")
_QUOTES = frozenset("“”‘„‚«»")


@cache
def _costs() -> dict[str, dict[str, int]]:
    directory = resources.files("opencoder_data.refinecode") / "tables"
    table: dict[str, dict[str, str]] = json.loads((directory / "characters.json").read_text("utf-8"))
    return {lang: {c: int(bits) for bits, group in groups.items() for c in group} for lang, groups in table.items()}


@cache
def _western_letters() -> frozenset[str]:
    return frozenset(c for lang in _WESTERN for c in _costs()[lang] if c.isalpha() and ord(c) < 0x250)


def detect(data: bytes) -> str | None:
    """Name of the encoding (Python's) that explains the bytes beyond ASCII best; None when none explains them.

    `data` is not UTF-8. Pure; the same bytes give the same answer.
    """
    by_words = central.encoding(data)
    best = _cheapest(data, by_words is not None or central.possible(data))
    # Words tell Central Europe from the West; the costs of single letters tell both from the rest.
    return by_words if by_words is not None and (best == "cp1252" or best in central.ENCODINGS) else best


def _cheapest(data: bytes, central_too: bool) -> str | None:
    pieces = _pieces(data)
    best: tuple[float, str] | None = None
    for candidate in CANDIDATES:
        if candidate.encoding in central.ENCODINGS and not central_too:
            continue
        decoded = _decoded(pieces, candidate.encoding)
        if decoded is None or not _in_script(decoded, candidate):
            continue
        beyond = sum(not c.isascii() for text, _ in decoded for c in text)
        limit = candidate.fee + (_TOO_DEAR if beyond < 10 else _DEAR_FOR_A_TEXT) * beyond
        for language in candidate.languages:
            cost = candidate.fee + sum(_charge(text, language, candidate, eaten) for text, eaten in decoded)
            if cost <= limit and (best is None or cost < best[0]):
                best = (cost, candidate.encoding)
    return best[1] if best else None


def is_wide(encoding: str) -> bool:
    """Whether the encoding's characters take two bytes."""
    return any(c.wide for c in CANDIDATES if c.encoding == encoding)


def usual(character: str) -> bool:
    """Whether some language's texts hold this character."""
    return character in _SIGNS or any(character in costs for costs in _costs().values())


def _pieces(data: bytes) -> list[bytes]:
    """Distinct pieces: unbroken runs of non-blank bytes, cut to what is at bytes beyond ASCII."""
    found: dict[bytes, None] = {}
    for match in re.finditer(rb"[!-~]?[\x80-\xff](?:[!-\xff]*[\x80-\xff])?[!-~]{0,2}", data):
        found[match.group()] = None
        if len(found) >= _PIECES:
            break
    return list(found)


def _decoded(pieces: list[bytes], encoding: str) -> list[tuple[str, int]] | None:
    """(text, ASCII bytes that are part of another character) per piece; None when one does not decode."""
    out = []
    for piece in pieces:
        try:
            text = piece.decode(encoding)
        except UnicodeDecodeError:
            return None
        eaten = sum(b < 0x80 for b in piece) - sum(c.isascii() for c in text)
        out.append((text, eaten))
    return out


def _in_script(decoded: list[tuple[str, int]], candidate: Candidate) -> bool:
    """Whether the text can be in the candidate's script: Latin always, others when most letters are usual ones in runs."""
    if candidate.wide:
        return _truly_wide(decoded, candidate)
    if candidate.latin:
        return True
    listed = set().union(*(_costs()[language] for language in candidate.languages))
    runs = [run for text, _ in decoded for run in re.findall(r"[^\W\d_]+", text) if not run.isascii()]
    runs = [run for run in runs if len(run) < _LISTED or len(set(run)) < len(run)]
    letters = [c for run in runs for c in run if not c.isascii()]
    beyond = sum(not c.isascii() for text, _ in decoded for c in text)
    usual = sum(c in listed for c in letters)
    return len(letters) >= max(1, 0.6 * beyond, 2 * len(runs)) and usual >= 0.9 * len(letters)


def _truly_wide(decoded: list[tuple[str, int]], candidate: Candidate) -> bool:
    """Whether the text is in the candidate's script, so that its characters may take ASCII bytes."""
    language = candidate.languages[0]
    total = in_runs = usual = alone = 0
    for text, eaten in decoded:
        for run in re.findall(r"[^\x00-\x7f]+", text):
            total += len(run)
            usual += sum(_wide_bits(c, language, candidate.encoding) <= 14 for c in run)
            if len(run) > 1:
                in_runs += len(run)
            elif eaten and not run.encode(candidate.encoding, "replace")[-1:] >= b"\x80":
                alone += 1
    return in_runs >= 2 and in_runs >= 0.6 * total and usual >= 0.8 * total and alone <= 0.1 * total


def _charge(text: str, language: str, candidate: Candidate, eaten: int) -> float:
    """Bits for a piece's characters beyond ASCII."""
    bits = -float(_ASCII_BYTE * eaten)
    before = ""
    for i, character in enumerate(text):
        if not character.isascii():
            after = text[i + 1 : i + 2]
            if candidate.wide:
                bits += _wide_bits(character, language, candidate.encoding) + _wide_place(before, after)
            else:
                bits += _narrow_bits(character, language) + _narrow_place(before, character, after, candidate.latin)
        before = character
    return bits


def _wide_place(before: str, after: str) -> float:
    start = not before or before.isascii()
    bits = 4.0 if start else 0.0
    if start and (not after or after.isascii()):
        bits += 6
    return bits + (before.isascii() and before.isalpha()) + (after.isascii() and after.isalpha())


@cache
def _wide_bits(character: str, language: str, encoding: str) -> int:
    """By frequency, else by the part of its character set: level 1 holds the usual characters, level 2 the rest."""
    listed = _costs()[language].get(character)
    if listed is not None:
        return listed
    code = ord(character)
    if 0x3001 <= code <= 0x3011 or 0xFF01 <= code <= 0xFF5E:
        return 10
    if language == "ja" and 0x3041 <= code <= 0x30FC:
        return 9
    try:
        raw = character.encode(encoding)
    except UnicodeEncodeError:
        return 25
    if len(raw) != 2:
        return 22  # half-width kana, four-byte characters
    lead, trail = raw
    usual = {
        "gb18030": 0xB0 <= lead <= 0xD7 and trail >= 0xA1,
        "big5": 0xA4 <= lead <= 0xC6,
        "cp932": 0x88 <= lead <= 0x98,
        "euc_jp": 0xB0 <= lead <= 0xCF,
        "cp949": 0xB0 <= lead <= 0xC8 and trail >= 0xA1,
    }[encoding]
    if usual:
        return 14
    rare = (encoding == "gb18030" and (lead < 0xA1 or trail < 0xA1)) or (encoding == "cp949" and trail < 0xA1)
    return 23 if rare else 18


@cache
def _narrow_bits(character: str, language: str) -> float:
    listed = _costs()[language].get(character)
    if character in _SIGNS:
        return min(8, listed if listed is not None else 8)
    if listed is not None:
        return listed
    if not character.isprintable() or 0x80 <= ord(character) < 0xA0:
        return 25
    if character in _western_letters():
        return 9 if language in _WESTERN else 11
    return 13 if character.isalpha() else 14


def _narrow_place(before: str, character: str, after: str, latin: bool) -> float:
    left, right = before.isalpha(), after.isalpha()
    if not character.isalpha():
        if not (left and right) or character in "’·\xa0–—":
            return 0.0
        return 6.0 if character in _QUOTES else 4.0
    bits = 0.0 if left or right else 4.0
    if latin:
        bits += 3.0 * (left and not before.isascii())
    else:
        bits += 0.0 if left and not before.isascii() else 2.0
        bits += 6.0 * ((left and before.isascii()) + (right and after.isascii()))
    bits += 6.0 * (character.isupper() and left and before.islower())
    bits += 4.0 * (character.islower() and right and after.isupper() and not left)
    return bits
