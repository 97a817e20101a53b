"""From raw files to cleaned, filtered and sampled documents::

    python -m opencoder_data.refinecode --input=FOLDER --output=DIR [--config=FILE.toml] [--section.field=value ...]

A stage by itself: ``--stages=transform --input=RUN/04-fuzzy_dedup/docs`` reads the Parquet of an earlier run, or any other
with a column `content` (or `text`, `code`). The stages are modules of this package, the fields are explained in config.py.
DIR/documents holds what is kept, DIR/ledger the fate of every file; the same command goes on after a stop.
"""

import argparse
import sys

from opencoder_data.refinecode.config import fields_and_defaults, load
from opencoder_data.refinecode.pipeline import print_summary, run_pipeline


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
        help="folder, archive, git repository, Parquet or JSONL; local or URL; may be repeated",
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="empty or new folder, or one of the same run; local or URL"
    )
    parser.add_argument("--config", metavar="FILE.toml", help="any of the fields below, one table per section")
    parser.add_argument("--overwrite", action="store_true", help="redo stages whose configuration or program changed")
    parser.add_argument("--keep", action="store_true", help="go on from what another version of the program finished")
    arguments, rest = parser.parse_known_args(argv)
    try:
        overrides = []
        for item in rest:
            if not item.startswith("--"):
                raise ValueError(f"unexpected argument {item!r}; overrides are written --section.field=value")
            overrides.append(item[2:])
        summary = run_pipeline(
            load(arguments.config, overrides),
            arguments.input,
            arguments.output,
            overwrite=arguments.overwrite,
            keep=arguments.keep,
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command resumes", file=sys.stderr)
        return 130
    print_summary(summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
