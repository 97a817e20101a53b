"""From raw files to cleaned, filtered and sampled documents::

    python -m opencoder_data.refinecode --input=FOLDER --output=DIR [--config=FILE.toml] [--section.field=value ...]

A stage by itself: ``--stages=transform --input=RUN/04-fuzzy_dedup/docs`` reads the Parquet of an earlier run, or any other
with a column `content` (or `text`, `code`). The stages are modules of this package, the fields are explained in config.py.
DIR/documents holds what is kept, DIR/ledger the fate of every file; the same command goes on after a stop.
"""

import argparse
import errno
import signal
import sys

from opencoder_data.refinecode.config import fields_and_defaults, load

_REMEDIES = {
    errno.EACCES: "give a place that this user may use, or change who may",
    errno.EROFS: "give a place that can be written",
    errno.EMFILE: "raise the limit of open files: ulimit -n 1024",
    errno.ENFILE: "raise the machine's limit of open files: sysctl fs.file-max",
    errno.ENOSPC: "free some space and run the same command again: finished partitions are kept",
    errno.EDQUOT: "free some space and run the same command again: finished partitions are kept",
}


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
        # Here and not above: they take a second or two, in which Ctrl-C must have its one line too.
        from opencoder_data.refinecode.pipeline import print_summary, run_pipeline

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
        remedy = _REMEDIES.get(error.errno or 0) if isinstance(error, OSError) else None
        message = f"error: {error}; {remedy}" if remedy else f"error: {error}"
        # A name that is no UTF-8 may stand in it.
        print(message.encode("utf-8", "backslashreplace").decode(), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # Python remembers an interrupt inside `exec` (as the import of a dataclass has it), caught or not, and would end by
        # the signal instead of our exit code; another `exec` makes it forget.
        exec("pass")
        print("stopped; the same command resumes", file=sys.stderr)
        return 130
    print_summary(summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
