"""Stage 4 over partitions and buckets (see the package's docstring)."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from opencoder_data.minhash import candidates
from opencoder_data.minhash.banding import threshold
from opencoder_data.minhash.near_pairs import band_keys_of_sets
from opencoder_data.minhash.shingles import text_buffer
from opencoder_data.minhash.verification import jaccard_of_pairs
from opencoder_data.pipeline import storage
from opencoder_data.pipeline.run import Run, Steps, map_documents
from opencoder_data.pipeline.shuffle import num_buckets, read_bucket, write_buckets
from opencoder_data.pipeline.stage import Outcome
from opencoder_data.refinecode import exact_dedup
from opencoder_data.refinecode.config import FuzzyDedupConfig
from opencoder_data.refinecode.fuzzy_dedup import repo_level
from opencoder_data.refinecode.fuzzy_dedup.quality import measure_recall
from opencoder_data.refinecode.fuzzy_dedup.settings import banding
from opencoder_data.refinecode.fuzzy_dedup.units import Units, chunk_ranges, units_of_batch
from opencoder_data.refinecode.keep_rule import RANK_COLUMNS, fill_unknown, sort_keys
from opencoder_data.refinecode.schema import DOCUMENTS

_VERIFY_UNITS = 10_000
_PART_BITS = 32


@dataclass(frozen=True)
class FuzzyDedup:
    """Steps: ``repo_shingles`` (level repo), ``keys``, ``pairs``; `components/plan.json` and ``candidates/``, on the driver;
    ``members`` (writes ``ranks/`` and ``shingles/``), ``verified``; `components/report.json` and `components/copies.parquet`,
    on the driver; ``docs`` without the copies."""

    config: FuzzyDedupConfig = field(default_factory=FuzzyDedupConfig)
    name: ClassVar[str] = "fuzzy_dedup"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("numba", "scipy")

    def validate(self) -> None:
        """Raises ValueError when the numbers do not fit."""
        banding(self.config)

    def run(self, steps: Steps) -> None:
        run = steps.run
        if self.config.level == "repo":
            steps.each(self.write_repo_shingles)
        groups = range(self._groups(run))
        steps.each(self.write_keys, groups)
        steps.each(self.write_pairs, range(self._key_buckets(run)))
        plan = steps.once(_PLAN, self.assign)
        steps.each(self.write_members, groups)
        if self.config.verify:
            steps.each(self.write_verified, range(plan["buckets"]))
        steps.once("components/report.json", self.choose)
        steps.each(self.write_docs)
        if self.config.measure_recall:
            steps.once("components/recall.json", lambda run: measure_recall(run, self.name, self.config))

    def _groups(self, run: Run) -> int:
        """Number of tasks that units are numbered in: partitions, or groups of repositories."""
        if self.config.level == "repo":
            return repo_level.buckets(run, self.name)
        return run.num_parts()

    def _key_buckets(self, run: Run) -> int:
        rows = run.num_documents(run.upstream(self.name)) * banding(self.config).bands
        return num_buckets(rows, 4 * run.layout.shuffle_rows)

    def _units(self, run: Run, part: int) -> Iterator[Units]:
        """Units of a partition, batch by batch; their numbers are the same at every call."""
        if self.config.level == "repo":
            yield from repo_level.iter_repo_units(run, self.name, part)
            return
        number = 0
        for batch in run.documents(run.upstream(self.name), part, ["content", *RANK_COLUMNS]):
            units = units_of_batch(batch, number, self.config.level, self.config.chunk_bytes)
            number += len(units.rows)
            yield units

    def write_repo_shingles(self, run: Run, part: int) -> dict[str, Any]:
        """See `repo_level`."""
        return repo_level.write_shingles(run, self.name, part)

    def write_keys(self, run: Run, part: int) -> dict[str, Any]:
        """(key, unit, order) of every band of every unit that has shingles."""
        config, band = self.config, banding(self.config)
        keys, units, orders = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]
        count = 0
        for batch in self._units(run, part):
            count += len(batch.rows)
            found, position = band_keys_of_sets(batch.shingles, batch.offsets, band, config.sketch, config.seed)
            keys.append(found)
            units.append((np.int64(part) << _PART_BITS) | batch.number[position])
            orders.append(_orders(batch.rank.column("doc_id"))[position])
        key = np.concatenate(keys)
        table = pa.table({"key": key, "unit": np.concatenate(units), "order": np.concatenate(orders)})
        buckets = self._key_buckets(run)
        write_buckets(run.part(self.name, "keys", part), table, (key % np.uint64(buckets)).astype(np.int64), buckets)
        return {"units": count, "rows": table.num_rows}

    def write_pairs(self, run: Run, bucket: int) -> dict[str, Any]:
        """Units that share a key of the bucket."""
        table = read_bucket([run.part(self.name, "keys", p) for p in range(self._groups(run))], bucket)
        arrays = [table.column(name).to_numpy() for name in ("key", "unit", "order")]
        pairs = candidates.pairs_of_groups(*arrays, all_pairs=self.config.verify)
        storage.write_table(run.part(self.name, "pairs", bucket), _pair_table(pairs))
        return {"rows": len(pairs)}

    def assign(self, run: Run) -> dict[str, int]:
        """Candidate components into buckets of some 10,000 units, so that a bucket's shingles fit in memory."""
        pairs = _all_pairs(storage.read_table(run.part(self.name, "pairs", b)) for b in range(self._key_buckets(run)))
        units, component = candidates.components(pairs)
        sizes = np.bincount(component) if len(component) else np.zeros(0, np.int64)
        bucket_of_component = np.cumsum(sizes) // _VERIFY_UNITS
        bucket = bucket_of_component[component] if len(component) else component
        buckets = int(bucket.max()) + 1 if len(bucket) else 0
        part = units >> _PART_BITS
        members = pa.table({"part": part, "unit": units, "bucket": bucket})
        storage.write_table(storage.join(run.directory(self.name), "components", "members.parquet"), members)
        if len(pairs):
            pair_bucket = bucket[np.searchsorted(units, pairs[:, 0])]
            order = np.argsort(pair_bucket, kind="stable")
            pairs, pair_bucket = pairs[order], pair_bucket[order]
            ends = np.searchsorted(pair_bucket, np.arange(buckets + 1))
            for b in range(buckets):
                storage.write_table(run.part(self.name, "candidates", b), _pair_table(pairs[ends[b] : ends[b + 1]]))
        return {"buckets": buckets, "candidate_pairs": len(pairs), "candidate_units": len(units)}

    def _members_of(self, run: Run, part: int) -> dict[int, int]:
        """unit -> bucket of the candidates in a partition."""
        url = storage.join(run.directory(self.name), "components", "members.parquet")
        with storage.open_read(url) as handle:
            table = pq.read_table(handle, filters=[("part", "=", part)])
        return dict(zip(table.column("unit").to_pylist(), table.column("bucket").to_pylist(), strict=True))

    def write_members(self, run: Run, part: int) -> dict[str, Any]:
        """Rank columns of the candidates of a partition and, to verify, their sorted shingles by bucket."""
        bucket_of = self._members_of(run, part)
        units: list[int] = []
        ranks: list[pa.Table] = []
        sets: list[np.ndarray] = []
        if bucket_of:
            for batch in self._units(run, part):
                numbers = ((np.int64(part) << _PART_BITS) | batch.number).tolist()
                chosen = [i for i, n in enumerate(numbers) if n in bucket_of]
                if not chosen:
                    continue
                units += [numbers[i] for i in chosen]
                ranks.append(batch.rank.take(pa.array(chosen)))
                if self.config.verify:
                    sets += [np.sort(batch.shingles[batch.offsets[i] : batch.offsets[i + 1]]) for i in chosen]
        unit = np.array(units, np.int64)
        rank = pa.concat_tables([_empty_rank(), *(r.cast(_empty_rank().schema) for r in ranks)])
        storage.write_table(run.part(self.name, "ranks", part), rank.append_column("unit", pa.array(unit)))
        if self.config.verify:
            offsets = np.concatenate([[0], np.cumsum([len(s) for s in sets])]).astype(np.int64)
            flat = np.concatenate(sets) if sets else np.zeros(0, np.uint64)
            column = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(flat))
            table = pa.table({"unit": unit, "shingles": column})
            bucket = np.array([bucket_of[u] for u in units], np.int64)
            buckets = storage.read_json(storage.join(run.directory(self.name), _PLAN))["buckets"]
            write_buckets(run.part(self.name, "shingles", part), table, bucket, max(buckets, 1))
        return {"rows": len(units)}

    def write_verified(self, run: Run, bucket: int) -> dict[str, Any]:
        """Exact Jaccard similarity of the candidate pairs of a bucket; those below `min_jaccard` are dropped."""
        table = read_bucket(
            [run.part(self.name, "shingles", p) for p in range(self._groups(run))], bucket
        ).combine_chunks()
        order = np.argsort(table.column("unit").to_numpy())
        table = table.take(pa.array(order)).combine_chunks()
        units = table.column("unit").to_numpy()
        column = table.column("shingles").combine_chunks()
        flat = column.flatten().to_numpy(zero_copy_only=False)
        offsets = column.offsets.to_numpy() - column.offsets[0].as_py()
        pairs = storage.read_table(run.part(self.name, "candidates", bucket))
        left, right = (np.searchsorted(units, pairs.column(n).to_numpy()) for n in ("left", "right"))
        jaccard = jaccard_of_pairs(flat, offsets, left, right)
        keep = jaccard >= self.config.min_jaccard
        result = pairs.append_column("jaccard", pa.array(jaccard)).filter(pa.array(keep))
        storage.write_table(run.part(self.name, "verified", bucket), result)
        return {"pairs": pairs.num_rows, "rows": result.num_rows}

    def choose(self, run: Run) -> dict[str, Any]:
        """Components of the final pairs; all of a component but its best are copies."""
        config = self.config
        directory = storage.join(run.directory(self.name), "components")
        plan = storage.read_json(storage.join(directory, "plan.json"))
        kind = "verified" if config.verify else "candidates"
        parts = (run.part(self.name, kind, b) for b in range(plan["buckets"]))
        pairs = _all_pairs(storage.read_table(url, ["left", "right"]) for url in parts)
        units, component = candidates.components(pairs)
        ranks = pa.concat_tables(
            [storage.read_table(run.part(self.name, "ranks", p)) for p in range(self._groups(run))]
        )
        ranks = ranks.filter(pa.array(np.isin(ranks.column("unit").to_numpy(), units)))
        of_unit = component[np.searchsorted(units, ranks.column("unit").to_numpy())] if len(units) else component
        ranks = ranks.append_column("component", pa.array(of_unit, pa.int64()))
        # Chunks of one file rank equal: the earlier one stays.
        ranks = fill_unknown(ranks).sort_by([*sort_keys([("component", "ascending")]), ("unit", "ascending")])
        group = ranks.column("component").to_numpy()
        first = np.r_[True, group[1:] != group[:-1]] if len(group) else np.zeros(0, bool)
        leader = (
            np.maximum.accumulate(np.where(first, np.arange(len(group)), 0)) if len(group) else np.zeros(0, np.int64)
        )
        unit = ranks.column("unit").to_numpy()
        copies = pa.table({
            "part": unit >> _PART_BITS,
            "number": unit & ((1 << _PART_BITS) - 1),
            "doc_id": ranks.column("doc_id"),
            "repo": ranks.column("repo"),
            "kept": ranks.column("doc_id").take(pa.array(leader)),
        }).filter(pa.array(~first))  # fmt: skip
        copies = copies.sort_by([("part", "ascending"), ("number", "ascending")])
        storage.write_table(storage.join(directory, "copies.parquet"), copies)
        sizes = np.bincount(component) if len(component) else np.zeros(0, np.int64)
        band = banding(config)
        return {
            "level": config.level, "sketch": config.sketch, "banding": band.note(), "threshold": threshold(band.bands, band.rows),
            "units": sum(storage.read_json(run.done(self.name, "keys", p))["units"] for p in range(self._groups(run))),
            "candidate_pairs": plan["candidate_pairs"],
            "verified_pairs": len(pairs) if config.verify else None,
            "min_jaccard": config.min_jaccard if config.verify else None,
            "components": len(sizes), "largest_component": int(sizes.max()) if len(sizes) else 0,
            "copies": copies.num_rows,
        }  # fmt: skip

    def write_docs(self, run: Run, part: int) -> dict[str, Any]:
        """Partition without its copies: files, chunks of files, or files of repositories."""
        url = storage.join(run.directory(self.name), "components", "copies.parquet")
        with storage.open_read(url) as handle:
            copies = pq.read_table(handle, filters=[("part", "=", part)] if self.config.level != "repo" else None)
        if self.config.level == "repo":
            dropped = set(copies.column("repo").to_pylist())
            return map_documents(run, self.name, part, lambda batch: repo_level.decide(batch, dropped))
        key = "number" if self.config.level == "chunk" else "doc_id"
        kept_of = dict(zip(copies.column(key).to_pylist(), copies.column("kept").to_pylist(), strict=True))
        if self.config.level == "chunk":
            return map_documents(run, self.name, part, ChunkCuts(kept_of, self.config.chunk_bytes).decide)
        return map_documents(run, self.name, part, lambda batch: exact_dedup.decide(batch, kept_of, "near_duplicate"))


