"""A time limit that stops any signal: the signals run in a child process, and a late child is killed.

Neither a thread nor SIGALRM can interrupt a C extension or compiled loop that holds the interpreter, and SIGALRM works in
the main thread only. A child process can always be killed. It notes in shared memory which signal it began and when;
the parent waits for the answer and, when one signal runs too long (or the child dies of it), kills the child, starts
another, and asks again without that signal, which is null with its reason.

The limit is one of the child's processor time, where the system tells it (Linux): what is kept of a corpus must not
depend on how busy the machine was.
"""

import contextlib
import ctypes
import importlib
import mmap
import os
import pickle
import select
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from . import Signals, compute_signals

# When the signal began: seconds of CLOCK_MONOTONIC (0: idle) and of the child's processor time; its name.
_HEARTBEAT = struct.Struct("dd120s")
_IDLE = _HEARTBEAT.pack(0.0, 0.0, b"")
MAX_STOPS = 3
# A signal that waits instead of computing is stopped after this many time limits by the clock on the wall.
WAITING = 10
# Documents the child is sent at a time. Their answers fit into a pipe, so that it never waits with one.
_AHEAD = 2


@dataclass
class _Document:
    """One that awaits its signals: what to ask, why signals were left out so far, and which child was asked."""

    content: str
    options: dict[str, Any]
    errors: dict[str, str] = field(default_factory=dict)
    sent_to: subprocess.Popen | None = None

    def message(self) -> bytes:
        skip = frozenset(self.options.get("skip", ())) | self.errors.keys()
        return _message((self.content, {**self.options, "skip": skip}, len(self.errors) >= MAX_STOPS))


class Guard:
    """`compute_signals` under a limit of `time_limit` seconds of processor time per signal.

    modules: importable modules that register further signals, loaded in the child. Safe to call from any thread; one
    document at a time. Close it, or use it in a `with` block. After `MAX_STOPS` stopped signals of one document the
    signals not computed yet stay null with that reason: a document costs at most `MAX_STOPS * time_limit` seconds.
    """

    def __init__(self, time_limit: float = 10.0, modules: Sequence[str] = ()):
        if not time_limit > 0:
            raise ValueError(f"filter guard: time_limit must be positive, got {time_limit}")
        self.time_limit = time_limit
        self.restarts = 0
        self._modules = tuple(modules)
        self._lock = threading.Lock()
        self._shared = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the guard
        self._shared.truncate(_HEARTBEAT.size)
        self._map = mmap.mmap(self._shared.fileno(), _HEARTBEAT.size)
        self._child: subprocess.Popen | None = None
        self._outbox: deque[memoryview] = deque()

    def __enter__(self) -> "Guard":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child. The guard starts another one when it is used again."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            for pipe in (child.stdin, child.stdout):
                if pipe:
                    with contextlib.suppress(OSError):
                        pipe.close()
            child.wait()

    def compute(self, content: str, **options: Any) -> Signals:
        """As `compute_signals`; a signal stopped by the limit, or by the child's death, is null with its reason."""
        return next(iter(self.compute_all([(content, options)])))

    def compute_all(self, documents: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[Signals]:
        """`compute` of each (content, options), in order. The child has the next document before it is asked for, so
        that neither process waits for the other."""
        source = iter(documents)
        waiting: deque[_Document] = deque()
        with self._lock:
            try:
                yield from self._in_order(source, waiting)
            finally:
                if waiting:  # left early: answers under way must not meet the next documents
                    self.close()

    def _in_order(self, source: Iterator[tuple[str, dict[str, Any]]], waiting: "deque[_Document]") -> Iterator[Signals]:
        while True:
            while len(waiting) < _AHEAD and (following := next(source, None)) is not None:
                waiting.append(_Document(*following))
            if not waiting:
                return
            answer = self._answer(waiting)
            head = waiting[0]
            if isinstance(answer, Signals):
                waiting.popleft()
                answer.errors.update(head.errors)
                yield answer
                continue
            name, reason = answer
            if name in head.errors:  # stopped outside any signal: nothing more to leave out
                waiting.popleft()
                nothing = Signals()
                nothing.errors.update(head.errors or {"": reason})
                yield nothing
            else:
                head.errors[name] = reason

    def _answer(self, waiting: "deque[_Document]") -> Signals | tuple[str, str]:
        """Signals of the first of `waiting`, or (signal, reason) after the child was stopped. Sends those not sent yet."""
        child = self._start()
        assert child.stdin and child.stdout
        for document in waiting:
            if document.sent_to is not child:
                document.sent_to = child
                self._outbox.append(memoryview(document.message()))
        requests = child.stdin.fileno()
        while True:
            writers = [requests] if self._outbox else []
            ready, writable, _ = select.select([child.stdout], writers, [], min(self.time_limit / 4, 0.25))
            if ready:
                try:
                    return _receive(child.stdout)
                except EOFError:
                    code = child.wait()
                    return self._stopped(
                        f"its process ended ({'signal ' + str(-code) if code < 0 else 'exit ' + str(code)})"
                    )
            if writable:
                try:
                    sent = os.write(requests, self._outbox[0][: 1 << 20])
                except OSError:
                    self._outbox.clear()  # it has ended; its end is read next
                    continue
                self._outbox[0] = self._outbox[0][sent:]
                if not self._outbox[0]:
                    self._outbox.popleft()
            began, began_cpu, _ = _HEARTBEAT.unpack(self._map[:])
            waited = time.monotonic() - began
            if began and waited > self.time_limit:  # which processor time cannot be before
                used = _processor_seconds(child.pid)
                if used is None or used - began_cpu > self.time_limit or waited > WAITING * self.time_limit:
                    return self._stopped(f"TimeoutError: stopped after {self.time_limit:g} s")

    def _stopped(self, reason: str) -> tuple[str, str]:
        name = _HEARTBEAT.unpack(self._map[:])[2].rstrip(b"\0").decode()
        self.close()
        self.restarts += 1
        return name, reason

    def _start(self) -> subprocess.Popen:
        if self._child is None or self._child.poll() is not None:
            self.close()
            fd = self._shared.fileno()
            command = [sys.executable, "-c", f"from {__name__} import serve; serve({fd}, {self._modules!r})"]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(fd,), env=environment
            )
            assert self._child.stdin and self._child.stdout
            # A child that hangs reads no further: writing must not wait for it.
            os.set_blocking(self._child.stdin.fileno(), False)
            self._outbox.clear()
            self._map[:] = _IDLE
            try:
                _receive(self._child.stdout)  # compiled and ready
            except EOFError:
                code = self._child.wait()
                raise RuntimeError(f"filter guard: the child process did not start (exit {code})") from None
        return self._child


