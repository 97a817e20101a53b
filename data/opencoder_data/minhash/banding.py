"""Sketches to band keys: two sets are a candidate pair when one of their bands is equal."""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from opencoder_data.minhash.hashing import GOLDEN, MIX1, S32, mix

_U = np.uint64

PRESETS: dict[str, tuple[int, int, int]] = {
    "128x16": (2048, 128, 16),
    "16x128": (2048, 16, 128),
    "25x10": (256, 25, 10),
    "14x8": (112, 14, 8),
}
"""name -> (slots, bands, rows). `16x128` is what the paper prints; see `Banding.note`."""


class Banding(NamedTuple):
    """How many slots a sketch has, and its bands and their rows (bands * rows <= slots)."""

    slots: int
    bands: int
    rows: int

    def note(self) -> str:
        """The banding in words, with what the paper says of it."""
        middle = threshold(self.bands, self.rows)
        text = f"{self.slots} slots in {self.bands} bands of {self.rows} rows: threshold at Jaccard {middle:.3f}"
        if (self.bands, self.rows) == (128, 16):
            text += (
                ". The paper prints 16 bands of 128 rows, whose threshold is 0.979: it finds almost none of the near "
                "duplicates below that, so the two numbers are probably swapped; preset 16x128 takes them as printed"
            )
        if (self.bands, self.rows) == (16, 128):
            text += ", as printed in the paper; near duplicates below that similarity mostly stay (preset 128x16 finds them)"
        return text


def collision_probability(jaccard: float, bands: int, rows: int) -> float:
    """The S-curve: probability that at least one band of two sets agrees."""
    return 1.0 - (1.0 - jaccard**rows) ** bands


def threshold(bands: int, rows: int) -> float:
    """Jaccard similarity at the steepest point of the S-curve, (1/bands)^(1/rows)."""
    return math.pow(1.0 / bands, 1.0 / rows)


@njit(cache=True)
def band_keys(sketches, bands, rows):
    """uint64 [N, bands]: hash of the band's number and its rows. `sketches` uint32 [N, >= bands * rows]."""
    num = len(sketches)
    out = np.empty((num, bands), np.uint64)
    for i in range(num):
        for b in range(bands):
            h = _U(b + 1) * GOLDEN
            for r in range(rows):
                h = (h ^ _U(sketches[i, b * rows + r])) * MIX1
                h ^= h >> S32
            out[i, b] = mix(h)
    return out
