"""Proof that the transform step leaves code as it was: over a corpus, with a parser as judge.

    python scripts/tools/filter_corpus.py --input CORPUS --output files.jsonl --counts '*=400'     # files by language
    python scripts/tools/check_transform.py --files files.jsonl --output DIR [--part 1/8] [--sample 300]

Each file goes through `transform_text`. The judge is tree-sitter with the whole text before and after, and none of the
transform's own tables: where the text before has no error, the text after has none, and the syntax trees are the same
outside comments and strings (the nodes' types and every token's text; what is interpolated into a string is code). Where the
text before has errors, there are not more of them after, and every change lies inside comments and strings. Values in
data formats (YAML, properties, ...) and words in shell count as strings: they hold what quotes hold elsewhere.

Written to DIR: `failures.jsonl` (path, language, what differs, before and after), `changes.jsonl` (every change with its
surroundings), `sample.txt` (`--sample` of them, chosen by hash, for reading), `table.md` (changes per kind and
language), `summary.json`. `--merge DIR...` makes one of the parts. Exit code 1 when anything outside comments and strings
changed. The package that is measured is the one on the Python path, so that an older commit's can be.
"""

import argparse
import difflib
import hashlib
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from opencoder_data.refinecode.config import TransformConfig
from opencoder_data.refinecode.transform import transform_text
from tree_sitter import Node, Parser
from tree_sitter_language_pack import get_language

# Language -> grammar, where the names differ.
GRAMMARS = {
    "shell": "bash", "assembly": "asm", "unix assembly": "asm", "protocol buffer": "proto", "common lisp": "commonlisp", "emacs lisp": "elisp",
    "objective-c": "objc", "makefile": "make", "vim script": "vim", "f#": "fsharp", "tex": "latex", "fortran free form": "fortran",
    "java properties": "properties", "hcl": "hcl", "restructuredtext": "rst", "linker script": "linkerscript", "systemverilog": "verilog",
    "gradle": "groovy", "gradle kotlin dsl": "kotlin", "maven pom": "xml", "xml property list": "xml", "ant build system": "xml",
    "xslt": "xml", "json with comments": "json", "jsx": "javascript", "git attributes": "gitattributes", "wgsl": "wgsl", "qml": "qmljs",
    "gettext catalog": "po", "miniyaml": "", "oasv2-yaml": "yaml", "oasv3-yaml": "yaml", "pip requirements": "requirements", "dotenv": "bash",
    "opencl": "c", "cython": "", "plpgsql": "sql", "tsql": "", "c": "c", "embedded template": "embeddedtemplate", "less": "", "v": "v",
    "graphviz (dot)": "", "html+erb": "", "visual basic .net": "", "text": "", "csv": "", "tsv": "", "diff": "", "lua": "lua",
}  # fmt: skip
# Grammars of prose: there is no code to keep.
PROSE = {"markdown", "rst", "org", "gitcommit", "comment"}
DATA = {
    "yaml",
    "properties",
    "ini",
    "toml",
    "json",
    "xml",
    "po",
    "requirements",
    "csv",
    "hcl",
    "terraform",
    "html",
    "gitignore",
    "gitattributes",
    "dockerfile",
    "kdl",
}
_COMMENT = re.compile(
    r"comment|haddock|marginalia|^(?:pod|rem|shebang|hash_bang_line|heredoc_redirect_comment|doc(?:string)?_?block|COMMENT|Comment)$"
)
_STRING = re.compile(
    r"(?:^|_)(?:string|str|char|character|heredoc|nowdoc|template_string|quoted|xml_text|regex|pattern_matching_regex|rune|atom_quoted|uninterpreted|text|verbatim|raw|literal_text|fragment)"
    r"(?:_|$)|^(?:String|StringLiteral|Char|CharacterLiteral|sstr|vstr|strLit|str_lit|char_lit|quasi|literal_string|docstring|quote_string|__string|rawstring|dquote|squote|sigil)$"
    r"|string(?:_literal|_content|_fragment|_lit)?$|_string$",
)  # fmt: skip
_NO_STRING = re.compile(r"type$|_type|_name$|^string_(?:type|array|expression)$|_index$|operator")
_VALUES = re.compile(
    r"scalar|value|^(?:text|content|CharData|AttValue|attribute_value|msgstr|msgid|word|setting_value|raw_text|CDSect|string)$|pattern$|^(?:path|image_|env_pair|shell_fragment|shell_command|arg)",
    re.I,
)
_CODE_INSIDE = re.compile(
    r"interpolation|substitution|expansion|embedded|template_expression|template_substitution|inline_code|escape_interpolation"
)
_MARK = re.compile(r"\s*(?:#|//|/?\*|--|;|%|!|'|\"|REM\b|dnl\b|\.\\\"|<!--|\(\*|\{-|[cC*]\b|.{6}\*)")
_MAX_PARSED = 1_000_000
CONTEXT = 160


