"""Signals and silence: a run can be stopped in every state, and none waits for ever.

The main thread says what it waits for (`Watch.waiting`); a thread of its own ends the process when that takes too long. The
same thread is woken by the system's signal handler, which runs whatever the main thread is busy with.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from opencoder_data.command import EXIT_INTERRUPTED, EXIT_SILENT

# Of the trainer alone; the others are those of every command.
EXIT_SIGTERM, EXIT_NONFINITE = 3, 4
# Seconds after a signal: before the loop the main thread may be in a compiler; in the loop a wait gets this and three times
# the longest of its kind so far; at exit the threads of libraries are waited for so long.
STARTING_GRACE, LOOP_GRACE, EXIT_GRACE = 10.0, 30.0, 60.0
_POLL_SECONDS = 0.25
RESUMES = "the same command resumes from the last checkpoint"


class Stopped(BaseException):
    """A signal before the loop began: nothing is lost, the process may end."""


@dataclass
class _Wait:
    what: str
    since: float
    limit: float  # seconds
    patient: bool  # gets its whole limit after a signal too


class Watch:
    """A context manager around a run, entered in the main thread.

    First SIGTERM or Ctrl-C: before `looping`, `Stopped` is raised in the main thread; from then on `received` is set, for
    the loop to save and leave. A second Ctrl-C ends the process at once.
    """

    def __init__(self, silence_seconds: float = 600.0):
        self.silence_seconds = silence_seconds
        self.received = False
        self.reason = "SIGTERM"
        self.several_processes = False
        self._looping = False
        self._signalled_at: float | None = None
        self._interrupts = 0
        self._waits: list[_Wait] = []
        self._longest: dict[str, float] = {}
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Watch:
        if threading.current_thread() is not threading.main_thread():
            return self  # signals belong to the main thread
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        for number in (signal.SIGTERM, signal.SIGINT):
            if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:  # a shell's background job
                self._handlers[number] = signal.signal(number, self._handle)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        threading.Thread(target=self._run, daemon=True, name="watch").start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._handlers:
            signal.set_wakeup_fd(self._wakeup)
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            os.close(self._write)  # ends the thread, which closes the other end

    def looping(self) -> None:
        """From here on signals are the loop's: there is something to save."""
        self._looping = True

    @contextlib.contextmanager
    def waiting(self, what: str, seconds: float | None = None) -> Iterator[None]:
        """Ends the process if the block takes longer than `silence_seconds`, or `seconds`.

        what: "the data loader", for the line that says so; waits of one name are of one kind.
        """
        wait = _Wait(what, time.monotonic(), self.silence_seconds if seconds is None else seconds, seconds is not None)
        self._waits.append(wait)
        try:
            yield
        finally:
            self._waits.pop()
            now = time.monotonic()
            self._longest[what] = max(now - wait.since, self._longest.get(what, 0.0))
            if self._waits:  # what surrounds this one has got something done
                self._waits[-1].since = now

    def _handle(self, number: int, *_: object) -> None:
        if self.several_processes and number == signal.SIGINT:
            os.kill(os.getpid(), signal.SIGTERM)  # JAX's preemption service tells the others
            return
        self.received, self.reason = True, "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
        if not self._looping and not self.several_processes:
            raise Stopped

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        while True:
            if poll.poll(1000 * _POLL_SECONDS):
                numbers = os.read(self._read, 64)
                if not numbers:
                    os.close(self._read)
                    return
                for number in numbers:
                    self._signalled(number)
            self._look()

    def _signalled(self, number: int) -> None:
        if self._signalled_at is None:
            self._signalled_at = time.monotonic()
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
                end_now(f"stopped at once by a second Ctrl-C; {RESUMES}", EXIT_INTERRUPTED)
            if self._looping:
                say_now("Ctrl-C: saving after this step; a second one ends at once")

    def _look(self) -> None:
        now, wait = time.monotonic(), self._waits[-1] if self._waits else None
        if self._signalled_at is not None and not self._looping and not self.several_processes:
            if now - self._signalled_at > STARTING_GRACE:
                end_now(BEFORE_THE_LOOP, EXIT_SIGTERM)
            return
        if wait is None:
            return
        if now - wait.since > wait.limit:
            end_now(f"error: {wait.what} did not answer for {wait.limit / 60:g} minutes; {RESUMES}", EXIT_SILENT)
        if self._signalled_at is not None and not wait.patient:
            grace = LOOP_GRACE + 3 * self._longest.get(wait.what, 0.0)
            if now - max(wait.since, self._signalled_at) > grace:
                end_now(
                    f"error: stopped by a signal while {wait.what} did not answer, not saved; {RESUMES}", EXIT_SILENT
                )


def before_imports() -> None:
    """Importing JAX takes seconds: a signal is one line and the end. Closed standard streams are opened to nothing, or the
    next file that is opened would receive what libraries write to them."""
    with contextlib.suppress(OSError):
        while (null := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(null, True)
        os.close(null)
    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: end_now(BEFORE_THE_LOOP, EXIT_SIGTERM))


BEFORE_THE_LOOP = f"stopped by a signal before the first step, nothing to save; {RESUMES}"


def say_now(line: str) -> None:
    """A line on standard error, from any thread; left out where it would block or nobody reads."""
    poll = select.poll()
    with contextlib.suppress(OSError):
        poll.register(2, select.POLLOUT)
        if any(event & select.POLLOUT for _, event in poll.poll(1000)):
            os.write(2, line.encode(errors="backslashreplace")[:4000] + b"\n")


def end_now(line: str, code: int) -> NoReturn:
    """Ends the process from any thread, whatever the main thread does."""
    flush = threading.Thread(target=_flush, daemon=True)  # the main thread may hold the stream, blocked
    flush.start()
    flush.join(1)
    say_now(line)
    os._exit(code)


def end(code: int) -> NoReturn:
    """Ends the process with this code, even if nobody reads its output any more or a library's thread hangs."""
    threading.Thread(target=lambda: (time.sleep(EXIT_GRACE), os._exit(code)), daemon=True).start()
    if not _flush():
        # What is still buffered must not fail again when the interpreter flushes it.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            null = os.open(os.devnull, os.O_WRONLY)
            for stream in (sys.stdout, sys.stderr):
                os.dup2(null, stream.fileno())
    sys.exit(code)


def _flush() -> bool:
    done = True
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            done = False
    return done
