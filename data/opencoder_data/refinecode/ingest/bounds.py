"""What reading one archive, table or repository may cost: bytes, entries, seconds, memory.

Input comes from anywhere: 2 kB can unfold to 20 GB. Readers charge a `Budget` for what they unpack, pass over and list, before
they hold it; what exceeds it ends that archive with one row in the ledger, and the run goes on.
"""

import os
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from opencoder_data.refinecode.config import IngestConfig
from opencoder_data.refinecode.ingest.raw_file import RawFile

PIECE = 1 << 18
"""Bytes read at a time while passing over what is not kept."""
RATIO_FREE_BYTES = 256_000_000
"""Below this much unpacked data no ratio is too high."""
MAX_NAME_BYTES = 4_096
"""Longest path (PATH_MAX of Linux) and any other text of the metadata; what is longer is cut."""
MAX_HEADER_BYTES = 1 << 20
"""Longest name or attribute header of a tar member that is read."""


class LimitError(ValueError):
    """An archive, table or repository exceeds one of its bounds."""


@dataclass
class Budget:
    """Bounds of one archive, table or repository. `packed`: its size on disk, where known, else 0."""

    config: IngestConfig
    packed: int = 0
    bytes: int = 0
    entries: int = 0
    start: float = field(default_factory=time.monotonic)

    @property
    def member(self) -> int:
        """Largest file that is read, in bytes."""
        return self.config.max_file_bytes

    @property
    def line(self) -> int:
        """Largest line of JSON: escapes take up to three bytes for one, and other columns need space too."""
        return 4 * self.config.max_file_bytes + (1 << 20)

    def unpacked(self, count: int) -> None:
        """Charge `count` bytes. Raises LimitError."""
        self.bytes += count
        if self.bytes > self.config.max_archive_bytes:
            raise LimitError(f"unpacks to more than ingest.max_archive_bytes={self.config.max_archive_bytes}")
        if self.packed and self.bytes > max(RATIO_FREE_BYTES, self.packed * self.config.max_archive_ratio):
            raise LimitError(
                f"{self.packed} bytes unpack to more than {self.bytes - count}: over "
                f"ingest.max_archive_ratio={self.config.max_archive_ratio}"
            )
        self.check_time()

    def has_space(self, count: int, rows: int) -> bool:
        """Whether `rows` rows of `count` bytes together stay within the bounds."""
        size = self.bytes + count
        return (
            self.entries + rows <= self.config.max_table_rows
            and size <= self.config.max_archive_bytes
            and not (self.packed and size > max(RATIO_FREE_BYTES, self.packed * self.config.max_archive_ratio))
        )

    def rows(self, count: int = 1) -> None:
        """Charge `count` rows of a table. Raises LimitError."""
        self.entries += count
        if self.entries > self.config.max_table_rows:
            raise LimitError(f"holds more than ingest.max_table_rows={self.config.max_table_rows} rows")

    def entry(self, count: int = 1) -> None:
        """Charge `count` members, rows or headers. Raises LimitError."""
        self.entries += count
        if self.entries > self.config.max_archive_entries:
            raise LimitError(f"holds more than ingest.max_archive_entries={self.config.max_archive_entries} entries")
        self.check_time()

    def check_time(self) -> None:
        """Raises LimitError when the time is over."""
        if self.config.max_archive_s and time.monotonic() - self.start > self.config.max_archive_s:
            raise LimitError(f"takes longer than ingest.max_archive_s={self.config.max_archive_s:g}")


def within_memory(files: Iterator[RawFile], config: IngestConfig, source: str) -> Iterator[RawFile]:
    """The same files; while the reader works, this process may not grow by more than `ingest.max_memory_mb`.

    The second line of defense, for what libraries allocate before any size is known to us (a page of Parquet, the base of
    a delta in a Git pack): the allocation fails instead, and the reader is rejected from there on.
    """
    if not config.max_memory_mb:
        yield from files
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as statm:
        size = int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    bound = size + config.max_memory_mb * 1_000_000
    for limit in (soft, hard):
        bound = bound if limit == resource.RLIM_INFINITY else min(bound, limit)
    ended = False
    while not ended:
        batch: list[RawFile] = []
        held = 0
        resource.setrlimit(resource.RLIMIT_AS, (bound, hard))
        try:
            # Several at a time: two system calls for each would cost as much as reading a small file.
            while held < PIECE and len(batch) < 64 and (raw := next(files, None)) is not None:
                batch.append(raw)
                held += raw.size if raw.data is not None or raw.text is not None else 0
            ended = raw is None
        except MemoryError:
            batch.append(RawFile(source, "", "", rule="memory_limit", detail=f"more than ingest.max_memory_mb={config.max_memory_mb}",
                                 index=-2, key=(source, "\0memory")))  # fmt: skip
            ended = True
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        yield from batch
