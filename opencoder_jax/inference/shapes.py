"""The bounded set of shapes an engine compiles programs for."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from opencoder_jax.inference.sampling import KINDS

# Tokens of a prefill at most, unless one prompt alone has more: what decoding waits for between two blocks.
PREFILL_TOKENS = 4_096
SMALLEST_SPAN = 128


@dataclass(frozen=True)
class Shapes:
    """widths: rows of a decode block. spans: tokens of the cache it reads. prompts: rows of a prefill. lengths: their
    padded lengths."""

    widths: tuple[int, ...]
    spans: tuple[int, ...]
    prompts: tuple[int, ...]
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, slots: int, capacity: int, multiple: int = 1, widths: tuple[int, ...] = ()) -> Shapes:
        """Args: slots; capacity: tokens of a slot; multiple: rows are a multiple of this (data x fsdp of a mesh; then all
        slots are decoded, so that no row moves between devices)."""
        if multiple > 1:
            few = (slots,)
        else:
            few = tuple(sorted({w for w in (widths or (1, 4, 16, 64, 256)) if w < slots} | {slots}))
        prompts = tuple(sorted({-(-n // multiple) * multiple for n in (1, 4, 16) if n <= max(slots, multiple)}))
        powers = [2**n for n in range(4, 40) if 2**n < capacity]
        spans = tuple(n for n in powers if n >= SMALLEST_SPAN)
        lengths = sorted({n for p in powers for n in (p, p * 3 // 2) if n < capacity})
        return cls(few, (*spans, capacity), prompts, (*lengths, capacity))

    def width(self, rows: int) -> int:
        return next(w for w in self.widths if w >= rows)

    def span(self, length: int) -> int:
        return next(s for s in self.spans if s >= length)

    def length(self, tokens: int) -> int:
        return next(n for n in self.lengths if n >= tokens)

    def rows(self, count: int, length: int) -> int:
        """Prompts of one length to prefill at once, of `count` that wait; the fewest there are, padded, when none fits."""
        fitting = [r for r in self.prompts if r <= count and r * length <= max(PREFILL_TOKENS, length)]
        return max(fitting, default=self.prompts[0])

    def programs(self) -> list[tuple]:
        """Everything that may be compiled, by name and shape."""
        draws = list(product(KINDS, (False, True)))
        return [
            *(("prefill", r, n) for r, n in product(self.prompts, self.lengths)),
            *(("first", r, *draw) for r, draw in product(self.prompts, draws)),
            *(("decode", w, s, *draw) for w, s, draw in product(self.widths, self.spans, draws)),
        ]
