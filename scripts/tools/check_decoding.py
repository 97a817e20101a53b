"""How often legacy encodings are read right, on files made from real UTF-8 sources.

    python scripts/tools/check_decoding.py --files FILES.jsonl [--detector charset-normalizer]

1. `--ascii N` small ASCII sources, one letter or sign of cp1252 put in each, in places where they occur: at the end of a
   word before a bracket, a quote, a dollar sign, a backslash; in comments and strings. Every letter read wrong counts.
2. Real UTF-8 sources (no gettext catalogs) whose characters beyond ASCII are of one language, encoded in each encoding that can
   hold them; files with under 20 letters beyond ASCII apart. Right when the text comes back equal, rejected when it does not come back at all, else wrong.

`--detector charset-normalizer` measures the library's answer as it was used before (threshold 0.3, the window around the
first byte that is not UTF-8).
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from opencoder_data.refinecode.ingest.decode import decode

LETTERS = {
    "German": "äöüßÄÖÜ", "French": "éèêàçùîôûëœÉÀ", "Spanish": "ñáéíóú¿¡", "Portuguese": "ãõçáâêô", "Danish": "æøåÆØÅ", "Swedish": "åäö",
    "Italian": "àèìòù", "Icelandic": "þðý", "signs": "°§£©®µ±²³½«»", "cp1252": "“”‘’–—…€™•",
}  # fmt: skip
_LETTERS = {"Latin": range(0xC0, 0x250), "Cyrillic": range(0x400, 0x500), "Greek": range(0x370, 0x400), "Han": range(0x4E00, 0xA000),
            "kana": range(0x3041, 0x3100), "Hangul": range(0xAC00, 0xD7A4)}  # fmt: skip
_CENTRAL = set("ąćęłńśźżĄĆĘŁŃŚŹŻčďěňřšťůžČĎĚŇŘŠŤŮŽőűŐŰăşţđ")
_WORDS = ["caf{}", "{}", "gr{}e", "{}ber", "na{}ve", "pr{}t{}", "a{}o", "x{}"]
_SIGN_WORDS = ["25{}C", "{}", "{}5", "5{}", "a {} b", "m{}", "x{}y", "({})"]
_PLACES = [
    "// {}\n",
    "# {}: done\n",
    's = "{}"\n',
    "${{{}}}\n",
    "print('{}')\n",
    "/* ({}) */\n",
    "name[{}] = 1\n",
    "\\{{{}}}\n",
    "<b>{}</b>\n",
    "path\\{}\\x\n",
    "|{}|\n",
    "@{}~\n",
]


def before(data: bytes) -> str | None:
    """The text as charset-normalizer decodes it, in the way of the pipeline until November 2026."""
    from charset_normalizer import from_bytes

    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        first = error.start
    start = data.rfind(b"\n", 0, max(0, first - 16_384)) + 1
    best = from_bytes(data[start : start + 32_768], threshold=0.3).best()
    if best is None:
        return None
    try:
        return data.decode(best.encoding)
    except (UnicodeDecodeError, LookupError):
        return None


def sources(files: Path) -> Iterator[tuple[str, str]]:
    """(path, text) of the small files of a list made by scripts/tools/filter_corpus.py; gettext catalogs, of which the tables are
    made, and JSON are left out."""
    for line in files.open(encoding="utf-8"):
        row = json.loads(line)
        if (
            200 < row["size"] <= 40_000
            and row["program_lang"] not in ("gettext catalog", "json")
            and "\ufffd" not in row["text"]
        ):
            yield row["path"], row["text"]


def language_of(text: str) -> str | None:
    """Family of the text's letters beyond ASCII, when there is one and no other."""
    beyond = [c for c in text if not c.isascii()]
    kinds = Counter(name for c in beyond for name, codes in _LETTERS.items() if ord(c) in codes)
    if sum(kinds.values()) < 1:
        return None
    if set(kinds) == {"Latin"}:
        return "central" if any(c in _CENTRAL for c in beyond) else "western"
    if set(kinds) <= {"Han", "kana"} and kinds["kana"] > 0:
        return "Japanese"
    scripts = {"Han": "Chinese", "Cyrillic": "Russian", "Hangul": "Korean", "Greek": "Greek"}
    return scripts.get(next(iter(kinds))) if len(kinds) == 1 else None


