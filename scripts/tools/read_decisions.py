"""Print kept and dropped files of a run to be read by eye: `python scripts/tools/read_decisions.py RUN [--languages ...]`.

RUN is the output directory of a finished run of the pipeline with the stages transform and filter. Per language --count
kept and --count dropped files, chosen by the hash of their id and --salt; of each the path, the rules that dropped it
with the signals' values, and --lines lines around the middle of it (--head: its first ones).
"""

import argparse
import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

MAJOR = "python,c,cpp,csharp,java,javascript,go,html"


def rows_of(run: Path, languages: list[str]) -> list[dict]:
    """doc_id, path, language, keep, rules, values of the rules' signals, content."""
    rows = []
    for part in sorted((run / "06-filter" / "signals").glob("*.parquet")):
        signals = pq.read_table(part)
        mask = pa.array([name in languages for name in signals.column("language").to_pylist()], pa.bool_())
        texts = pq.read_table(run / "05-transform" / "docs" / part.name, columns=["path", "content"])
        for row, text in zip(signals.filter(mask).to_pylist(), texts.filter(mask).to_pylist(), strict=True):
            values = {name: row[name] for name in row["rules"]}
            kept = {k: row[k] for k in ("doc_id", "language", "keep")}
            rows.append({**kept, "values": values, "path": text["path"], "content": text["content"]})
    return rows


def excerpt(content: str, count: int, head: bool) -> str:
    """`count` lines of at most 110 characters."""
    lines = [line[:110] for line in content.splitlines() if line.strip()]
    start = 0 if head else max(0, (len(lines) - count) // 2)
    return "\n".join("    | " + line for line in lines[start : start + count])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--languages", default=MAJOR)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--lines", type=int, default=8)
    parser.add_argument("--salt", default="")
    parser.add_argument("--head", action="store_true")
    parser.add_argument("--only", choices=("kept", "dropped"))
    args = parser.parse_args()
    languages = args.languages.split(",")
    rows = rows_of(args.run, languages)
    rows.sort(key=lambda r: hashlib.sha256((args.salt + r["doc_id"]).encode()).digest())
    for language in languages:
        for keep in (False, True):
            name = "kept" if keep else "dropped"
            chosen = [r for r in rows if r["language"] == language and r["keep"] == keep]
            if args.only in (None, name):
                print(f"\n##### {language}: {name} ({len(chosen)} in all)")
                for row in chosen[: args.count]:
                    why = ", ".join(f"{k.removeprefix('qsc_')}={v:.3g}" for k, v in row["values"].items())
                    print(f"\n{row['path']} [{len(row['content'])} characters] {why}")
                    print(excerpt(row["content"], args.lines, args.head))


if __name__ == "__main__":
    main()
