"""Starts one process, drains and caps what it prints, and ends it when its tree goes over a limit."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from opencoder_eval.sandbox.results import Limits, Outcome
from opencoder_eval.sandbox.tree import Usage, usage_of_tree

# Seconds between looks at the tree; the first look comes early, as most programs end within 50 ms.
FIRST_LOOK, LOOK = 0.02, 0.05
# A program may print this much more than what is kept before it is ended.
PRINTED_OVER_KEPT = 16
# After the end of the process: what its dying children still hold open is waited for so long.
CLOSING_SECONDS = 5.0
CHUNK = 1 << 16


@dataclass
class Finished:
    """What was seen of a process. killed: the limit that ended it. status, result: what came on those descriptors."""

    returncode: int = 0
    killed: Outcome | None = None
    detail: str = ""
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    status: bytearray = field(default_factory=bytearray)
    result: bytearray = field(default_factory=bytearray)
    printed: int = 0
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0


def execute(
    command: Sequence[str],
    *,
    stdin: bytes,
    limits: Limits,
    pass_fds: Sequence[int] = (),
    readers: Mapping[str, int] | None = None,
    cwd: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Finished:
    """Runs `command` to its end, at most until a limit.

    Args:
      stdin: written to a pipe, whose other end is the process's standard input.
      pass_fds: closed here once the process has them.
      readers: "status" or "result" -> read end of a pipe; closed here in the end.
      environment: the whole environment of the process.

    Raises: OSError if the command cannot be started.
    """
    readers = dict(readers or {})
    taken, writer = os.pipe()
    readers["stdout"], out = os.pipe()
    readers["stderr"], err = os.pipe()
    for pipe, mode in ((taken, 0o444), (out, 0o222), (err, 0o222)):
        os.fchmod(pipe, mode)  # for programs that open /dev/stdin or /dev/stdout; they are another user
    try:
        start = time.monotonic()
        process = subprocess.Popen(
            command,
            stdin=taken,
            stdout=out,
            stderr=err,
            pass_fds=pass_fds,
            cwd=cwd,
            env=dict(environment or {}),
            start_new_session=True,
        )
    except BaseException:
        _close(*readers.values(), writer)
        raise
    finally:
        _close(*pass_fds, taken, out, err)
    # If the machine runs out of memory before the watchdog looks, the program goes first, not the evaluator.
    with contextlib.suppress(OSError), open(f"/proc/{process.pid}/oom_score_adj", "w") as file:
        file.write("1000")
    watched = _Watched(process, limits, readers, writer, stdin, start)
    try:
        watched.run()
    finally:
        watched.close()
    return watched.seen


class _Watched:
    """One running process with its pipes."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        limits: Limits,
        readers: Mapping[str, int],
        writer: int,
        stdin: bytes,
        start: float,
    ):
        self.process, self.limits, self.start = process, limits, start
        self.seen = Finished()
        self.readers = dict(readers)
        self.selector = selectors.PollSelector()
        self.pidfd = os.pidfd_open(process.pid)
        self.selector.register(self.pidfd, selectors.EVENT_READ, "exit")
        for name, descriptor in self.readers.items():
            os.set_blocking(descriptor, False)
            self.selector.register(descriptor, selectors.EVENT_READ, name)
        self.stdin = memoryview(stdin)
        self.writer: int | None = writer
        os.set_blocking(writer, False)
        self.selector.register(writer, selectors.EVENT_WRITE, "stdin")
        self.open = set(self.readers)

    def run(self) -> None:
        """Until the process and all that hold its pipes have ended."""
        ended: float | None = None
        look = self.start + FIRST_LOOK
        while self.open or ended is None:
            now = time.monotonic()
            if ended is None:
                timeout = max(look - now, 0)
            elif (timeout := ended + CLOSING_SECONDS - now) <= 0:
                break
            for key, _ in self.selector.select(timeout):
                if key.data == "exit":
                    self.selector.unregister(self.pidfd)
                    ended = time.monotonic()
                elif key.data == "stdin":
                    self._write(key.fd)
                else:
                    self._read(key.data, key.fd)
            if ended is None and (now := time.monotonic()) >= look:
                look = now + LOOK
                self._look(now)
        self.seen.wall_seconds = (ended or time.monotonic()) - self.start

    def close(self) -> None:
        """Ends the process if it still runs; closes everything."""
        if self.process.poll() is None:
            self.kill()
        self.seen.returncode = self.process.wait()
        self.selector.close()
        _close(self.pidfd, *self.readers.values(), *([] if self.writer is None else [self.writer]))

    def kill(self) -> None:
        """The whole process group; in the sandbox the namespace of processes ends with it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def _end(self, outcome: Outcome, detail: str) -> None:
        if self.seen.killed is None:
            self.seen.killed, self.seen.detail = outcome, detail
            self.kill()

    def _write(self, descriptor: int) -> None:
        try:
            written = os.write(descriptor, self.stdin[:CHUNK]) if self.stdin else 0
        except BlockingIOError:
            return
        except OSError:  # it reads no more
            self.stdin = self.stdin[:0]
        else:
            self.stdin = self.stdin[written:]
        if not self.stdin:
            self.selector.unregister(descriptor)
            self.writer = None
            os.close(descriptor)

    def _read(self, name: str, descriptor: int) -> None:
        try:
            data = os.read(descriptor, CHUNK)
        except BlockingIOError:
            return
        if not data:
            self.selector.unregister(descriptor)
            self.open.discard(name)
            return
        kept: bytearray = getattr(self.seen, name)
        space = (self.limits.output_bytes if name in ("stdout", "stderr") else 4096) - len(kept)
        kept += data[: max(space, 0)]
        self.seen.printed += len(data)
        most = PRINTED_OVER_KEPT * self.limits.output_bytes
        if self.seen.printed > most:
            self._end("output_limit", f"printed more than {most} bytes")

    def _look(self, now: float) -> None:
        limits = self.limits
        usage: Usage = usage_of_tree(self.process.pid, limits.memory_bytes)
        self.seen.cpu_seconds = max(self.seen.cpu_seconds, usage.cpu_seconds)
        if usage.memory_bytes > limits.memory_bytes:
            self._end("memory", f"used more than {limits.memory_bytes >> 20} MiB of memory")
        elif usage.cpu_seconds > limits.cpu_seconds:
            self._end("timeout", f"used more than {limits.cpu_seconds:g} s of CPU time")
        elif now - self.start > limits.wall_seconds:
            self._end("timeout", f"ran for more than {limits.wall_seconds:g} s")


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