# A file with fewer letters beyond ASCII than this is counted apart: a name or a formula, hardly a text.
FEW = 20
ENCODINGS = {
    "western": ["cp1252"], "central": ["cp1250", "iso8859-2"], "Russian": ["cp1251", "koi8-r"], "Greek": ["cp1253"],
    "Chinese": ["gb18030", "gbk", "big5"], "Japanese": ["cp932", "euc_jp"], "Korean": ["cp949"],
}  # fmt: skip


def _simplified(text: str) -> bool:
    """Whether the Chinese characters are those of GB 2312."""
    try:
        "".join(c for c in text if ord(c) in _LETTERS["Han"]).encode("gb2312")
    except UnicodeEncodeError:
        return False
    return True


def one_letter(texts: list[str], read: Callable[[bytes], str | None]) -> None:
    """Part 1."""
    letters = [c for signs in LETTERS.values() for c in signs]
    outcome: Counter[str] = Counter()
    bad: Counter[str] = Counter()
    for i, text in enumerate(texts):
        letter, place = letters[i % len(letters)], _PLACES[i // 3 % len(_PLACES)]
        words = _WORDS if letter.isalpha() else _SIGN_WORDS
        word = words[i // 7 % len(words)]
        word = place.format((word.upper() if letter.isupper() else word).replace("{}", letter))
        lines = text.split("\n")
        lines.insert(len(lines) // 2, word.rstrip("\n"))
        made = "\n".join(lines)
        state = state_of(read(made.encode("cp1252")), made)
        outcome[state] += 1
        if state != "right":
            bad[f"{state} {word!r}"] += 1
    print(f"one letter in {len(texts)} ASCII sources: {dict(outcome)}")
    for text, n in bad.most_common(20):
        print(f"  {n} {text}")


def state_of(got: str | None, text: str) -> str:
    return "right" if got == text else "rejected" if got is None else "wrong"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=Path, required=True, help="made by scripts/tools/filter_corpus.py")
    parser.add_argument("--ascii", type=int, default=1_000)
    parser.add_argument("--most", type=int, default=200, help="files per language at most")
    parser.add_argument("--detector", choices=["ours", "charset-normalizer"], default="ours")
    args = parser.parse_args()
    read: Callable[[bytes], str | None] = (
        before if args.detector == "charset-normalizer" else lambda data: decode(data).text
    )
    plain: list[str] = []
    by_language: dict[tuple[str, str], list[tuple[str, str]]] = {
        (n, few): [] for n in ENCODINGS for few in ("", ", few")
    }
    for path, text in sources(args.files):
        if text.isascii():
            if len(plain) < args.ascii and len(text) < 8_000:
                plain.append(text)
            continue
        language = language_of(text)
        if language:
            few = ", few" if sum(c.isalpha() and not c.isascii() for c in text) < FEW else ""
            if len(by_language[language, few]) < args.most:
                by_language[language, few].append((path, text))
    one_letter(plain, read)
    print("| letters | encoding | files | right | rejected | wrong |\n|---|---|---|---|---|---|")
    for (language, few), files in by_language.items():
        for encoding in ENCODINGS[language]:
            outcome: Counter[str] = Counter()
            wrong: list[str] = []
            for path, text in files:
                try:
                    data = text.encode(encoding)
                except UnicodeEncodeError:
                    continue
                if language == "Chinese" and (encoding == "big5") == _simplified(text):
                    continue  # each script in its own encodings
                if data == text.encode("utf-8"):
                    continue
                got = read(data)
                state = state_of(got, text)
                outcome[state] += 1
                if state != "right":
                    wrong.append(f"{state} {path}")
            print(
                f"| {language}{few} | {encoding} | {outcome.total()} | {outcome['right']} | {outcome['rejected']} | {outcome['wrong']} |"
            )
            for line in wrong[:8]:
                print(f"    {line}")


if __name__ == "__main__":
    main()
