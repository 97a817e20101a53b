"""From raw files to cleaned, filtered and sampled documents::

    python -m opencoder_data.refinecode --input=DIRECTORY --output=DIR [--config=FILE.toml] [--section.field=value ...]

A stage by itself: ``--stages=transform --input=RUN/04-fuzzy_dedup/docs`` reads the Parquet of an earlier run, or any other
with a column `content` (or `text`, `code`). The stages are modules of this package, the fields are explained in config.py.
DIR/documents holds what is kept, DIR/ledger the fate of every file; the same command goes on after a stop.
"""

import argparse

from opencoder_data import command
from opencoder_data.refinecode.config import fields_and_defaults, load

STOPPED = "stopped; the same command resumes"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m opencoder_data.refinecode",
        description=(__doc__ or "").replace("``", "").replace("::\n", ":\n"),
        epilog="fields and their defaults:\n" + "\n".join(f"  --{line}" for line in fields_and_defaults()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--input",
        action="append",
        required=True,
        metavar="PATH",
        help="directory, archive, git repository, Parquet or JSONL; local or URL; may be repeated",
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="empty or new directory, or one of the same run; local or URL"
    )
    parser.add_argument("--config", metavar="FILE.toml", help="any of the fields below, one table per section")
    parser.add_argument("--overwrite", action="store_true", help="redo stages whose configuration or program changed")
    parser.add_argument("--keep", action="store_true", help="go on from what another version of the program finished")
    arguments, rest = parser.parse_known_args(argv)
    return command.run(lambda: run(arguments, rest), stopped=STOPPED)


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    """The pipeline as the command line asks for it. Raises ValueError, OSError for what the user can put right."""
    # Here and not above: they take a second or two, in which Ctrl-C must have its one line too.
    from opencoder_data.refinecode.pipeline import print_summary, run_pipeline

    for item in rest:
        if not item.startswith("--"):
            raise ValueError(f"unexpected argument {item!r}; overrides are written --section.field=value")
    summary = run_pipeline(
        load(arguments.config, [item[2:] for item in rest]),
        arguments.input,
        arguments.output,
        overwrite=arguments.overwrite,
        keep=arguments.keep,
    )
    print_summary(summary)
    return 0


if __name__ == "__main__":
    command.end(main())
