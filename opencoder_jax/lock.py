"""One run directory, one trainer: a lock that the system gives back when its holder dies, and that other hosts see.

`RUN/train.lock` is held by `flock` and names its holder. Where two hosts share the directory without sharing such locks, the
holder's heartbeat, a change of the file's time every few seconds, tells a living trainer from a dead one.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FILE = "train.lock"
BEAT_SECONDS = 5.0
# A holder on another host that has not moved for so long is dead.
WAIT_SECONDS = 30.0
_FAILED_BEATS = 6


class RunLock:
    """Held from `acquire` until `release` or the end of the process.

    Raises: (acquire) ValueError with host and process of the trainer that has the directory; (check) ValueError when
    another one has taken it, or the file is gone.
    """

    def __init__(self, run_dir: Path):
        self._path = run_dir / FILE
        self._token = secrets.token_hex(8)
        self._lost = ""
        self._file = -1
        self._released = threading.Event()

    def acquire(self, say: Callable[[str], object] = print) -> None:
        """Creates the directory if need be. say: told what a wait is for."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            by_system = self._lock()
            if holder := _read(self._file):
                self._take_over(holder, say)
            self._write()
            if not by_system:  # two may have found the directory free at the same moment
                time.sleep(BEAT_SECONDS)
                self._still_ours()
        except BaseException:
            os.close(self._file)
            self._file = -1
            raise
        threading.Thread(target=self._beat, daemon=True, name="lock").start()

    def check(self) -> None:
        if self._lost:
            raise ValueError(self._lost)

    def release(self) -> None:
        """The directory is free; the file stays, empty."""
        self._released.set()
        with contextlib.suppress(OSError):
            if self._file >= 0 and not self._lost:
                os.ftruncate(self._file, 0)
            os.close(self._file)

    def _lock(self) -> bool:
        """False where the file system has no such locks."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(self._in_use(_read(self._file))) from None
        except OSError:
            return False
        return True

    def _take_over(self, holder: dict[str, Any], say: Callable[[str], object]) -> None:
        """Raises ValueError unless the holder is dead."""
        alive = _is_alive(holder)
        if alive is None:
            say(
                f"{self._path}: held by pid {holder.get('pid')} on {holder.get('host')}; waiting {WAIT_SECONDS:g} s for a "
                "sign of life"
            )
            alive = self._moves()
        if alive:
            raise ValueError(self._in_use(holder))

    def _moves(self) -> bool:
        """Whether another process changes the file within `WAIT_SECONDS`."""
        first, deadline = self._stamp(), time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            time.sleep(min(BEAT_SECONDS, WAIT_SECONDS) / 5)
            if self._stamp() != first:
                return True
        return False

    def _stamp(self) -> tuple[int, bytes]:
        """Time and content, as a file that is opened anew shows them: other hosts' changes are not in an old one's cache."""
        file = os.open(self._path, os.O_RDONLY)
        try:
            return os.fstat(file).st_mtime_ns, os.pread(file, 4096, 0)
        finally:
            os.close(file)

    def _write(self) -> None:
        record = {**_identity(), "token": self._token, "since": _now()}
        data = (json.dumps(record) + "\n").encode()
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, data, 0)
        os.fsync(self._file)

    def _beat(self) -> None:
        failed = 0
        while not self._released.wait(BEAT_SECONDS):
            try:
                os.utime(self._file)
                self._still_ours()
                failed = 0
            except ValueError as error:
                self._lost = str(error)
                return
            except OSError as error:
                failed += 1
                if failed == _FAILED_BEATS:
                    self._lost = (
                        f"{self._path}: {error.strerror}; the run directory is gone or cannot be written any more"
                    )
                    return

    def _still_ours(self) -> None:
        """Raises: ValueError when another trainer holds the directory; OSError when the file is gone."""
        try:
            with self._path.open("rb") as file:
                holder = _read(file.fileno())
        except FileNotFoundError:
            raise ValueError(f"{self._path} was removed while the run held it; start the run again") from None
        if not self._released.is_set() and holder.get("token") != self._token:
            raise ValueError(self._in_use(holder))

    def _in_use(self, holder: dict[str, Any]) -> str:
        who = (
            f"pid {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}"
            if holder
            else "it is just starting"
        )
        return (
            f"{self._path.parent}: another trainer works there ({who}); stop it or give another run_dir. If it is no more, "
            f"remove {self._path}"
        )


def _read(file: int) -> dict[str, Any]:
    """The holder's record; empty when nobody is named."""
    try:
        record = json.loads(os.pread(file, 4096, 0))
    except ValueError:  # empty, or cut by a kill
        return {}
    return record if isinstance(record, dict) else {}


def _identity() -> dict[str, Any]:
    """Names this process among all of all hosts: a pid is given again after a boot, in a container and in time."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "boot": _text("/proc/sys/kernel/random/boot_id"),
        "namespace": _link("/proc/self/ns/pid"),
        "started": _start_time(os.getpid()),
    }


def _is_alive(holder: dict[str, Any]) -> bool | None:
    """Whether a process of this host and container lives; None for one of another, or where the system does not say."""
    here = _identity()
    if not here["boot"] or any(holder.get(name) != here[name] for name in ("boot", "namespace")):
        return None
    pid = holder.get("pid")
    return isinstance(pid, int) and _start_time(pid) == holder.get("started") != ""


def _start_time(pid: int) -> str:
    """In clock ticks after the boot; empty when there is no such process, or it has ended and waits for its parent."""
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] not in "ZX" else ""


def _text(path: str) -> str:
    try:
        return Path(path).read_bytes().decode(errors="replace").strip()  # a program's name may be any bytes
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
