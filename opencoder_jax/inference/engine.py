"""The inference engine: slots of a static cache, prefill in length buckets, decode in blocks, admission between blocks.

`Engine` belongs to one thread: `add` queues a request, `step` admits what fits, runs one block and returns what came of
it. `service.Service` is the front for many threads. What a row draws is a function of (seed, index of the sample,
position): it depends neither on its slot nor on its neighbours.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from opencoder_jax import sharding
from opencoder_jax.config import ModelConfig
from opencoder_jax.inference import cache as kv
from opencoder_jax.inference import programs, scoring
from opencoder_jax.inference.sampling import KINDS, Sampling
from opencoder_jax.inference.shapes import PREFILL_TOKENS, Shapes
from opencoder_jax.inference.stops import Stops, TextStream
from opencoder_jax.inference.weights import Weights, unstack

# Steps of a block while requests wait: a slot that becomes free is given away sooner.
SHORT_BLOCK = 8
# End tokens are an array of this length, so that their number compiles nothing new.
MAX_ENDS = 8


class LogProb(NamedTuple):
    """Of one token, and the likeliest ones at its place: ids and log-probabilities, best first."""

    log_prob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Request:
    """Tokens to continue.

    sample: index among the samples of its prompt. stops: text before which to stop. min_tokens: no end token is drawn
    before so many. log_probs: report them. text_of: bytes of a token; None: no text is made, and none can stop the row.
    """

    prompt: Sequence[int]
    sampling: Sampling = field(default_factory=Sampling)
    sample: int = 0
    stops: Stops = field(default_factory=lambda: Stops(()))
    include_stop: bool = False
    ignore_end: bool = False
    min_tokens: int = 0
    log_probs: bool = False
    text_of: Callable[[int], bytes] | None = None


@dataclass(frozen=True)
class Event:
    """What a step made of a row: its further text and the tokens that make it. reason: set with the last event: stop (a
    stop string), end (an end token, which is not among the tokens), length, cancelled or error (which says what)."""

    text: str = ""
    tokens: tuple[int, ...] = ()
    log_probs: tuple[LogProb, ...] = ()
    reason: str = ""
    error: str = ""
    end_token: int | None = None
    end_log_prob: LogProb | None = None


@dataclass(eq=False)
class Row:
    """A request in the engine. drawn: tokens so far, without an end token; length: tokens in the cache."""

    request: Request
    slot: int = -1
    length: int = 0
    last: int = 0
    drawn: list[int] = field(default_factory=list)
    log_probs: list[LogProb] = field(default_factory=list)
    stream: TextStream | None = None
    sent: int = 0
    count: int = 0  # tokens drawn, the end token included
    cancelled: bool = False

    @property
    def left(self) -> int:
        return self.request.sampling.max_new_tokens - self.count


class Engine:
    """Args:
      cfg, params: of the model; params on the host or on devices (`unstack`ed weights are taken as they are).
      slots: requests decoded at once. capacity: tokens of a slot (default cfg.max_seq_len).
      end_ids: a row ends with the first of these.
      mesh: sharding over data, fsdp and tensor; slots are rounded up to a multiple of data x fsdp.
      int8_cache: keys and values in 8 bits with a scale per token and head.
      widths: rows of a decode block to compile for, besides `slots`.

    Raises: ValueError for what cannot be.
    """

    def __init__(
        self,
        cfg: ModelConfig,
        params: nnx.State | Weights,
        *,
        slots: int = 16,
        capacity: int = 0,
        end_ids: Sequence[int] = (),
        mesh: Mesh | None = None,
        int8_cache: bool = False,
        widths: tuple[int, ...] = (),
    ):
        if slots < 1 or len(end_ids) > MAX_ENDS:
            raise ValueError(f"slots={slots}: at least 1; {len(end_ids)} end tokens: at most {MAX_ENDS}")
        capacity = capacity or cfg.max_seq_len
        if not 0 < capacity <= cfg.max_seq_len:
            raise ValueError(f"capacity={capacity}: must be at most model.max_seq_len={cfg.max_seq_len}")
        self.cfg, self.capacity = cfg, capacity
        self.mesh = mesh if mesh is not None and mesh.size > 1 else None
        self._multiple = _rows_multiple(cfg, self.mesh)
        self.slots = -(-slots // self._multiple) * self._multiple
        self.shapes = Shapes.of(self.slots, capacity, self._multiple, widths)
        self.used: set[tuple] = set()  # of shapes.programs(): what has been compiled or loaded
        self.int8_cache = int8_cache
        self.end_ids = frozenset(map(int, end_ids))
        self._ends = np.array([*self.end_ids, *[-9] * (MAX_ENDS - len(self.end_ids))], np.int32)
        with self._on_mesh():
            self.weights = params if isinstance(params, Weights) else unstack(cfg, params, self.mesh)
            self._cache = kv.make(cfg, self.slots, capacity, int8=int8_cache, mesh=self.mesh)
        self._free = list(range(self.slots))
        self.waiting: deque[Row] = deque()
        self.active: list[Row] = []

    def check(self, request: Request) -> None:
        """Raises: ValueError, in one line, for a request that this engine cannot run."""
        prompt, most = request.prompt, request.sampling.max_new_tokens
        if not len(prompt):
            raise ValueError(
                "the prompt is empty: give some text (the model saw nothing before a document's first token)"
            )
        if min(prompt) < 0 or max(prompt) >= self.cfg.vocab_size:
            raise ValueError(f"ids {min(prompt)}..{max(prompt)}, model.vocab_size={self.cfg.vocab_size}")
        if len(prompt) + most > self.capacity:
            limit = "model.max_seq_len" if self.capacity == self.cfg.max_seq_len else "capacity"
            raise ValueError(
                f"{len(prompt)} tokens and max_new_tokens={most} exceed {limit}={self.capacity}; shorten one of them"
            )
        if request.stops.stops and request.text_of is None:
            raise ValueError("stop strings need text_of, the bytes of a token")
        if not 0 <= request.sample < 2**32:
            raise ValueError(f"sample={request.sample}: must be at least 0 and fit 32 bits")

    def add(self, request: Request) -> Row:
        """Queues a request. Raises: ValueError as `check`."""
        self.check(request)
        row = Row(request)
        if request.text_of is not None:
            row.stream = TextStream(request.text_of, request.stops, include_stop=request.include_stop)
        self.waiting.append(row)
        return row

    def cancel(self, row: Row) -> None:
        """Its slot is free with the next step, which returns an event with the reason "cancelled"."""
        row.cancelled = True

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self.active)

    def step(self) -> Iterator[tuple[Row, Event]]:
        """Admits what fits, runs one block; gives what it made of which row as soon as it is there."""
        for row in [r for r in (*self.active, *self.waiting) if r.cancelled]:
            yield row, self._end(row, Event(reason="cancelled"))
        for rows in self._admitted():
            yield from self._prefill(rows)
        if self.active:
            yield from self._decode()

    def run(self) -> Iterator[tuple[Row, Event]]:
        """Steps until nothing is left to do."""
        while self.busy:
            yield from self.step()

    def score(self, sequences: Sequence[Sequence[int]], *, top: bool = False) -> list[scoring.Scores]:
        """Log-probabilities of given tokens (`scoring.score`)."""
        with self._on_mesh():
            return scoring.score(self.cfg, self.weights, sequences, top=top, multiple=self._multiple)

    def warm_up(self, report: Callable[[int, int], None] = lambda done, all: None) -> None:
        """Compiles (or loads from JAX's compilation cache) prefill for all lengths, and greedy and filtered decoding."""
        work = [
            p for p in self.shapes.programs() if p[0] == "prefill" or p[-2:] in (("greedy", False), ("filtered", False))
        ]
        for n, (name, count, *rest) in enumerate(work):
            rows = self._rows([], count)
            with self._on_mesh():
                if name == "prefill":
                    padding = np.zeros((count, rest[0]), np.int32)
                    nowhere = np.full(count, self.slots, np.int32)
                    self._cache, _ = programs.prefill(
                        self.cfg, self.weights, self._cache, padding, np.ones(count, np.int32), nowhere
                    )
                elif name == "first":
                    logits = np.zeros((count, self.cfg.vocab_size), np.float32)
                    programs.first(logits, rows, np.zeros(count, np.int32), self._ends, kind=rest[0], top=rest[1])
                else:
                    self._run_block([], count, *rest)
            self.used.add((name, count, *rest))
            report(n + 1, len(work))

    def _admitted(self) -> Iterator[list[Row]]:
        """Groups of waiting rows, of one padded length each, for which there are slots; the first come first."""
        tokens, rows = 0, []
        while self.waiting and len(rows) < len(self._free):
            tokens += self.shapes.length(len(self.waiting[0].request.prompt))
            if rows and self.active and tokens > PREFILL_TOKENS:
                break  # those that are being decoded wait no longer than this
            rows.append(self.waiting.popleft())
        groups: dict[int, list[Row]] = {}
        for row in rows:
            groups.setdefault(self.shapes.length(len(row.request.prompt)), []).append(row)
        for length, group in groups.items():
            while group:
                count = self.shapes.rows(len(group), length)
                yield group[:count]
                group = group[count:]

    def _prefill(self, rows: list[Row]) -> Iterator[tuple[Row, Event]]:
        P = self.shapes.length(max(len(r.request.prompt) for r in rows))
        R = self.shapes.rows(len(rows), P)
        tokens = np.zeros((R, P), np.int32)
        lengths, slots = np.ones(R, np.int32), np.full(R, self.slots, np.int32)
        for i, row in enumerate(rows):
            row.slot, row.length = self._free.pop(0), len(row.request.prompt)
            tokens[i, : row.length], lengths[i], slots[i] = row.request.prompt, row.length, row.slot
        self.active += rows
        kind, top = _kind(rows)
        self.used |= {("prefill", R, P), ("first", R, kind, top)}
        with self._on_mesh():
            self._cache, logits = programs.prefill(self.cfg, self.weights, self._cache, tokens, lengths, slots)
            drawn = programs.first(logits, self._rows(rows, R), lengths, self._ends, kind=kind, top=top)
        drawn = jax.tree.map(lambda x: x[:, None], jax.device_get(drawn))
        for i, row in enumerate(rows):
            yield row, self._take(row, drawn, i)

    def _decode(self) -> Iterator[tuple[Row, Event]]:
        rows = sorted(self.active, key=lambda r: r.slot)
        W = self.shapes.width(len(rows))
        span = self.shapes.span(max(r.length for r in rows))
        kind, top = _kind(rows)
        self.used.add(("decode", W, span, kind, top))
        with self._on_mesh():
            drawn, places = self._run_block(rows, W, span, kind, top)
        for row, i in zip(rows, places, strict=True):
            before = row.count
            event = self._take(row, drawn, i)
            row.length += row.count - before  # what was fed: the token before, and all that were drawn but the last
            if event.text or event.tokens or event.reason:
                yield row, event

    def _run_block(self, rows: list[Row], W: int, span: int, kind, top: bool) -> tuple[programs.Drawn, list[int]]:
        """What was drawn (on the host), and the place of each row in it: its slot where all slots are decoded."""
        places = [r.slot for r in rows] if self.slots == W else list(range(len(rows)))
        slots = np.full(W, self.slots, np.int32)
        tokens, lengths, left = (np.zeros(W, np.int32) for _ in range(3))
        for i, r in zip(places, rows, strict=True):
            slots[i], tokens[i], lengths[i], left[i] = r.slot, r.last, r.length, r.left
        steps = min(SHORT_BLOCK if self.waiting else programs.BLOCK, int(left.max()))
        self._cache, drawn = programs.decode(
            self.cfg, self.weights, self._cache, None if self.slots == W else slots, tokens, lengths, left,
            self._rows(rows, W, places), self._ends, np.int32(steps), span=span, kind=kind, top=top,
        )  # fmt: skip
        return jax.device_get(drawn), places

    def _rows(self, rows: list[Row], count: int, places: Sequence[int] | None = None) -> programs.Rows:
        f, i = np.float32, np.int32
        arrays: list[Any] = [
            np.zeros((count, 2), np.uint32), np.zeros(count, np.uint32), np.zeros(count, f), np.ones(count, f),
            np.zeros(count, i), np.zeros(count, f), np.zeros(count, i), np.zeros(count, bool),
        ]  # fmt: skip
        for at, row in zip(range(len(rows)) if places is None else places, rows, strict=True):
            s, r = row.request.sampling, row.request
            values = (
                s.key(), r.sample, 0 if s.greedy else s.temperature, s.top_p, s.top_k, s.min_p,
                len(r.prompt) + r.min_tokens, r.ignore_end,
            )  # fmt: skip
            for array, value in zip(arrays, values, strict=True):
                array[at] = value
        return programs.Rows(*arrays)

    def _take(self, row: Row, drawn: programs.Drawn, i: int) -> Event:
        """Adds a block's tokens to a row, and ends it where it ends."""
        request, reason, end, end_log_prob = row.request, "", None, None
        first = len(row.drawn)
        for j, token in enumerate(drawn.tokens[i].tolist()):
            if token == programs.NOTHING:
                break
            if token < 0:
                return self._end(row, Event(reason="error", error=(
                    f"the logits of new token {row.count} are not finite; the checkpoint's parameters are not, or too large "
                    "for the dtype (try --dtype=float32, or an earlier checkpoint)"
                )))  # fmt: skip
            row.count += 1
            row.last = token
            if token in self.end_ids and not request.ignore_end:
                reason, end = "end", token
                end_log_prob = _log_prob(drawn, i, j) if request.log_probs else None
                break
            row.drawn.append(token)
            if request.log_probs:
                row.log_probs.append(_log_prob(drawn, i, j))
            if not row.left:
                reason = "length"
                break
        text = ""
        if row.stream is not None:
            text = row.stream.feed(row.drawn[first:], last=bool(reason))
            if row.stream.stopped:
                reason, end, end_log_prob = "stop", None, None
            until = row.stream.num_tokens
            if reason:
                del row.drawn[until:], row.log_probs[until:]
        else:
            until = len(row.drawn)
        new = slice(row.sent, until)
        row.sent = until
        event = Event(text, tuple(row.drawn[new]), tuple(row.log_probs[new]), reason, "", end, end_log_prob)
        return self._end(row, event) if reason else event

    def _end(self, row: Row, event: Event) -> Event:
        if row in self.waiting:
            self.waiting.remove(row)
        if row in self.active:
            self.active.remove(row)
            self._free = sorted([*self._free, row.slot])
        return event

    @contextlib.contextmanager
    def _on_mesh(self) -> Iterator[None]:
        if self.mesh is None:
            yield
        else:
            with jax.set_mesh(self.mesh):
                yield


def _rows_multiple(cfg: ModelConfig, mesh: Mesh | None) -> int:
    if mesh is None:
        return 1
    size = dict(zip(mesh.axis_names, mesh.devices.shape, strict=True))
    if size["context"] > 1:
        raise ValueError(f"mesh context={size['context']}: the engine shards over data, fsdp and tensor; set it to 1")
    for name, axis in (
        ("num_kv_heads", "tensor"),
        ("ffn_dim", "tensor"),
        ("vocab_size", "tensor"),
        ("embed_dim", "fsdp"),
    ):
        if getattr(cfg, name) % size[axis]:
            fits = sharding.divisors(math.gcd(getattr(cfg, name), mesh.size))
            raise ValueError(
                f"model.{name}={getattr(cfg, name)} is not divisible by mesh {axis}={size[axis]}; sizes that fit: {fits}"
            )
    return size["data"] * size["fsdp"]


def _kind(rows: Sequence[Row]):
    """The least program that serves all rows: (kind, log-probabilities)."""
    kinds = [KINDS.index(r.request.sampling.kind) for r in rows]
    return KINDS[max(kinds)], any(r.request.log_probs for r in rows)


def _log_prob(drawn: programs.Drawn, i: int, j: int) -> LogProb:
    assert drawn.log_probs is not None and drawn.top_ids is not None and drawn.top_log_probs is not None
    top = zip(drawn.top_ids[i, j].tolist(), drawn.top_log_probs[i, j].tolist(), strict=True)
    return LogProb(float(drawn.log_probs[i, j]), tuple(top))
