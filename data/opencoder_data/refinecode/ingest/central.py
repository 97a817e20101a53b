"""Whether a text that could be cp1252 is in a Central European encoding: cp1250 or ISO 8859-2.

The same bytes are `ñ` or `ń`, `è` or `č`, `³` or `ł`; single letters do not tell. Words do: their letters beyond ASCII have
neighbors that are usual in some language or in none (`tables/letter_contexts.json`), and a sign of cp1252 inside a word or
right before one is odd. Each distinct word says for how many bits one reading goes before the other, up to a bound that a
word by itself does not get over: what one word could decide stays cp1252. Usual words in ASCII of a language that is written
in these encodings count too, where there are several.
"""

import itertools
import json
import re
from functools import cache
from importlib import resources

WESTERN = (
    "af", "ast", "br", "ca", "da", "de", "es", "et", "eu", "fi", "fo", "fr", "fur", "ga", "gl", "is", "it", "nb", "nl", "nn", "oc",
    "pt", "pt_BR", "sq", "sv", "wa",
)  # fmt: skip
CENTRAL = ("pl", "cs", "sk", "hu", "hr", "sl", "ro")
ENCODINGS = ("cp1250", "iso8859-2")

# Bits that all words together must give, that one word may give for and against, and that no word exceeds.
_NEEDED, _MOST_FOR, _MOST_AGAINST, _DEAREST = 10.0, 8.0, 12.0, 60.0
_POSSIBLE = 4.0
_USUAL_WORD, _FEWEST_USUAL, _MOST_BYTES = 2.0, 3, 200_000
_MOST_WORDS = 2_000
# Neighbors that were not seen; letters that the language does not have.
_UNSEEN, _FOREIGN = 9, 16
_SIGN_IN_WORD, _SIGN_BEFORE_WORD, _SIGN_AFTER_WORD, _CAPITAL_IN_WORD = 18, 12, 6, 8
# `ñ` is before these endings in no Western language, `ń` in thousands of Polish names.
_SURNAME = re.compile("ñsk(?:i|a|iego|iemu|im|iej|ich)$")
# These begin a word or follow one in Western texts.
_BEFORE, _AFTER = frozenset("«“„‘¿¡©§·•–—\xa0"), frozenset("»”’…™®©°·²³¹ºª–—\xa0")


@cache
def _table() -> dict[str, dict]:
    directory = resources.files("opencoder_data.refinecode") / "tables"
    return json.loads((directory / "letter_contexts.json").read_text("utf-8"))


@cache
def _usual_words() -> dict[str, frozenset[bytes]]:
    return {language: frozenset(_table()[language]["words"].encode().split()) for language in CENTRAL}


@cache
def _contexts() -> dict[str, dict[str, tuple[int, dict[str, int], dict[str, int]]]]:
    """{language: {letter: (bits of the letter, bits of what is before it, of what is after it)}}."""

    def flat(groups: dict[str, str]) -> dict[str, int]:
        return {letter: int(bits) for bits, letters in groups.items() for letter in letters}

    return {
        language: {c: (e["bits"], flat(e["before"]), flat(e["after"])) for c, e in entry["letters"].items()}
        for language, entry in _table().items()
    }


def encoding(data: bytes) -> str | None:
    """The Central European encoding that explains the words of `data` better than cp1252, or None. Pure."""
    words = _words(data)
    fit = {name: bits for name in ENCODINGS if (bits := _evidence(words, name)) is not None}
    most = max(fit.values(), default=0.0)
    if most <= 0 or most + _of_usual_words(data) <= _NEEDED:
        return None
    return min(fit, key=lambda name: sum(_cost(word.decode(name), CENTRAL) for word in words))


def _of_usual_words(data: bytes) -> float:
    """Bits for several usual words of one of these languages."""
    words = {
        word.lower() for word in re.findall(rb"(?<![\w\x80-\xff])[A-Za-z]{3,}(?![\w\x80-\xff])", data[:_MOST_BYTES])
    }
    count = max(len(words & usual) for usual in _usual_words().values())
    return _USUAL_WORD * count if count >= _FEWEST_USUAL else 0.0


def possible(data: bytes) -> bool:
    """Whether no word speaks against both of these encodings: signs alone make no text of Central Europe."""
    words = _words(data)
    return any((bits := _evidence(words, name)) is not None and bits > _POSSIBLE for name in ENCODINGS)


def _words(data: bytes) -> list[bytes]:
    """Distinct words of at least three letters, two of them ASCII, with a byte beyond ASCII."""
    found: dict[bytes, None] = {}
    for match in re.finditer(rb"[A-Za-z\x80-\xff]*[\x80-\xff][A-Za-z\x80-\xff]*", data):
        word = match.group()
        if len(word) >= 3 and sum(b < 0x80 for b in word) >= 2:
            found[word] = None
            if len(found) >= _MOST_WORDS:
                break
    return list(found)


def _evidence(words: list[bytes], name: str) -> float | None:
    """Bits for the encoding `name` and against cp1252; None where a word cannot be in it."""
    total = 0.0
    for word in words:
        try:
            central = word.decode(name)
        except UnicodeDecodeError:
            return None
        if any("\x80" <= c < "\xa0" for c in central):
            return None
        western = word.decode("cp1252", "replace")
        letters = sum(b < 0x80 for b in word)
        if _SURNAME.search(western):
            total += _NEEDED + 1
        elif western != central and (letters > 2 or western.isalpha()):
            bits = _cost(western, WESTERN) - _cost(central, CENTRAL)
            total += max(-_MOST_AGAINST, min(_MOST_FOR, bits))
    return total


def _cost(word: str, languages: tuple[str, ...]) -> float:
    """Bits of a word's characters beyond ASCII in the language that explains them best."""
    bits = 0
    while word and word[0] in _BEFORE:
        bits += 0 if word[0] not in "©" or word[1:2].isupper() else _SIGN_BEFORE_WORD
        word = word[1:]
    while word and word[-1] in _AFTER:
        bits += _SIGN_AFTER_WORD if word[-1] in "¹²³ºª" else 0
        word = word[:-1]
    while word and not word[0].isalpha() and not word[0].isascii():
        bits += _SIGN_BEFORE_WORD
        word = word[1:]
    if word.isascii():
        return bits
    pairs = itertools.pairwise(word)
    bits += _CAPITAL_IN_WORD * sum(a.islower() and b.isupper() and not b.isascii() for a, b in pairs)
    return min(_DEAREST, bits + min(_in_language(f"^{word.lower()}$", language) for language in languages))


def _in_language(word: str, language: str) -> float:
    letters = _contexts()[language]
    bits = 0.0
    for i in range(1, len(word) - 1):
        character = word[i]
        if character.isascii():
            continue
        if not character.isalpha() or character in "ªº":
            bits += _SIGN_IN_WORD
        elif (known := letters.get(character)) is None:
            bits += _FOREIGN
        else:
            bits += known[0] + known[1].get(word[i - 1], _UNSEEN) + known[2].get(word[i + 1], _UNSEEN)
    return bits
