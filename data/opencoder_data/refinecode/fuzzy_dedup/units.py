"""What is compared: whole files, chunks of files, or whole repositories; each becomes a set of shingles."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from opencoder_data.minhash.shingles import shingle_sets, text_buffer
from opencoder_data.refinecode.keep_rule import RANK_COLUMNS

LEVELS = ("file", "chunk", "repo")


class Units(NamedTuple):
    """A batch of units of one partition.

    `rank` has the ranking columns, one row a unit; `rows` int64 [U] is the document's row in the batch and `number`
    int64 [U] the unit's number in the partition. `shingles`/`offsets` as `shingle_sets` gives them.
    """

    rank: pa.Table
    rows: np.ndarray
    number: np.ndarray
    shingles: np.ndarray
    offsets: np.ndarray


def chunk_ranges(data: np.ndarray, start: int, end: int, chunk_bytes: int) -> list[tuple[int, int]]:
    """Byte ranges of a text cut into pieces of about `chunk_bytes`, at line ends where there are any."""
    ranges = []
    while end - start > chunk_bytes:
        window = data[start + chunk_bytes // 2 : start + chunk_bytes]
        lines = np.flatnonzero(window == 10)
        if len(lines):
            cut = start + chunk_bytes // 2 + int(lines[-1]) + 1
        else:
            cut = start + chunk_bytes
            while cut > start and (data[cut] & 0xC0) == 0x80:  # never inside a character
                cut -= 1
        ranges.append((start, cut))
        start = cut
    ranges.append((start, end))
    return ranges


def units_of_batch(batch: pa.Table, first_number: int, level: str, chunk_bytes: int) -> Units:
    """Files or chunks of a batch of documents."""
    data, offsets = text_buffer(batch.column("content"))
    rows = np.arange(batch.num_rows)
    starts, ends = offsets[:-1].copy(), offsets[1:].copy()
    if level == "chunk":
        ranges = [chunk_ranges(data, int(s), int(e), chunk_bytes) for s, e in zip(starts, ends, strict=True)]
        rows = np.repeat(rows, [len(r) for r in ranges])
        starts = np.array([s for r in ranges for s, _ in r], np.int64)
        ends = np.array([e for r in ranges for _, e in r], np.int64)
    shingles, set_offsets = shingle_sets(data, starts, ends)
    rank = batch.select(list(RANK_COLUMNS)).take(pa.array(rows))
    return Units(rank, rows, first_number + np.arange(len(rows)), shingles, set_offsets)
