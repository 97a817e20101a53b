"""Make `data/opencoder_data/refinecode/tables/letter_contexts.json`: beside which letters those beyond ASCII occur.

    python scripts/tools/letter_contexts.py --input /usr/share/locale

Read are compiled gettext catalogs, `LANG/LC_MESSAGES/*.mo`, of the languages below. Written per language and lower-case letter
beyond ASCII: the bits of its share among such letters, and of its neighbors before and after it (`^` a word's start, `$`
its end), grouped by bits. Each distinct word counts by the logarithm of how often it occurs. Of the Central European languages also
their most usual words in ASCII that are in no catalog of the others and in no English original. `ingest/central.py` tells with it
Central European encodings from cp1252. `--every N --part K` leaves out the catalogs K of N, to measure on these.
"""

import argparse
import gettext
import hashlib
import json
import math
import re
import struct
from collections import Counter, defaultdict
from pathlib import Path

TARGET = (
    Path(__file__).resolve().parents[2] / "data" / "opencoder_data" / "refinecode" / "tables" / "letter_contexts.json"
)
WESTERN = (
    "af", "ast", "br", "ca", "da", "de", "es", "et", "eu", "fi", "fo", "fr", "fur", "ga", "gl", "is", "it", "lb", "nb", "nl", "nn", "oc",
    "pt", "pt_BR", "sq", "sv", "wa",
)  # fmt: skip
CENTRAL = ("pl", "cs", "sk", "hu", "hr", "sl", "ro")
# Letters with a comma below, which cp1250 and ISO 8859-2 write with a cedilla.
CEDILLA = str.maketrans("șțȘȚ", "şţŞŢ")
MOST_BITS, RAREST_BITS = 9, 10
USUAL_WORDS = 100


def words(path: Path) -> tuple[Counter[str], set[str], set[str]]:
    """(words with letters beyond ASCII in a catalog's translations, their other words, the words of the English originals)."""
    try:
        with path.open("rb") as file:
            catalog = gettext.GNUTranslations(file)._catalog  # pyright: ignore[reportAttributeAccessIssue]
    except (OSError, UnicodeDecodeError, ValueError, struct.error):
        return Counter(), set(), set()
    catalog.pop("", None)  # the header: the translators' names
    found = [word.lower() for text in catalog.values() for word in re.findall(r"[^\W\d_]+", text)]
    keys = (key[0] if isinstance(key, tuple) else key for key in catalog)
    english = {word.lower() for text in keys for word in re.findall(r"[A-Za-z]+", text)}
    plain = {word for word in found if word.isascii() and len(word) > 2}
    return Counter(word.translate(CEDILLA) for word in found if not word.isascii()), plain, english


def contexts(counts: Counter[str]) -> dict[str, dict]:
    """{letter: {"bits": of its share, "before": {bits: letters}, "after": ...}}."""
    total: Counter[str] = Counter()
    beside: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for word, count in counts.items():
        weight, padded = 1 + math.log2(count), f"^{word}$"
        for i, letter in enumerate(padded[1:-1], 1):
            if not letter.isascii():
                total[letter] += weight  # pyright: ignore[reportArgumentType]
                beside[letter, "before"][padded[i - 1]] += weight  # pyright: ignore[reportArgumentType]
                beside[letter, "after"][padded[i + 1]] += weight  # pyright: ignore[reportArgumentType]
    out = {}
    for letter, weight in sorted(total.items()):
        entry: dict = {"bits": round(-math.log2(weight / total.total()))}
        if weight < 3 or entry["bits"] > RAREST_BITS:  # of a foreign name
            continue
        for side in ("before", "after"):
            groups: dict[int, list[str]] = defaultdict(list)
            for neighbor, share in beside[letter, side].items():
                bits = round(-math.log2(share / weight))
                if bits < MOST_BITS:
                    groups[bits].append(neighbor)
            entry[side] = {str(bits): "".join(sorted(group)) for bits, group in sorted(groups.items())}
        out[letter] = entry
    return out


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--every", type=int, default=0)
    parser.add_argument("--part", type=int, default=0)
    args = parser.parse_args()
    table: dict[str, dict] = {}
    usual: dict[str, Counter[str]] = {}
    elsewhere: set[str] = set()
    for language in sorted(WESTERN + CENTRAL):
        counts: Counter[str] = Counter()
        usual[language] = Counter()
        for path in sorted((args.input / language / "LC_MESSAGES").glob("*.mo")):
            if args.every and hashlib.sha256(path.name.encode()).digest()[0] % args.every == args.part:
                continue
            found, plain, english = words(path)
            counts.update(found)
            usual[language].update(plain)
            elsewhere |= english | (plain if language in WESTERN else set())
        table[language] = {"letters": contexts(counts)}
        print(f"{language}: {len(counts)} words, {len(table[language]['letters'])} letters")
    for language in CENTRAL:
        own = [word for word, _ in usual[language].most_common() if word not in elsewhere]
        table[language]["words"] = " ".join(sorted(own[:USUAL_WORDS]))
    lines = ",\n".join(
        f" {json.dumps(n)}: {json.dumps(v, ensure_ascii=False)}" for n, v in table.items() if v["letters"]
    )
    TARGET.write_text("{\n" + lines + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
