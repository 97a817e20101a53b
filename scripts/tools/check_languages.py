"""How often the language step agrees with others who name a file's language.

    python scripts/tools/check_languages.py --samples LINGUIST/samples     # directories named by language
    python scripts/tools/check_languages.py --corpus DIR [DIR ...]         # mode lines and interpreters inside the files

`--samples` takes the layout of github-linguist's samples: `LANGUAGE/FILE` and `LANGUAGE/filenames/FILE`. Languages that
the table does not have are counted apart. `--corpus` compares what name and content rules say (mode lines and first
lines hidden from them) with the mode line or interpreter of the same file, if that names a language of the table; a mode
line is an author's word, not proof, so disagreements are listed for reading. `--list N` prints N disagreements a pair.
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from opencoder_data.refinecode.ingest.decode import decode
from opencoder_data.refinecode.languages import detect, stated, tables

# Linguist's newer names of languages that the table holds under the released name.
_RENAMED = {
    "c++": "cpp", "c#": "csharp", "rocq prover": "coq", "wolfram language": "mathematica", "protocol buffer text format": "protocol buffer text format",
}  # fmt: skip
_MAX_BYTES = 2_000_000


def read(path: Path) -> str | None:
    """Text of a file as the pipeline decodes it; None when it rejects it."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > _MAX_BYTES:
        return None
    return decode(path.read_bytes()).text


def samples(root: Path) -> Iterator[tuple[str, Path]]:
    """(language by directory, file)."""
    for directory in sorted(p for p in root.iterdir() if p.is_dir()):
        name = directory.name.lower()
        for path in sorted(directory.rglob("*")):
            if path.is_file():
                yield _RENAMED.get(name, name), path


def compare_samples(root: Path, per_pair: int) -> None:
    t = tables()
    agree: Counter[str] = Counter()
    total: Counter[str] = Counter()
    wrong: dict[tuple[str, str], list[str]] = defaultdict(list)
    unknown: set[str] = set()
    rejected = 0
    for language, path in samples(root):
        if language not in t.types and language not in t.by_content_only:
            unknown.add(language)
            continue
        text = read(path)
        if text is None:
            rejected += 1
            continue
        found = detect(path.name, text).name
        total[language] += 1
        agree[language] += found == language
        if found != language:
            wrong[language, str(found)].append(str(path.relative_to(root)))
    report("samples", total, agree, wrong, per_pair)
    print(f"not in the table: {len(unknown)} languages; rejected by decoding: {rejected} files")


def _says_something(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(3_000)
        file.seek(max(0, path.stat().st_size - 3_000))
        tail = file.read()
    return head.startswith(b"#!") or any(
        m in part for m in (b"-*-", b"vi:", b"vim", b"ex:", b"Local Variables") for part in (head, tail)
    )


def compare_corpus(roots: list[Path], per_pair: int) -> None:
    agree: Counter[str] = Counter()
    total: Counter[str] = Counter()
    wrong: dict[tuple[str, str], list[str]] = defaultdict(list)
    for root in roots:
        for path in sorted(root.rglob("*")):
            if path.is_symlink() or not path.is_file() or not _says_something(path):
                continue
            text = read(path)
            language = stated(text) if text else None
            if text is None or language is None:
                continue
            found = detect(path.name, text, statements=False)
            if found.name is None:
                continue
            total[language] += 1
            agree[language] += found.name == language
            if found.name != language:
                wrong[language, found.name].append(str(path.relative_to(root)))
    report("mode lines and interpreters", total, agree, wrong, per_pair)


def report(
    title: str, total: Counter[str], agree: Counter[str], wrong: dict[tuple[str, str], list[str]], per_pair: int
) -> None:
    whole = sum(agree.values()) / max(1, sum(total.values()))
    full = sum(agree[x] == total[x] for x in total)
    print(
        f"{title}: {sum(agree.values())} of {sum(total.values())} files agree ({whole:.2%}); {full} of {len(total)} languages whole"
    )
    print("| language | files | agree |\n|---|---|---|")
    for language, n in sorted(total.items(), key=lambda item: (agree[item[0]] / item[1], item[0])):
        if agree[language] < n or n >= 20:
            print(f"| {language} | {n} | {agree[language] / n:.1%} |")
    for (language, found), paths in sorted(wrong.items(), key=lambda item: -len(item[1])):
        print(f"{language} -> {found}: {len(paths)}: {', '.join(paths[:per_pair])}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=Path)
    parser.add_argument("--corpus", type=Path, nargs="+")
    parser.add_argument("--list", type=int, default=3, dest="per_pair")
    args = parser.parse_args()
    if args.samples:
        compare_samples(args.samples, args.per_pair)
    if args.corpus:
        compare_corpus(args.corpus, args.per_pair)


if __name__ == "__main__":
    main()
