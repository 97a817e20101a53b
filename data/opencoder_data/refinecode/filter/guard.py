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
import itertools
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

# When the signal began: seconds of CLOCK_MONOTONIC (0: idle) and of the child's processor time; the document; its name.
_HEARTBEAT = struct.Struct("ddQ120s")
_IDLE = _HEARTBEAT.pack(0.0, 0.0, 0, b"")
_CLOCKS = struct.Struct("dd")
_NAME_AT = _HEARTBEAT.size - 120
# The clocks are read again when a signal begins this many seconds after they were read: most take a millionth.
_CLOCK_AGE = 0.001
MAX_STOPS = 3
# A signal that waits instead of computing is stopped after this many time limits by the clock on the wall.
WAITING = 10
# What the child is sent at a time, in documents and characters, and how many such batches it has before it answers: a
# message costs as much as the signals of a small file.
_BATCH_DOCUMENTS, _BATCH_CHARS, _AHEAD = 64, 200_000, 2
# The child answers when a batch ends, or after this many seconds: what it had not sent yet is computed again when it stops.
_ANSWER_AFTER = 0.05


@dataclass
class _Document:
    """One that awaits its signals: what to ask, why signals were left out so far, and which child was asked."""

    number: int
    content: str
    options: dict[str, Any]
    errors: dict[str, str] = field(default_factory=dict)
    given_up: bool = False  # it ends the child outside its signals: none is asked for

    def request(self) -> tuple[int, str, dict[str, Any], bool]:
        options = self.options
        if self.given_up:
            return self.number, "", {**options, "doc_type": ""}, False
        if self.errors:
            options = {**options, "skip": frozenset(options.get("skip", ())) | self.errors.keys()}
        return self.number, self.content, options, len(self.errors) >= MAX_STOPS


@dataclass
class _Batch:
    """Documents that are sent in one message, those answered taken away, and which child was asked."""

    documents: deque[_Document]
    sent_to: subprocess.Popen | None = None

    @classmethod
    def of(cls, source: Iterator[tuple[str, dict[str, Any]]], numbers: Iterator[int]) -> "_Batch":
        """The next documents of `source`; none when it has ended."""
        batch = cls(deque())
        chars = 0
        while chars < _BATCH_CHARS and len(batch.documents) < _BATCH_DOCUMENTS:
            following = next(source, None)
            if following is None:
                break
            batch.documents.append(_Document(next(numbers), *following))
            chars += len(following[0])
        return batch


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
        """`compute` of each (content, options), in order. Documents go to the child in batches, and it has the next batch
        before it ends one, so that neither process waits for the other."""
        waiting: deque[_Batch] = deque()
        with self._lock:
            try:
                yield from self._in_order(iter(documents), waiting)
            finally:
                if waiting:  # left early: answers in progress must not meet the next documents
                    self.close()

    def _in_order(self, source: Iterator[tuple[str, dict[str, Any]]], waiting: deque[_Batch]) -> Iterator[Signals]:
        numbers = itertools.count(1)
        while True:
            while len(waiting) < _AHEAD and (batch := _Batch.of(source, numbers)).documents:
                waiting.append(batch)
            if not waiting:
                return
            answer = self._answer(waiting)
            documents = waiting[0].documents
            if isinstance(answer, list):
                for values, errors in answer:
                    signals = Signals(values)
                    signals.errors.update(errors)
                    signals.errors.update(documents.popleft().errors)
                    if not documents:
                        waiting.popleft()
                    yield signals
                continue
            number, name, reason = answer
            head = documents[0]  # to which it belongs when it ended outside any document
            document = next((d for b in waiting for d in b.documents if d.number == number), None)
            if document is None and len(documents) > 1:  # by one of this message: each in one of its own
                waiting.popleft()
                waiting.extendleft(_Batch(deque([d])) for d in reversed(documents))
                continue
            document = document or head
            if name not in document.errors:
                document.errors[name] = reason
            elif document is not head and not document.given_up:
                document.given_up = True
            else:  # nothing more to leave out
                documents.popleft()
                if not documents:
                    waiting.popleft()
                signals = Signals()
                signals.errors.update(head.errors or {"": reason})
                yield signals

    def _answer(self, waiting: deque[_Batch]) -> list[tuple[dict, dict]] | tuple[int, str, str]:
        """(signals, errors) of the first documents of the first of `waiting`, or (document, signal, reason) after the child
        was stopped. Sends what is not sent yet."""
        child = self._start()
        assert child.stdin and child.stdout
        for batch in waiting:
            if batch.sent_to is not child:
                batch.sent_to = child
                self._outbox.append(memoryview(_message([d.request() for d in batch.documents])))
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
            began, began_cpu, _, _ = _HEARTBEAT.unpack(self._map[:])
            waited = time.monotonic() - began
            if began and waited > self.time_limit:  # which processor time cannot be before
                used = _processor_seconds(child.pid)
                if used is None or used - began_cpu > self.time_limit or waited > WAITING * self.time_limit:
                    return self._stopped(f"TimeoutError: stopped after {self.time_limit:g} s")

    def _stopped(self, reason: str) -> tuple[int, str, str]:
        _, _, number, name = _HEARTBEAT.unpack(self._map[:])
        self.close()
        self.restarts += 1
        return number, name.rstrip(b"\0").decode(), reason

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


class _Heart:
    """The child's side of the heartbeat: which document and signal it is at, and since when."""

    def __init__(self, shared_fd: int):
        self._map = mmap.mmap(shared_fd, _HEARTBEAT.size)
        self._names: dict[str, bytes] = {}
        self._read_at = 0.0
        self.only_skip = False

    def begin(self, number: int, only_skip: bool) -> None:
        """A document begins; with `only_skip` each of its signals fails at once."""
        self.only_skip = only_skip
        self._read_at = time.monotonic()
        self._map[:] = _HEARTBEAT.pack(self._read_at, time.process_time(), number, b"")

    def rest(self) -> None:
        """Nothing is computed: the time that passes does not count."""
        self._map[:] = _IDLE

    def signal(self, name: str) -> None:
        """A signal begins."""
        now = time.monotonic()
        if now - self._read_at > _CLOCK_AGE:
            self._read_at = now
            self._map[: _CLOCKS.size] = _CLOCKS.pack(now, time.process_time())
        if name not in self._names:
            self._names[name] = name.encode()[:120].ljust(120, b"\0")
        self._map[_NAME_AT:] = self._names[name]
        if self.only_skip:
            raise TimeoutError(f"not computed: the limit was reached {MAX_STOPS} times")


def serve(shared_fd: int, modules: Sequence[str]) -> None:
    """The child's loop: read documents, answer their signals, until the parent goes away."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a stray print must not reach the pipe
    heart = _Heart(shared_fd)
    for name in modules:
        importlib.import_module(name)
    for text in ("x = 1\n", "é = 1\n"):  # compile, or load what an earlier process compiled
        for doc_type in ("code", "text"):
            compute_signals(text, language="none", doc_type=doc_type)
    _send(answers, "ready")
    while True:
        try:
            batch = _receive(requests)
        except EOFError:
            return
        done: list[tuple[dict, dict]] = []
        answered = time.monotonic()
        for number, content, options, only_skip in batch:
            heart.begin(number, only_skip)
            out = compute_signals(content, on_signal=heart.signal, **options)
            done.append((dict(out), out.errors))
            if time.monotonic() - answered > _ANSWER_AFTER:
                heart.rest()
                _send(answers, done)
                done, answered = [], time.monotonic()
        heart.rest()
        if done:
            _send(answers, done)
