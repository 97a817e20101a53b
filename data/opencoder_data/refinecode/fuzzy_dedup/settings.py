"""Named banding presets and what a configuration resolves to."""

from typing import NamedTuple

from opencoder_data.refinecode.config import FuzzyDedupConfig
from opencoder_data.refinecode.fuzzy_dedup import kernels
from opencoder_data.refinecode.fuzzy_dedup.units import LEVELS

PRESETS: dict[str, tuple[int, int, int]] = {
    "128x16": (2048, 128, 16),
    "16x128": (2048, 16, 128),
    "25x10": (256, 25, 10),
    "14x8": (112, 14, 8),
}
"""name -> (slots, bands, rows). `16x128` is what the paper prints; see `note`."""


class Banding(NamedTuple):
    slots: int
    bands: int
    rows: int

    def note(self) -> str:
        middle = kernels.threshold(self.bands, self.rows)
        text = f"{self.slots} slots in {self.bands} bands of {self.rows} rows: threshold at Jaccard {middle:.3f}"
        if (self.bands, self.rows) == (128, 16):
            text += (
                ". The paper prints 16 bands of 128 rows, whose threshold is 0.979: it finds almost none of the near "
                "duplicates below that, so the two numbers are probably swapped; preset 16x128 takes them as printed"
            )
        if (self.bands, self.rows) == (16, 128):
            text += ", as printed in the paper; near duplicates below that similarity mostly stay (preset 128x16 finds them)"
        return text


def banding(config: FuzzyDedupConfig) -> Banding:
    """Raises ValueError when the numbers do not fit."""
    if config.preset not in PRESETS:
        raise ValueError(f"fuzzy_dedup.preset {config.preset!r} is unknown; presets: {', '.join(PRESETS)}")
    slots, bands, rows = PRESETS[config.preset]
    slots, bands, rows = config.slots or slots, config.bands or bands, config.rows or rows
    if bands * rows > slots:
        raise ValueError(f"fuzzy_dedup: {bands} bands of {rows} rows need {bands * rows} slots, there are {slots}")
    if not 1 <= slots <= 2**15:
        raise ValueError(f"fuzzy_dedup.slots must be between 1 and 32768, not {slots}")
    if config.sketch not in ("fss", "minhash"):
        raise ValueError(f"fuzzy_dedup.sketch is fss or minhash, not {config.sketch!r}")
    if config.level not in LEVELS:
        raise ValueError(f"fuzzy_dedup.level is one of {', '.join(LEVELS)}, not {config.level!r}")
    if not 0 < config.min_jaccard <= 1:
        raise ValueError(f"fuzzy_dedup.min_jaccard must be in (0, 1], not {config.min_jaccard}")
    return Banding(slots, bands, rows)
