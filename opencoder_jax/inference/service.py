"""A front for many threads: requests in from anywhere, one thread that owns the engine, events out as they come."""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from opencoder_jax.inference.engine import Engine, Event, Request, Row
from opencoder_jax.inference.scoring import Scores

log = logging.getLogger(__name__)
# Sequences scored between two blocks of decoding.
SCORES_AT_ONCE = 32


class QueueFull(Exception):
    """As many requests wait as may."""


class Closed(Exception):
    """The service takes no more requests."""


@dataclass(eq=False)
class Handle:
    """A submitted request. Iterating gives its events, the last with a reason; `cancel` from any thread.

    listener: called with each event in the engine's thread instead, and must not block.
    """

    request: Request
    listener: Callable[[Event], None]
    _events: queue.SimpleQueue[Event]
    _cancel: Callable[[Handle], None]
    row: Row | None = None
    cancelled: bool = False

    def cancel(self) -> None:
        """Frees its slot with the engine's next block; harmless when it has ended."""
        self._cancel(self)

    def __iter__(self) -> Iterator[Event]:
        while True:
            event = self._events.get()
            yield event
            if event.reason:
                return


@dataclass(eq=False)
class _Scoring:
    sequences: Sequence[Sequence[int]]
    top: bool
    done: Callable[[list[Scores] | Exception], None]


@dataclass
class Counters:
    """Since the start. running, waiting: now."""

    running: int = 0
    waiting: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0
    scored_tokens: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


class Service:
    """Args: max_waiting: requests that may wait for a slot; one more raises QueueFull."""

    def __init__(self, engine: Engine, *, max_waiting: int = 256):
        self.engine, self.max_waiting = engine, max_waiting
        self.counters = Counters()
        self._lock = threading.Condition()
        self._new: deque[Handle] = deque()
        self._scores: deque[_Scoring] = deque()
        self._cancelled: list[Handle] = []
        self._handles: dict[Row, Handle] = {}
        self._closing, self._dropping = False, False
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)
        self._thread.start()

    def submit(
        self, requests: Sequence[Request], listeners: Sequence[Callable[[Event], None] | None] | None = None
    ) -> list[Handle]:
        """Queues requests, all or none.

        Raises: QueueFull; Closed; ValueError for a request that the engine cannot run, or more of them than may ever wait.
        """
        most = self.max_waiting + self.engine.slots
        if len(requests) > most:
            raise ValueError(f"{len(requests)} rows in one request: at most {most} can run and wait at once")
        for request in requests:
            self.engine.check(request)
        handles = []
        for request, listener in zip(requests, listeners or [None] * len(requests), strict=True):
            events: queue.SimpleQueue[Event] = queue.SimpleQueue()
            handles.append(Handle(request, listener or events.put, events, self._note_cancel))
        with self._lock:
            self._check_open()
            if self._waiting() + len(handles) > self.max_waiting + self._free():
                raise QueueFull(f"{self._waiting()} requests wait, {self.max_waiting} may")
            self._new += handles
            self._lock.notify()
        return handles

    def score(
        self, sequences: Sequence[Sequence[int]], done: Callable[[list[Scores] | Exception], None], *, top: bool = False
    ) -> None:
        """Scores sequences between two blocks; `done` is called in the engine's thread. Raises: QueueFull; Closed."""
        with self._lock:
            self._check_open()
            if len(self._scores) >= self.max_waiting:
                raise QueueFull(f"{len(self._scores)} requests wait to be scored")
            self._scores.append(_Scoring(sequences, top, done))
            self._lock.notify()

    def close(self, *, drain: bool = True, timeout: float | None = None) -> bool:
        """No more requests; those that are queued or run are finished (drain) or cancelled. Returns: whether all ended."""
        with self._lock:
            self._closing, self._dropping = True, self._dropping or not drain
            self._lock.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and self.failure is None

    def _check_open(self) -> None:
        if self.failure is not None:
            raise Closed(f"the engine has failed: {self.failure}")
        if self._closing:
            raise Closed("the service is closing")

    def _waiting(self) -> int:
        return len(self._new) + len(self.engine.waiting)

    def _free(self) -> int:
        return self.engine.slots - len(self.engine.active)

    def _note_cancel(self, handle: Handle) -> None:
        with self._lock:
            handle.cancelled = True
            self._cancelled.append(handle)
            self._lock.notify()

    def _loop(self) -> None:
        try:
            while self._take_in():
                self._score()
                for row, event in self.engine.step():
                    self._deliver(row, event)
        except BaseException as failure:
            log.exception("the engine has failed")
            with self._lock:
                self.failure = failure
                handles = [*self._handles.values(), *self._new]
                scores = list(self._scores)
            for handle in handles:
                handle.listener(Event(reason="error", error=f"the engine has failed: {failure}"))
            for work in scores:
                work.done(RuntimeError(f"the engine has failed: {failure}"))

    def _take_in(self) -> bool:
        """Moves what other threads left into the engine; waits when there is nothing to do. False: closed, and all done."""
        with self._lock:
            while not (self._new or self._scores or self.engine.busy or self._closing):
                self.counters.running = self.counters.waiting = 0
                self._lock.wait()
            for handle in self._new:
                handle.row = self.engine.add(handle.request)
                self._handles[handle.row] = handle
            self._new.clear()
            if self._dropping:
                self._cancelled += self._handles.values()
            for handle in self._cancelled:
                if handle.row is not None:
                    self.engine.cancel(handle.row)
            self._cancelled.clear()
            self.counters.running, self.counters.waiting = len(self.engine.active), self._waiting()
            return self.engine.busy or bool(self._scores) or not self._closing

    def _score(self) -> None:
        """One batch of what waits to be scored; alike ones together."""
        with self._lock:
            batch: list[_Scoring] = []
            while self._scores and sum(len(w.sequences) for w in batch) < SCORES_AT_ONCE:
                if batch and self._scores[0].top != batch[0].top:
                    break
                batch.append(self._scores.popleft())
        if not batch:
            return
        sequences = [s for work in batch for s in work.sequences]
        try:
            scores = iter(self.engine.score(sequences, top=batch[0].top))
            self.counters.scored_tokens += sum(map(len, sequences))
            for work in batch:
                work.done([next(scores) for _ in work.sequences])
        except ValueError as error:
            if len(batch) == 1:
                batch[0].done(error)
                return
            for work in batch:  # each alone: one that cannot be scored does not spoil the others
                self._score_alone(work)

    def _score_alone(self, work: _Scoring) -> None:
        try:
            work.done(self.engine.score(work.sequences, top=work.top))
        except ValueError as error:
            work.done(error)

    def _deliver(self, row: Row, event: Event) -> None:
        counters, handle = self.counters, self._handles[row]
        if event.reason:
            del self._handles[row]
            counters.prompt_tokens += len(row.request.prompt)
            counters.new_tokens += row.count
            counters.reasons[event.reason] = counters.reasons.get(event.reason, 0) + 1
        handle.listener(event)