def _processor_seconds(pid: int) -> float | None:
    """Processor time of a process so far, all its threads; None where the system does not tell, or it has ended."""
    clock = ctypes.c_int()
    try:
        if ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock)):
            return None
        return time.clock_gettime(clock.value)
    except (AttributeError, OSError):
        return None


def _message(value: Any) -> bytes:
    data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    return struct.pack("<Q", len(data)) + data


def _send(pipe: IO[Any], value: Any) -> None:
    pipe.write(_message(value))
    pipe.flush()


def _receive(pipe: IO[Any]) -> Any:
    head = _exactly(pipe, 8)
    return pickle.loads(_exactly(pipe, struct.unpack("<Q", head)[0]))


def _exactly(pipe: IO[Any], size: int) -> bytes:
    """`size` bytes straight from the descriptor, so that `select` on it never misses buffered ones."""
    parts = []
    while size:
        part = os.read(pipe.fileno(), min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def serve(shared_fd: int, modules: Sequence[str]) -> None:
    """The child's loop: read a document, answer its signals, until the parent goes away."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a stray print must not reach the pipe
    beat = mmap.mmap(shared_fd, _HEARTBEAT.size)
    for name in modules:
        importlib.import_module(name)
    for text in ("x = 1\n", "é = 1\n"):  # compile, or load what an earlier process compiled
        for doc_type in ("code", "text"):
            compute_signals(text, language="none", doc_type=doc_type)
    _send(answers, "ready")
    while True:
        try:
            content, options, only_skip = _receive(requests)
        except EOFError:
            return

        def on_signal(name: str, stop: bool = only_skip) -> None:
            beat[:] = _HEARTBEAT.pack(time.monotonic(), time.process_time(), name.encode()[:120])
            if stop:
                raise TimeoutError(f"not computed: the limit was reached {MAX_STOPS} times")

        out = compute_signals(content, on_signal=on_signal, **options)
        beat[:] = _IDLE
        _send(answers, out)
