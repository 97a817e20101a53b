"""A directory that is complete or absent, whatever ends the process that writes it."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from opencoder_data import command


@contextlib.contextmanager
def complete_directory(final: Path, num_bytes: int) -> Iterator[Path]:
    """A directory under another name that becomes `final` when the block ends well and vanishes when it does not.

    Raises: ValueError when `final` is there already, or the disk has not num_bytes free or gets full.
    """
    final = final.absolute()
    if final.exists() and (not final.is_dir() or any(final.iterdir())):
        raise ValueError(f"{final}: exists already; remove it or give another directory")
    existing = next(p for p in final.parents if p.exists())
    free = shutil.disk_usage(existing).free
    if free < num_bytes:
        raise ValueError(
            f"{existing}: {num_bytes / 2**30:.1f} GiB needed, {free / 2**30:.1f} GiB free; free some space"
        )
    _remove_abandoned(final)
    part = final.with_name(f"{_part_prefix(final)}{os.getpid()}")
    try:
        with command.temporary_directory(part), locked(part):
            yield part
            if final.exists():
                final.rmdir()
            part.rename(final)
    except OSError as error:
        raise ValueError(f"{final}: {error.strerror or error}; nothing was written") from error


def _part_prefix(final: Path) -> str:
    return f".{final.name}.part-"


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[bool]:
    """Holds the directory's lock, which the system takes back however this process ends; False where another holds it, or
    the file system has no locks."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        ours = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            ours = False
        yield ours
    finally:
        os.close(descriptor)


def _remove_abandoned(final: Path) -> None:
    """What killed exports to the same name left; whatever a running one works on stays."""
    for part in final.parent.glob(glob.escape(_part_prefix(final)) + "*"):
        with contextlib.suppress(OSError), locked(part) as ours:
            if ours:
                shutil.rmtree(part, ignore_errors=True)
