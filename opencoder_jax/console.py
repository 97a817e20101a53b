"""What the trainer says when it ends, in one line, whatever state its streams are in."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import sys

# Of shards, event files and checkpoint parts at once; below the first number nothing starts.
MIN_OPEN_FILES, WANTED_OPEN_FILES = 64, 16_384
MORE_FILES = "raise the limit (ulimit -n 4096), then the same command"


def error(line: str, code: int) -> int:
    """Writes the line to standard error, if anybody reads it, and returns the code."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)
    return code


def one_line(failure: Exception) -> str:
    """What a user must change, of an OSError or ValueError."""
    if isinstance(failure, BrokenPipeError):
        return "standard output is closed: what read it has ended; the same command resumes from the last checkpoint"
    if _is_any(failure, "Too many open files", errno.EMFILE, errno.ENFILE):
        return f"too many open files; {MORE_FILES}"
    if isinstance(failure, OSError) and failure.strerror:
        where = os.fsdecode(failure.filename) if failure.filename is not None else "files of the run"
        remedy = ""
        if failure.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "; free some space, then the same command resumes"
        elif isinstance(failure, PermissionError):
            remedy = "; give another place, or its owner's permission"
        return f"{where}: {failure.strerror}{remedy}"
    return " ".join(str(failure).split("\n")).strip() or type(failure).__name__


def raise_file_limit() -> None:
    """Raises the limit of open files as far as this user may. Raises: ValueError when a run cannot do with it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_OPEN_FILES if hard == resource.RLIM_INFINITY else min(WANTED_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    if soft != resource.RLIM_INFINITY and soft < MIN_OPEN_FILES:
        raise ValueError(f"only {soft} files may be open at once, a run needs at least {MIN_OPEN_FILES}; {MORE_FILES}")


def check_path(field: str, path: str) -> None:
    """Raises ValueError for a path that is not text in this locale: the libraries that store checkpoints take text alone."""
    try:
        os.path.abspath(path).encode()
    except UnicodeEncodeError:
        shown = path.encode(errors="backslashreplace").decode()
        raise ValueError(
            f"{field}={shown}: the name is not text in this locale; set LC_ALL=C.UTF-8 or PYTHONUTF8=1, or rename it"
        ) from None


def escape_what_cannot_be_encoded() -> None:
    """Paths that the terminal's encoding does not have are escaped rather than an error."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]


def _is_any(failure: BaseException | None, text: str, *numbers: int) -> bool:
    """Whether the error, or what caused it, has one of these numbers or says so."""
    seen: list[BaseException] = []
    while failure is not None and failure not in seen:
        if getattr(failure, "errno", None) in numbers or text in str(failure):
            return True
        seen.append(failure)
        failure = failure.__cause__ or failure.__context__
    return False
