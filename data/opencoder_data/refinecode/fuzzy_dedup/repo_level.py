"""Repository level: the unit is the union of a repository's shingles, gathered over all partitions.

Shingles across the border of two files do not exist, so the order of files does not matter.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from opencoder_data.pipeline.run import Run
from opencoder_data.pipeline.schema import doc_id
from opencoder_data.pipeline.shuffle import num_buckets, read_bucket, write_buckets
from opencoder_data.pipeline.stage import Outcome
from opencoder_data.refinecode.fuzzy_dedup.units import Units, units_of_batch
from opencoder_data.refinecode.keep_rule import RANK_COLUMNS
from opencoder_data.refinecode.schema import DOCUMENTS

_FILES_PER_BUCKET = 20_000
_FIELDS = pa.schema([
    ("repo", pa.string()), ("stars", pa.int64()), ("commit_time", pa.int64()), ("shingles", pa.large_list(pa.uint64())),
])  # fmt: skip


def buckets(run: Run, stage: str) -> int:
    """Number of groups of repositories, which take the place of partitions."""
    return num_buckets(run.num_documents(run.upstream(stage)), _FILES_PER_BUCKET)


def write_shingles(run: Run, stage: str, part: int) -> dict[str, Any]:
    """For each repository with files in this partition: the union of their shingles, most stars, latest commit."""
    sets: dict[str, list[np.ndarray]] = {}
    rank: dict[str, tuple[int | None, int | None]] = {}
    for batch in run.documents(run.upstream(stage), part, ["content", *RANK_COLUMNS]):
        units = units_of_batch(batch, 0, "file", 0)
        rows = zip(*(batch.column(n).to_pylist() for n in ("repo", "stars", "commit_time")), strict=True)
        for i, (repo, stars, time) in enumerate(rows):
            sets.setdefault(repo, []).append(units.shingles[units.offsets[i] : units.offsets[i + 1]])
            before = rank.get(repo, (None, None))
            rank[repo] = (_most(before[0], stars), _most(before[1], time))
    repos = sorted(sets)
    unions = [np.unique(np.concatenate(sets[r])) for r in repos]
    offsets = np.concatenate([[0], np.cumsum([len(u) for u in unions])]).astype(np.int64)
    flat = np.concatenate(unions) if unions else np.zeros(0, np.uint64)
    table = pa.Table.from_arrays(
        [
            pa.array(repos, pa.string()),
            pa.array([rank[r][0] for r in repos], pa.int64()),
            pa.array([rank[r][1] for r in repos], pa.int64()),
            pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(flat)),
        ],
        schema=_FIELDS,
    )
    count = buckets(run, stage)
    bucket = np.array([int(doc_id("", r, 0)[:8], 16) % count for r in repos], np.int64)
    write_buckets(run.part(stage, "repo_shingles", part), table, bucket, count)
    return {"rows": len(repos)}


def _most(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else max(a, b)


def iter_repo_units(run: Run, stage: str, bucket: int) -> Iterator[Units]:
    """One batch: the repositories of a bucket, by name."""
    table = read_bucket([run.part(stage, "repo_shingles", p) for p in range(run.num_parts())], bucket)
    found: dict[str, list[dict[str, Any]]] = {}
    for row in range(table.num_rows):
        found.setdefault(table.column("repo")[row].as_py(), []).append({
            "stars": table.column("stars")[row].as_py(),
            "commit_time": table.column("commit_time")[row].as_py(),
            "shingles": table.column("shingles")[row].values.to_numpy(),
        })  # fmt: skip
    repos = sorted(found)
    unions = [np.unique(np.concatenate([p["shingles"] for p in found[r]])) for r in repos]
    columns: dict[str, list[Any]] = {name: [] for name in RANK_COLUMNS}
    for repo in repos:
        stars: int | None = None
        time: int | None = None
        for piece in found[repo]:
            stars, time = _most(stars, piece["stars"]), _most(time, piece["commit_time"])
        for name, value in zip(RANK_COLUMNS, (stars, time, repo, "", doc_id("", repo, 0)), strict=True):
            columns[name].append(value)
    rank = pa.table({name: pa.array(columns[name], DOCUMENTS.field(name).type) for name in RANK_COLUMNS})
    offsets = np.concatenate([[0], np.cumsum([len(u) for u in unions])]).astype(np.int64)
    flat = np.concatenate(unions) if unions else np.zeros(0, np.uint64)
    yield Units(rank, np.arange(len(repos)), np.arange(len(repos)), flat, offsets)


def decide(batch: pa.Table, dropped: set[str]) -> Outcome:
    """A batch without the files of the repositories `dropped`, which are near copies of others."""
    gone = pa.array([r in dropped for r in batch.column("repo").to_pylist()], pa.bool_())
    rows = batch.filter(gone).select(["doc_id", "language", "doc_type", "repo"]).to_pylist()
    drops = [
        {**r, "rule": "near_duplicate", "detail": f"repository {r['repo']} is a near copy of another"} for r in rows
    ]
    return Outcome(batch.filter(pc.invert(gone)), drops)  # pyright: ignore[reportAttributeAccessIssue]
