"""A time limit that stops any signal: the signals run in a child process, and a late child is killed.

Neither a thread nor SIGALRM can interrupt a C extension or compiled loop that holds the interpreter, and SIGALRM works in
the main thread only. A child process can always be killed. It notes in shared memory which signal it began and when;
the parent waits for the answer and, when one signal runs too long (or the child dies of it), kills the child, starts
another, and asks again without that signal, which is null with its reason.
"""

import contextlib
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
from collections.abc import Sequence
from typing import IO, Any

from . import Signals, compute_signals

_HEARTBEAT = struct.Struct("d120s")  # time the signal began (CLOCK_MONOTONIC seconds, 0: idle), its name
MAX_STOPS = 3


class Guard:
    """`compute_signals` under a limit of `time_limit` seconds per signal.

    modules: importable modules that register further signals, loaded in the child. Safe to call from any thread; one
    document at a time. Close it, or use it in a `with` block. After `MAX_STOPS` stopped signals of one document the
    signals not computed yet stay null with that reason: a document has at most `MAX_STOPS * time_limit` seconds of
    waiting.
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
        with self._lock:
            errors: dict[str, str] = {}
            skip = frozenset(options.pop("skip", ()))
            while True:
                answer = self._ask(
                    content, {**options, "skip": skip | errors.keys()}, only_skip=len(errors) >= MAX_STOPS
                )
                if isinstance(answer, Signals):
                    answer.errors.update(errors)
                    return answer
                name, reason = answer
                if name in errors:  # stopped outside any signal: nothing more to leave out
                    return self._nothing(options, errors, reason)
                errors[name] = reason

    def _nothing(self, options: dict, errors: dict[str, str], reason: str) -> Signals:
        out = Signals()
        out.errors.update(errors or {"": reason})
        return out

    def _ask(self, content: str, options: dict, only_skip: bool) -> Signals | tuple[str, str]:
        child = self._start()
        assert child.stdin and child.stdout
        self._map[:] = _HEARTBEAT.pack(0.0, b"")
        try:
            _send(child.stdin, (content, options, only_skip))
        except OSError:
            return self._stopped("its process ended before it began")
        while True:
            ready, _, _ = select.select([child.stdout], [], [], min(self.time_limit / 4, 0.25))
            if ready:
                try:
                    return _receive(child.stdout)
                except EOFError:
                    code = child.wait()
                    return self._stopped(
                        f"its process ended ({'signal ' + str(-code) if code < 0 else 'exit ' + str(code)})"
                    )
            began, _ = _HEARTBEAT.unpack(self._map[:])
            if began and time.monotonic() - began > self.time_limit:
                return self._stopped(f"TimeoutError: stopped after {self.time_limit:g} s")

    def _stopped(self, reason: str) -> tuple[str, str]:
        name = _HEARTBEAT.unpack(self._map[:])[1].rstrip(b"\0").decode()
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
            assert self._child.stdout
            try:
                _receive(self._child.stdout)  # compiled and ready
            except EOFError:
                code = self._child.wait()
                raise RuntimeError(f"filter guard: the child process did not start (exit {code})") from None
        return self._child


def _send(pipe: IO[Any], value: Any) -> None:
    data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    pipe.write(struct.pack("<Q", len(data)) + data)
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
            beat[:] = _HEARTBEAT.pack(time.monotonic(), name.encode()[:120])
            if stop:
                raise TimeoutError(f"not computed: the limit was reached {MAX_STOPS} times")

        out = compute_signals(content, on_signal=on_signal, **options)
        beat[:] = _HEARTBEAT.pack(0.0, b"")
        _send(answers, out)
