"""Which files are held out for evaluation."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class HoldOut:
    """What is held out for evaluation; the default holds out nothing."""

    share: float = 0.0
    """Of the files, by a hash of their content."""
    min_files: int = 1
    """A language with fewer files in the share is not a sample: it trains."""
    min_bytes: int = 0
    """As `min_files`, in bytes of text."""
    max_bytes: int = 0
    """Per language; what is beyond trains. 0 = no limit."""
    overlap: float = 0.5
    """Training files that hold this share of a held-out file's five-word runs are left out of training."""

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1 or not 0 < self.overlap <= 1:
            raise ValueError(f"hold out: share must be in [0, 1) and overlap in (0, 1], got {self}")

    def candidate(self, sha256: str) -> bool:
        return int(sha256[:13], 16) < self.share * 16**13

    def choose(self, candidates: Iterable[tuple[str, str, int]]) -> set[str]:
        """Keys of the files to hold out, out of (key, language, bytes) of all candidates."""
        by_language: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for key, language, size in sorted(candidates):
            by_language[language].append((key, size))
        chosen: set[str] = set()
        for files in by_language.values():
            total = sum(size for _, size in files)
            if len(files) < self.min_files or total < self.min_bytes:
                continue
            held = 0
            for key, size in files:
                if self.max_bytes and held >= self.max_bytes:
                    break
                held += size
                chosen.add(key)
        return chosen
