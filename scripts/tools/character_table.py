"""Make `data/opencoder_data/refinecode/tables/characters.json`: how often languages use characters beyond ASCII.

    python scripts/tools/character_table.py --input CORPUS

Read are translations in gettext catalogs below CORPUS (scripts/tools/gather_corpus.py): the `msgstr` of `LANG.po` and of
`locale/LANG/LC_MESSAGES/*.po`, for the languages below; those under a test directory are left out. Written per language:
characters grouped by their cost, -log2 of their share among the language's characters beyond ASCII, rounded to whole
bits; characters seen once are left out. Legacy encodings are told apart with it (`ingest/legacy.py`).
"""

import argparse
import json
import math
import re
from collections import Counter
from pathlib import Path

TARGET = Path(__file__).resolve().parents[2] / "data" / "opencoder_data" / "refinecode" / "tables" / "characters.json"
LANGUAGES = {
    "ar", "bg", "ca", "cs", "da", "de", "el", "es", "et", "fi", "fr", "ga", "gl", "he", "hr", "hu", "is", "it", "ja", "ko", "lt", "lv", "nb", "nl",
    "pl", "pt", "ro", "ru", "sk", "sl", "sq", "sv", "th", "tr", "uk", "zh", "zh_tw",
}  # fmt: skip
ALIASES = {
    "pt_br": "pt", "zh_cn": "zh", "zh_hans": "zh", "zh_hant": "zh_tw", "no": "nb", "nn": "nb", "ja_jp": "ja", "ko_kr": "ko", "de_de": "de",
    "es_ar": "es", "es_mx": "es",
}  # fmt: skip
# One bit less than this is the dearest character listed.
MOST_BITS = 16


def language_of(path: Path) -> str | None:
    """Language that a catalog's path names, or None."""
    parts = [path.stem, *(path.parts[-3:-2] if path.parent.name == "LC_MESSAGES" else [])]
    for part in parts:
        name = part.lower().replace("-", "_")
        name = ALIASES.get(name, name)
        if name in LANGUAGES:
            return name
    return None


def translations(text: str) -> str:
    """All `msgstr` of a catalog, joined."""
    out = []
    for block in re.findall(r'^msgstr(?:\[\d\])?\s+((?:"(?:[^"\\]|\\.)*"\s*)+)', text, re.MULTILINE):
        out += re.findall(r'"((?:[^"\\]|\\.)*)"', block)
    return "\n".join(out)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True)
    args = parser.parse_args()
    counts: dict[str, Counter[str]] = {language: Counter() for language in sorted(LANGUAGES)}
    seen: set[str] = set()
    for path in sorted(args.input.rglob("*.po")):
        language = language_of(path)
        if language is None or re.search(r"/tests?/", str(path)):
            continue
        try:
            text = translations(path.read_text("utf-8"))
        except UnicodeDecodeError:
            continue
        for line in text.split("\n"):
            if not line.isascii() and line not in seen:
                seen.add(line)
                counts[language].update(c for c in line if ord(c) > 127)
    table = {}
    for language, counter in counts.items():
        total = counter.total()
        groups: dict[int, list[str]] = {}
        for character, n in counter.items():
            bits = round(-math.log2(n / total))
            if n > 1 and bits < MOST_BITS:
                groups.setdefault(bits, []).append(character)
        table[language] = {str(bits): "".join(sorted(group)) for bits, group in sorted(groups.items())}
        print(f"{language}: {total} characters, {sum(map(len, groups.values()))} listed")
    lines = ",\n".join(f" {json.dumps(n)}: {json.dumps(v, ensure_ascii=False)}" for n, v in table.items())
    TARGET.write_text("{\n" + lines + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
