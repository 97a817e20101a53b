"""Compressed data of unknown origin: what passes is charged to a budget."""

from typing import Any

from opencoder_data.compressed import ERRORS, decompressed
from opencoder_data.refinecode.ingest.bounds import PIECE, Budget


class Counted:
    """A stream that charges a budget for all that passes; `position` in bytes."""

    def __init__(self, stream: Any, budget: Budget):
        self._stream, self._budget, self.position = stream, budget, 0

    def read(self, count: int) -> bytes:
        """Up to `count` bytes, fewer only at the end. `count` must be small."""
        data = self._stream.read(count)
        self.position += len(data)
        self._budget.unpacked(len(data))
        return data

    def skip(self, count: int) -> int:
        """Pass over `count` bytes; how many were there."""
        left = count
        while left > 0 and (data := self.read(min(left, PIECE))):
            left -= len(data)
        return count - left


__all__ = ["ERRORS", "Counted", "decompressed"]