@cache
def parser(grammar: str) -> Parser:
    return Parser(get_language(grammar))  # pyright: ignore[reportArgumentType]


def grammar_of(language: str) -> str:
    """Name of the tree-sitter grammar that judges a language; "" when there is none."""
    name = GRAMMARS.get(language)
    if name is None:
        name = language.replace(" ", "").replace("#", "sharp")
    try:
        if name:
            parser(name)
        return name
    except LookupError:
        return ""


def kind_of(node: Node, grammar: str) -> str:
    """ "comment", "string" or "" for code."""
    name = node.type
    if not node.is_named and node.child_count == 0 and not _COMMENT.search(name):
        return ""
    if _COMMENT.search(name):
        return "comment"
    if _STRING.search(name) and not _NO_STRING.search(name):
        return "string"
    if (grammar in DATA and _VALUES.search(name)) or (grammar == "bash" and name == "word"):
        return "string"
    if name == "entity" and grammar in ("html", "xml"):
        return "string"
    if grammar == "erlang" and name == "atom" and (node.text or b"").startswith(b"'"):
        return "string"  # a quoted atom
    return ""


def tokens(root: Node, grammar: str) -> Iterator[tuple[str, bytes]]:
    """(node type, text of a leaf or b"") in order, without comments; a string is one entry, code inside it is code."""
    stack = [(root, False)]
    while stack:
        node, inside = stack.pop()
        if not inside:
            kind = kind_of(node, grammar)
            if kind == "comment":
                continue
            if node.child_count and all(kind_of(child, grammar) == "comment" for child in node.children):
                continue  # it held comments only and goes with them
            if kind == "string":
                yield ("<string>", b"")
                stack += [(child, True) for child in reversed(node.children)]
                continue
        elif _CODE_INSIDE.search(node.type):
            inside = False
            yield (node.type, b"")
            stack += [(child, False) for child in reversed(node.children)]
            continue
        if inside:
            stack += [(child, True) for child in reversed(node.children)]
        elif node.child_count:
            if node.is_named:
                yield (node.type, b"")
            stack += [(child, False) for child in reversed(node.children)]
        else:
            text = (node.text or b"").strip()
            if text:
                yield (node.type, text)