_PLAN = "components/plan.json"


class ChunkCuts:
    """Cuts repeated chunks out of the texts of a partition, batch after batch; a file with nothing left is dropped.

    kept_of: number of a chunk in the partition -> document in which it stays.
    """

    def __init__(self, kept_of: dict[int, str], chunk_bytes: int):
        self._kept_of, self._chunk_bytes = kept_of, chunk_bytes
        self._number = 0

    def decide(self, batch: pa.Table) -> Outcome:
        """The next batch."""
        data, offsets = text_buffer(batch.column("content"))
        contents: list[str | None] = []
        dropped: dict[int, str] = {}
        left: dict[int, list[tuple[int, int]]] = defaultdict(list)
        cut_chunks = 0
        for row in range(batch.num_rows):
            ranges = chunk_ranges(data, int(offsets[row]), int(offsets[row + 1]), self._chunk_bytes)
            for number, piece in enumerate(ranges, self._number):
                if number not in self._kept_of:
                    left[row].append(piece)
                else:
                    cut_chunks += 1
                    dropped[row] = self._kept_of[number]
            self._number += len(ranges)
            contents.append("".join(data[s:e].tobytes().decode() for s, e in left[row]))
        gone = [row for row in range(batch.num_rows) if not left[row]]
        rows = batch.select(["doc_id", "language", "doc_type"]).take(pa.array(gone, pa.int64())).to_pylist()
        drops = [
            {**r, "rule": "near_duplicate", "detail": f"every chunk is in other files, the last in {dropped[row]}"}
            for r, row in zip(rows, gone, strict=True)
        ]
        index = batch.schema.get_field_index("content")
        batch = batch.set_column(index, batch.schema.field(index), pa.array(contents, pa.large_string()))
        kept = batch.filter(pa.array([bool(left[row]) for row in range(batch.num_rows)], pa.bool_()))
        return Outcome(kept, drops, counts={"cut_chunks": cut_chunks})


def _orders(ids: pa.ChunkedArray) -> np.ndarray:
    return np.array([int(i[:16], 16) for i in ids.to_pylist()], np.uint64)


def _pair_table(pairs: np.ndarray) -> pa.Table:
    return pa.table({"left": pairs[:, 0], "right": pairs[:, 1]})


def _all_pairs(tables: Iterator[pa.Table]) -> np.ndarray:
    """The distinct pairs of all tables, int64 [P, 2]."""
    return candidates.distinct_pairs([np.stack([t["left"].to_numpy(), t["right"].to_numpy()], 1) for t in tables])


def _empty_rank() -> pa.Table:
    return pa.schema([DOCUMENTS.field(name) for name in RANK_COLUMNS]).empty_table()
