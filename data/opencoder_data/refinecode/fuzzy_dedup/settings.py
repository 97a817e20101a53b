"""The banding that a configuration resolves to."""

from opencoder_data.minhash.banding import PRESETS, Banding
from opencoder_data.minhash.sketches import METHODS
from opencoder_data.refinecode.config import FuzzyDedupConfig
from opencoder_data.refinecode.fuzzy_dedup.units import LEVELS


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
    if config.sketch not in METHODS:
        raise ValueError(f"fuzzy_dedup.sketch is fss or minhash, not {config.sketch!r}")
    if config.level not in LEVELS:
        raise ValueError(f"fuzzy_dedup.level is one of {', '.join(LEVELS)}, not {config.level!r}")
    if not 0 < config.min_jaccard <= 1:
        raise ValueError(f"fuzzy_dedup.min_jaccard must be in (0, 1], not {config.min_jaccard}")
    return Banding(slots, bands, rows)