def joined(entries: Iterator[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """The entries with strings side by side as one: text and entities of markup, parts of a literal."""
    last = ("", b"")
    for entry in entries:
        if entry != last or entry[0] != "<string>":
            yield entry
        last = entry


def safe_bytes(root: Node, grammar: str, size: int) -> bytearray:
    """One byte per byte of the source: 1 inside comments and strings."""
    mask = bytearray(size)
    stack = [root]
    while stack:
        node = stack.pop()
        if kind_of(node, grammar):
            mask[node.start_byte : node.end_byte] = b"\1" * (node.end_byte - node.start_byte)
        elif node.child_count:
            stack += node.children
    return mask


def errors(root: Node) -> int:
    """Error and missing nodes."""
    if not root.has_error:
        return 0
    count, stack = 0, [root]
    while stack:
        node = stack.pop()
        count += node.is_error or node.is_missing
        stack += [child for child in node.children if child.has_error or child.is_missing]
    return count


def changes(before: str, after: str) -> Iterator[tuple[int, int, int, int]]:
    """(start, end in `before`, start, end in `after`) of every change: lines first, then characters inside them."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    starts, offsets = [0], [0]
    for lines, at in ((old, starts), (new, offsets)):
        for line in lines:
            at.append(at[-1] + len(line))
    for tag, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        one, two = before[starts[a] : starts[b]], after[offsets[c] : offsets[d]]
        if tag == "replace" and len(one) + len(two) < 4_000:
            yield from _inside(one, two, starts[a], offsets[c])
        else:
            yield starts[a], starts[b], offsets[c], offsets[d]


def _inside(one: str, two: str, first: int, second: int) -> Iterator[tuple[int, int, int, int]]:
    """Changes of a few lines, by words and placeholders."""
    split = re.compile(r"<(?:email|ip_address|key|token|password|name)>|\w+|\s|.", re.DOTALL)
    a, b = split.findall(one), split.findall(two)
    at, bt = [0], [0]
    for words, positions in ((a, at), (b, bt)):
        for word in words:
            positions.append(positions[-1] + len(word))
    for tag, i, j, k, m in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if tag != "equal":
            yield first + at[i], first + at[j], second + bt[k], second + bt[m]


def judge(before: str, after: str, grammar: str) -> tuple[str, str]:
    """(verdict, detail): "same", "not judged" or what is wrong."""
    old, new = before.encode(), after.encode()
    if not grammar or max(len(old), len(new)) > _MAX_PARSED:
        return "not judged", ""
    one = parser(grammar).parse(old)
    if before == after:
        return ("same" if not one.root_node.has_error else "same, errors before"), ""
    two = parser(grammar).parse(new)
    if not one.root_node.has_error:
        if two.root_node.has_error:
            return "error after", _first_error(two.root_node, new)
        if grammar in PROSE:
            return "same", ""
        for left, right in _paired(joined(tokens(one.root_node, grammar)), joined(tokens(two.root_node, grammar))):
            if left != right:
                return "tree differs", f"{left} | {right}"
        return "same", ""
    if errors(two.root_node) > errors(one.root_node):
        return "more errors", _first_error(two.root_node, new)
    if grammar not in PROSE:
        mask = safe_bytes(one.root_node, grammar, len(old))
        for start, end, _, _ in changes(before, after):
            a, b = len(before[:start].encode()), len(before[:end].encode())
            if any(not mask[i] and not old[i : i + 1].isspace() for i in range(a, b)) and not _marked(
                before, start, end
            ):
                return "outside, errors before", repr(before[start:end])[:200]
    return "same, errors before", ""


def _marked(text: str, start: int, end: int) -> bool:
    """Whether each line of the span begins with what marks a comment in some language: for what a parser could not read."""
    first = text.rfind("\n", 0, start) + 1
    return all(_MARK.match(line) for line in text[first:end].splitlines() if line.strip())


def _paired(one: Iterator[Any], two: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
    while True:
        left, right = next(one, None), next(two, None)
        yield left, right
        if left is None or right is None:
            return


def _first_error(root: Node, source: bytes) -> str:
    stack = [root]
    while stack:
        node = stack.pop()
        if node.is_error or node.is_missing:
            return f"{node.type} at line {node.start_point[0] + 1}: {source[node.start_byte : node.start_byte + 80]!r}"
        stack += [child for child in reversed(node.children) if child.has_error or child.is_missing]
    return ""


def kind_of_change(removed: str, put: str) -> str:
    """Placeholder put in, or "notice" for what was only removed."""
    found = re.search(r"<(email|ip_address|key|token|password|name)>", put)
    return found.group(1) if found else "notice" if not put.strip() else "other"


def measure(files: Path, output: Path, part: tuple[int, int]) -> dict[str, Any]:
    """Judge every file of a part; write failures and changes; return the summary."""
    output.mkdir(parents=True, exist_ok=True)
    config = TransformConfig()
    verdicts: Counter[str] = Counter()
    table: Counter[str] = Counter()
    by_language: Counter[str] = Counter()
    judged: Counter[str] = Counter()
    seconds, size = 0.0, 0
    with (output / "failures.jsonl").open("w") as failures, (output / "changes.jsonl").open("w") as listed:
        for number, line in enumerate(files.open(encoding="utf-8")):
            if number % part[1] != part[0] - 1:
                continue
            row = json.loads(line)
            text, language, path = row["text"], row["program_lang"], row["path"]
            began = time.perf_counter()
            after, _ = transform_text(text, language, path, config)
            seconds += time.perf_counter() - began
            size += len(text.encode())
            grammar = grammar_of(language)
            verdict, detail = judge(text, after, grammar)
            if after != text and not after.strip():
                verdict, detail = "nothing left", ""
            verdicts[verdict] += 1
            by_language[language] += 1
            judged[language] += verdict == "same"
            if not verdict.startswith(("same", "not judged", "nothing left")):
                failures.write(
                    json.dumps(
                        {
                            "path": path,
                            "language": language,
                            "verdict": verdict,
                            "detail": detail,
                            "diff": _diff(text, after),
                        }
                    )
                    + "\n"
                )
            if after == text:
                continue
            for a, b, c, d in changes(text, after):
                kind = kind_of_change(text[a:b], after[c:d])
                table[f"{kind}\t{language}"] += 1
                listed.write(json.dumps({
                    "path": path, "language": language, "kind": kind, "removed": text[a:b], "put": after[c:d],
                    "left": text[max(0, a - CONTEXT) : a], "right": text[b : b + CONTEXT],
                }) + "\n")  # fmt: skip
    summary = {
        "files": by_language.total(), "bytes": size, "seconds": round(seconds, 2), "verdicts": dict(verdicts), "table": dict(table),
        "languages": dict(by_language), "same": dict(judged),
    }  # fmt: skip
    (output / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def _diff(before: str, after: str) -> str:
    return "".join(difflib.unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True), n=2))[:6_000]


def merge(parts: list[Path], output: Path, sample: int) -> dict[str, Any]:
    """One summary, list of failures and sample of several parts."""
    output.mkdir(parents=True, exist_ok=True)
    whole: dict[str, Any] = {"files": 0, "bytes": 0, "seconds": 0.0}
    for name in ("verdicts", "table", "languages", "same"):
        whole[name] = Counter()
    rows: list[dict[str, Any]] = []
    failures = []
    for part in parts:
        summary = json.loads((part / "summary.json").read_text())
        for name, value in summary.items():
            if isinstance(value, dict):
                whole[name].update(value)
            else:
                whole[name] += value
        rows += [json.loads(line) for line in (part / "changes.jsonl").open()]
        failures += (part / "failures.jsonl").read_text().splitlines()
    (output / "failures.jsonl").write_text("".join(f + "\n" for f in failures))
    rows.sort(key=lambda r: hashlib.sha256(json.dumps([r["path"], r["left"], r["removed"]]).encode()).digest())
    with (output / "sample.txt").open("w") as out:
        for number, row in enumerate(rows[:sample], 1):
            removed = (
                row["removed"]
                if len(row["removed"]) < 900
                else row["removed"][:500] + " [...] " + row["removed"][-400:]
            )
            out.write(
                f"=== {number} {row['kind']} {row['language']} {row['path']}\n{row['left']}[-{removed}-]{{+{row['put']}+}}{row['right']}\n"
            )
    (output / "table.md").write_text(_table(whole["table"]))
    (output / "summary.json").write_text(json.dumps(whole, indent=1) + "\n")
    return whole


def _table(counts: dict[str, int]) -> str:
    kinds = sorted({key.split("\t")[0] for key in counts})
    languages: Counter[str] = Counter()
    for key, n in counts.items():
        languages[key.split("\t")[1]] += n
    lines = [f"| language | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    lines.append(
        "| all | "
        + " | ".join(str(sum(n for k, n in counts.items() if k.startswith(f"{kind}\t"))) for kind in kinds)
        + " |"
    )
    lines += [
        f"| {name} | " + " | ".join(str(counts.get(f"{kind}\t{name}", 0)) for kind in kinds) + " |"
        for name, _ in languages.most_common()
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Command line."""
    parser_ = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser_.add_argument("--files", type=Path)
    parser_.add_argument("--output", type=Path, required=True)
    parser_.add_argument("--part", default="1/1")
    parser_.add_argument("--merge", type=Path, nargs="+")
    parser_.add_argument("--sample", type=int, default=300)
    args = parser_.parse_args()
    if args.merge:
        summary = merge(args.merge, args.output, args.sample)
    else:
        first, of = (int(n) for n in args.part.split("/"))
        summary = measure(args.files, args.output, (first, of))
    bad = {k: n for k, n in summary["verdicts"].items() if not k.startswith(("same", "not judged", "nothing left"))}
    print(
        f"{summary['files']} files in {len(summary['languages'])} languages, {summary['bytes'] / 1e6:.1f} MB in {summary['seconds']:.1f} s: {dict(summary['verdicts'])}"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
