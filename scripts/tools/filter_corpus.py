"""Choose files of a directory for scripts/benchmarks/bench_filter.py: `python scripts/tools/filter_corpus.py --input DIR --output corpus.jsonl`.

--counts python=200,c=150,*=20 files by language ('*': each other one); --salt S another choice; --exclude OTHER.jsonl no
file whose text is there. Which files: those whose SHA-256 of salt and path is least. UTF-8 only, no two of equal
text, up to 3,000,000 bytes. Written per line: path, filename (stem), ext, program_lang, doc_type, lang, text, size.
"""

import argparse
import hashlib
import json
from collections import Counter
from pathlib import Path

from opencoder_data.refinecode.filter import natural_language
from opencoder_data.refinecode.languages import detect, name_verdict


def digest(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def choose(root: Path, counts: dict[str, int], salt: str, seen: set[str]):
    """Rows of the corpus, in the order of their hashes."""
    paths = sorted((str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()), key=lambda p: digest(salt + p))
    chosen: Counter[str] = Counter()
    for path in paths:
        file = root / path
        if name_verdict(file.name) or not 0 < file.stat().st_size <= 3_000_000:
            continue
        try:
            text = file.read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            continue
        found = detect(path, text)
        language = found.name
        if found.rule or language is None or language == "jupyter notebook" or "\0" in text:
            continue
        if chosen[language] >= counts.get(language, counts.get("*", 0)) or digest(text) in seen:
            continue
        seen.add(digest(text))
        chosen[language] += 1
        stem, _, extension = file.name.rpartition(".") if "." in file.name[1:] else (file.name, "", "")
        yield {
            "path": path, "filename": stem, "ext": extension, "program_lang": language, "doc_type": found.doc_type,
            "lang": natural_language(text), "text": text, "size": file.stat().st_size,
        }  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--counts", default="*=50")
    parser.add_argument("--salt", default="")
    parser.add_argument("--exclude", type=Path, action="append", default=[])
    args = parser.parse_args()
    counts = {k: int(v) for k, _, v in (item.rpartition("=") for item in args.counts.split(","))}
    seen = {digest(json.loads(line)["text"]) for other in args.exclude for line in other.open(encoding="utf-8")}
    languages: Counter[str] = Counter()
    size = 0
    with args.output.open("w", encoding="utf-8") as out:
        for row in choose(args.input, counts, args.salt, seen):
            out.write(json.dumps(row) + "\n")
            languages[row["program_lang"]] += 1
            size += row["size"]
    print(f"{languages.total()} files, {size / 1e6:.1f} MB, {len(languages)} languages: {languages.most_common(30)}")


if __name__ == "__main__":
    main()
