"""Why a file was dropped, or that it was kept: its row in the ledger of a finished run.

opencoder data why --run=RUN PATH [PATH ...]        path, its end (`email/errors.py`), a pattern (`*.min.js`) or a doc_id
opencoder data why --run=RUN --rule=RULE            every file that this rule dropped
"""

import argparse
import difflib
import fnmatch
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from opencoder_data import command
from opencoder_data.pipeline import storage
from opencoder_data.pipeline.finished import finished_run

if __name__ == "__main__":
    command.interruptible_imports()


def rows(output: str) -> Iterator[dict[str, Any]]:
    """Rows of the ledger of the finished run in `output`. Raises: ValueError when there is no finished run."""
    finished_run(output)
    directory = storage.join(output, "ledger")
    for name in storage.listdir(directory):
        if name.endswith(".parquet"):
            for table in storage.iter_row_groups(storage.join(directory, name)):
                yield from table.to_pylist()


def name_of(row: dict[str, Any]) -> str:
    """What a user calls the file: its input and its path there."""
    return f"{row['source']}/{row['path']}" if row["path"] else row["source"]


def matcher(patterns: Sequence[str], rule: str) -> Callable[[dict[str, Any]], bool]:
    """Whether a row is asked for. A row may name several rules, joined by semicolons."""

    def matches(row: dict[str, Any]) -> bool:
        if rule and rule not in (row["rule"] or "").split(";"):
            return False
        whole = f"/{name_of(row)}"
        return not patterns or any(
            p == row["doc_id"] or fnmatch.fnmatchcase(whole, f"*/{p.lstrip('/')}") for p in patterns
        )

    return matches


def sentence(row: dict[str, Any]) -> str:
    """`source/path (doc_id): kept`, or the stage, rule and values that dropped it."""
    fate = "kept" if row["status"] == "kept" else f"dropped by {row['stage']}: {row['rule']}"
    if row["status"] != "kept" and row["detail"]:
        fate += f" ({row['detail']})"
    return f"{name_of(row)} [{row['doc_id']}]: {fate}"


def main(argv: list[str] | None = None) -> int:
    return command.run(lambda: _main(argv))


def _main(argv: list[str] | None) -> int:
    parser = command.Parser(
        prog="opencoder data why", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", nargs="*", metavar="PATH", help="path, end of a path, pattern, or doc_id")
    parser.add_argument("--run", required=True, metavar="DIR", help="output directory of a finished run")
    parser.add_argument("--rule", default="", help="only files that this rule dropped")
    parser.add_argument("--limit", type=int, default=50, help="at most so many lines (0: all)")
    options = parser.parse_args(argv)
    if not options.path and not options.rule:
        raise ValueError("give a path, or --rule=RULE")
    matches, found, rules, names = matcher(options.path, options.rule), 0, set(), set()
    for row in rows(options.run):
        if matches(row):
            found += 1
            if not options.limit or found <= options.limit:
                print(sentence(row))
        elif not found:
            rules.update((row["rule"] or "").split(";"))
            names.add(name_of(row))
    if found > options.limit > 0:
        print(f"and {found - options.limit:,} more (--limit=0 lists all)")
    if not found:
        asked, known = (options.path[0], names) if options.path else (options.rule, rules - {""})
        near = difflib.get_close_matches(asked, sorted(known), 1, 0.3)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"no file of {options.run} matches {' '.join([*options.path, options.rule]).strip()}{hint}")
    return 0


if __name__ == "__main__":
    command.end(main())
