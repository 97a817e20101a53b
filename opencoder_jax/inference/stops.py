"""Text of a row as its tokens come, and the stop strings in it.

Stops are matched on bytes, wherever tokens and characters are cut: a character that the tokens have only half of can
neither match nor hide a match. The stop that begins first counts, so that a match waits while an earlier one may still
come; what may belong to a stop, or to an unfinished character, is held back from a stream.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from itertools import accumulate


class Stops:
    """Raises (constructor): ValueError for an empty stop string."""

    def __init__(self, stops: Sequence[str | bytes]):
        if any(not s for s in stops):
            raise ValueError("stop='': an empty stop string would stop before the first token; leave it out")
        self.stops = tuple(s if isinstance(s, bytes) else s.encode("utf-8", "surrogateescape") for s in stops)
        self.longest = max(map(len, self.stops), default=0)

    def find(self, data: bytes | bytearray, start: int) -> tuple[int, int]:
        """(place, length) of the stop that begins first at or after `start`, of several there the shortest, which is
        complete before the others; (-1, 0) if there is none."""
        found = [(place, len(s)) for s in self.stops if (place := data.find(s, start)) >= 0]
        return min(found, default=(-1, 0))

    def held(self, data: bytes | bytearray, end: int) -> int:
        """First place before `end` from which the end of `data` may be the beginning of a stop; `end` if there is none."""
        first = max(0, len(data) - self.longest + 1)
        return next((at for at in range(first, min(end, len(data))) if self._begins(bytes(data[at:]))), end)

    def _begins(self, tail: bytes) -> bool:
        return any(s.startswith(tail) for s in self.stops)


class TextStream:
    """Tokens in, text out, up to the first stop.

    Args:
      token_bytes: bytes of a token id.
      stops: of the row. include_stop: the text ends after the stop string and not before it.
    """

    def __init__(self, token_bytes: Callable[[int], bytes], stops: Stops, *, include_stop: bool = False):
        self._token_bytes, self._stops, self._include = token_bytes, stops, include_stop
        self._data = bytearray()
        self._lengths: list[int] = []
        self._place, self._length = -1, 0
        self._sent = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.stopped = False

    def feed(self, tokens: Sequence[int], *, last: bool = False) -> str:
        """Takes new tokens; returns the text that is certain by now. `stopped` is set once a stop is.

        Args: last: no more will come: nothing is held back.
        """
        new = [self._token_bytes(t) for t in tokens]
        start = max(0, len(self._data) - self._stops.longest + 1)
        self._data += b"".join(new)
        self._lengths += map(len, new)
        place, length = self._stops.find(self._data, start)
        if place >= 0 and (self._place < 0 or place < self._place):
            self._place, self._length = place, length
        end = len(self._data) if self._place < 0 else self._place
        held = end if last else self._stops.held(self._data, end)
        self.stopped = self._place >= 0 and held == end
        done = last or self.stopped
        if self.stopped and self._include:
            held += self._length
        text = self._decoder.decode(bytes(self._data[self._sent : held]), final=done)
        self._sent = max(self._sent, held)
        return text

    @property
    def num_tokens(self) -> int:
        """How many tokens it takes to make the text that was given out."""
        if self._sent == len(self._data):
            return len(self._lengths)
        return next((i for i, end in enumerate(accumulate(self._lengths, initial=0)) if end >= self._sent), 0)
