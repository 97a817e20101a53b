"""`opencoder eval COMMAND`: toolchains."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from opencoder_eval.sandbox import SandboxError, toolchains


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, or 2 with one line on standard error."""
    parser = argparse.ArgumentParser(prog="opencoder eval", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("toolchains", help="which languages can be run here")
    parser.parse_args(arguments)
    try:
        for status in toolchains():
            print(f"{status.language:<16}{status.status:<11}{status.version}  {status.detail}".rstrip())
    except SandboxError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
