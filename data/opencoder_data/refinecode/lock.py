"""One run at a time on an output directory: a lock of the operating system, which ends with the process that holds it."""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator

from fsspec.implementations.local import LocalFileSystem

from opencoder_data.refinecode import storage

NAME = ".lock"


@contextlib.contextmanager
def held(output: str) -> Iterator[None]:
    """Holds the lock of a local output directory (created if need be) for the block; object stores have none.

    Raises ValueError naming process and host where another run holds it.
    """
    fs, directory = storage.filesystem(output)
    if not isinstance(fs, LocalFileSystem):
        yield
        return
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, NAME)
    handle = _take(path, output)
    try:
        yield
    finally:
        # Removed while it is still held: whoever opened it meanwhile finds another file, or none, under the name.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.close(handle)


def _take(path: str, output: str) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(handle, 300).decode("utf-8", "replace").strip()
            os.close(handle)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise ValueError(
                f"output directory {output} is in use by another run ({holder or 'just starting'}); wait for it or give "
                "another directory"
            ) from None
        try:
            same = os.path.samestat(os.fstat(handle), os.stat(path))
        except FileNotFoundError:
            same = False
        if same:
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            return handle
        os.close(handle)
