"""`opencoder eval COMMAND`: toolchains."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import NoReturn

from opencoder_eval.sandbox import LANGUAGES, Sandbox, SandboxError, toolchains

EXIT_REJECTED = 2
# What the default tests run; all are small packages, and most machines have half of them.
SMALL = ("AWK", "C", "CPP", "Java", "JavaScript", "Lua", "PHP", "Perl", "Python", "Ruby", "Shell", "Tcl")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"error: {message} (--help lists the options)", file=sys.stderr)
        raise SystemExit(EXIT_REJECTED)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, 1 if a toolchain is wrong, 2 with one line on standard error."""
    parser = _Parser(prog="opencoder eval", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "toolchains", help="which languages can be run here, tried in the sandbox", allow_abbrev=False
    )
    command.add_argument("languages", nargs="*", metavar="LANGUAGE", help="as McEval names them; none: all")
    command.add_argument("--small", action="store_true", help="those that the default tests use")
    command.add_argument("--json", action="store_true", help="one JSON object a line")
    command.add_argument(
        "--packages", action="store_true", help="print the Debian packages of what is missing, run nothing"
    )
    command.add_argument("--python", help="interpreter for Python programs")
    command.add_argument(
        "--read-only", action="append", default=[], metavar="DIRECTORY", help="programs see it; its bin is on PATH"
    )
    command.add_argument("--unsafe-no-sandbox", action="store_true", help="run without isolation")
    options = parser.parse_args(arguments)
    try:
        return _toolchains(options)
    except SandboxError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_REJECTED
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        return 130


def _toolchains(options: argparse.Namespace) -> int:
    names = options.languages or (SMALL if options.small else tuple(LANGUAGES))
    for name in names:
        if name not in LANGUAGES:
            near = difflib.get_close_matches(name, LANGUAGES, 1, 0.4)
            hint = f"did you mean {near[0]}? " if near else ""
            raise SandboxError(f"{name}: no such language; {hint}there are: {', '.join(LANGUAGES)}")
    if options.packages:
        unisolated = Sandbox(unsafe=True)
        missing = [n for n in names if any(unisolated.which(p) is None for p in LANGUAGES[n].programs())]
        print(" ".join(dict.fromkeys(package for name in missing for package in LANGUAGES[name].apt)))
        return 0
    with Sandbox(unsafe=options.unsafe_no_sandbox, python=options.python, read_only=options.read_only) as sandbox:
        found = toolchains(sandbox, names)
    for status in found:
        if options.json:
            print(json.dumps(asdict(status)))
        else:
            print(f"{status.language:<14}{status.status:<11}{status.version or status.detail}".rstrip())
            if status.version and status.detail:
                print(f"{'':<25}{status.detail}")
    if not options.json:
        count = {kind: sum(s.status == kind for s in found) for kind in ("installed", "missing", "wrong")}
        print(f"{len(found)} languages: " + ", ".join(f"{number} {kind}" for kind, number in count.items()))
        if options.unsafe_no_sandbox:
            print("run WITHOUT isolation (--unsafe-no-sandbox)")
    return int(any(status.status == "wrong" for status in found))


if __name__ == "__main__":
    sys.exit(main())
