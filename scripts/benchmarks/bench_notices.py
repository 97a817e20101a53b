"""Notice removal on real files: how often, how much, how fast, and whether what is left parses as before.

    python scripts/benchmarks/bench_notices.py --root DIRECTORY [--root DIRECTORY ...] --limit 900 --save new.jsonl
    PYTHONPATH=OTHER_CHECKOUT/data python scripts/benchmarks/bench_notices.py --root DIRECTORY --save old.jsonl     # another commit
    python scripts/benchmarks/bench_notices.py --compare old.jsonl new.jsonl

Files are taken in the order of a hash of their path, at most `--limit` per language. `--parse` reads every second changed
file below 40 kB with tree-sitter, before and after, and compares the tokens outside comments.
"""

import argparse
import hashlib
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from opencoder_data.refinecode.languages import candidate, detect
from opencoder_data.refinecode.transform.header import remove_header

MAX_BYTES = 300_000


def files(roots: list[str], limit: int) -> Iterator[tuple[str, str, str]]:
    """(path, language, text) of UTF-8 files, without exact duplicates."""
    paths = [p for root in roots for p in Path(root).rglob("*") if p.is_file() and not p.is_symlink()]
    paths.sort(key=lambda p: hashlib.md5(str(p).encode("utf-8", "surrogateescape")).digest())
    taken: Counter[str] = Counter()
    seen: set[bytes] = set()
    for path in paths:
        name, ambiguous = candidate(path.name)
        if (name is None and "." in path.name) or (name and not ambiguous and taken[name] >= limit):
            continue
        if path.stat().st_size > MAX_BYTES:
            continue
        data = path.read_bytes()
        digest = hashlib.md5(data).digest()
        if digest in seen or b"\0" in data:
            continue
        seen.add(digest)
        try:
            text = data.decode()
        except UnicodeDecodeError:
            continue
        found = detect(str(path), text)
        if found.name is None or found.rule or taken[found.name] >= limit:
            continue
        taken[found.name] += 1
        yield str(path), found.name, text


def tokens(text: str, grammar: str) -> list[tuple[str, bytes]] | None:
    """Tokens outside comments; None when the text does not parse."""
    from tree_sitter_language_pack import get_parser

    root = get_parser(grammar).parse(text.encode()).root_node  # pyright: ignore[reportArgumentType]
    if root.has_error:
        return None
    out, todo = [], [root]
    while todo:
        node = todo.pop()
        if "comment" in node.type.lower() or node.type in ("marginalia", "haddock", "pod", "shebang"):
            continue
        if not node.child_count and (words := (node.text or b"").strip()):
            out.append((node.type, words))
        todo += reversed(node.children)
    return out


def measure(roots: list[str], limit: int, save: str, parse: bool) -> None:
    """Runs the removal over the files and writes a line per file: path, language, characters removed."""
    corpus = list(files(roots, limit))
    for _, language, text in corpus[:300]:
        remove_header(text, language)
    begin = time.process_time()
    results = [remove_header(text, language) for _, language, text in corpus]
    seconds = time.process_time() - begin
    size = sum(len(text) for _, _, text in corpus)
    print(f"{len(corpus)} files, {size / 1e6:.0f} M characters: {seconds:.1f} s, {size / 1e6 / seconds:.1f} M/s")
    with open(save, "w") as out:
        for (path, language, text), result in zip(corpus, results, strict=True):
            out.write(json.dumps([path, language, len(text) - len(result), not result.strip()]) + "\n")
    if not parse:
        return
    from opencoder_data.refinecode.transform.parse_check import GRAMMARS

    counts: Counter[str] = Counter()
    for (path, language, text), result in list(zip(corpus, results, strict=True))[::2]:
        if result == text or len(text) > 40_000:
            continue
        counts["changed"] += 1
        counts["not idempotent"] += remove_header(result, language) != result
        if language not in GRAMMARS:
            counts["no grammar"] += 1
        elif (before := tokens(text, GRAMMARS[language])) is None:
            counts["did not parse before"] += 1
        else:
            counts["parsed before"] += 1
            if tokens(result, GRAMMARS[language]) != before:
                counts["other tokens after"] += 1
                print("OTHER TOKENS", language, path)
    print(dict(counts))


def compare(old: str, new: str) -> None:
    """Files changed and characters removed, side by side."""
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    with open(old) as a, open(new) as b:
        for x, y in zip(map(json.loads, a), map(json.loads, b), strict=True):
            if x[0] != y[0]:
                raise SystemExit("the two runs are of different files; give both the same roots and limit")
            for key in (x[1], "all"):
                rows[key]["old"] += x[2] > 0
                rows[key]["new"] += y[2] > 0
                rows[key]["old only"] += x[2] > 0 and not y[2]
                rows[key]["old characters"] += x[2]
                rows[key]["new characters"] += y[2]
    for language, row in sorted(rows.items(), key=lambda item: -item[1]["old"]):
        if row["old"] or row["new"]:
            print(f"{language:24}", *(f"{key} {row[key]:,}" for key in row), sep="  ")


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", action="append", default=[])
    parser.add_argument("--limit", type=int, default=900)
    parser.add_argument("--save", default="notices.jsonl")
    parser.add_argument("--parse", action="store_true")
    parser.add_argument("--compare", nargs=2, metavar=("OLD", "NEW"))
    arguments = parser.parse_args()
    if arguments.compare:
        compare(*arguments.compare)
    else:
        measure(arguments.root, arguments.limit, arguments.save, arguments.parse)


if __name__ == "__main__":
    main()
