"""The steps of stage 4 (see the package's docstring)."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from opencoder_data.refinecode import storage
from opencoder_data.refinecode.engine import Executor
from opencoder_data.refinecode.exact_dedup import drop_copies
from opencoder_data.refinecode.fuzzy_dedup import candidates, kernels, repo_level
from opencoder_data.refinecode.fuzzy_dedup.quality import measure_recall
from opencoder_data.refinecode.fuzzy_dedup.settings import banding
from opencoder_data.refinecode.fuzzy_dedup.units import Units, chunk_ranges, text_buffer, units_of_batch
from opencoder_data.refinecode.keep_rule import RANK_COLUMNS, fill_unknown, sort_keys
from opencoder_data.refinecode.run import Run, partition_writers, run_step
from opencoder_data.refinecode.schema import DOCUMENTS
from opencoder_data.refinecode.shuffle import num_buckets, read_bucket, write_buckets

STAGE = "fuzzy_dedup"
_VERIFY_UNITS = 10_000
_PART_BITS = 32


def run(run: Run, executor: Executor) -> dict[str, float]:
    config = run.config.fuzzy_dedup
    banding(config)
    parts, costs = range(run.num_parts()), []
    if config.level == "repo":
        costs.append(run_step(run, executor, STAGE, "repos", repo_shingles, parts, "fuzzy dedup: repositories"))
    groups = range(_groups(run))
    costs.append(run_step(run, executor, STAGE, "keys", write_keys, groups, "fuzzy dedup: sketch"))
    costs.append(run_step(run, executor, STAGE, "pairs", write_pairs, range(_key_buckets(run)), "fuzzy dedup: pairs"))
    plan = storage.join(run.directory(STAGE), "components", "plan.json")
    if not storage.exists(plan):
        _assign(run)
    buckets = storage.read_json(plan)["buckets"]
    costs.append(run_step(run, executor, STAGE, "members", write_members, groups, "fuzzy dedup: members"))
    if config.verify:
        costs.append(run_step(run, executor, STAGE, "verify", verify, range(buckets), "fuzzy dedup: verify"))
    decided = storage.join(run.directory(STAGE), "components", "report.json")
    if not storage.exists(decided):
        _decide(run, buckets)
    costs.append(run_step(run, executor, STAGE, "docs", apply, parts, "fuzzy dedup: write"))
    if config.measure_recall:
        measure_recall(run, STAGE)
    return {key: sum(c[key] for c in costs) for key in costs[0]}


def _groups(run: Run) -> int:
    """Number of tasks that units are numbered in: partitions, or groups of repositories."""
    if run.config.fuzzy_dedup.level == "repo":
        return repo_level.buckets(run, STAGE)
    return run.num_parts()


def repo_shingles(run: Run, part: int) -> dict[str, Any]:
    return repo_level.write_shingles(run, STAGE, part)


def _key_buckets(run: Run) -> int:
    rows = sum(c["kept"] for c in run.counts(run.upstream(STAGE))) * banding(run.config.fuzzy_dedup).bands
    return num_buckets(rows, 4 * run.config.layout.shuffle_rows)


def write_keys(run: Run, part: int) -> dict[str, Any]:
    """(key, unit, order) of every band of every unit that has shingles."""
    config = run.config.fuzzy_dedup
    band = banding(config)
    keys, units, orders = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]
    count = 0
    for batch in iter_units(run, STAGE, part):
        count += len(batch.rows)
        filled = np.flatnonzero(np.diff(batch.offsets))
        # In slices: 2,048 slots are 8 KB a unit.
        for begin in range(0, len(filled), 4_096):
            chosen = filled[begin : begin + 4_096]
            low, high = int(chosen[0]), int(chosen[-1]) + 1
            offsets = batch.offsets[low : high + 1] - batch.offsets[low]
            part_shingles = batch.shingles[batch.offsets[low] : batch.offsets[high]]
            sketch = kernels.sketches(part_shingles, offsets, config.sketch, band.slots, config.seed)[chosen - low]
            found = kernels.band_keys(sketch, band.bands, band.rows)
            order = _orders(batch.rank.column("doc_id").take(pa.array(chosen)))
            number = (np.int64(part) << _PART_BITS) | batch.number[chosen]
            keys.append(found.ravel())
            units.append(np.repeat(number, band.bands))
            orders.append(np.repeat(order, band.bands))
    key = np.concatenate(keys)
    table = pa.table({"key": key, "unit": np.concatenate(units), "order": np.concatenate(orders)})
    buckets = _key_buckets(run)
    write_buckets(run.part(STAGE, "keys", part), table, (key % np.uint64(buckets)).astype(np.int64), buckets)
    return {"units": count, "rows": table.num_rows}


def _orders(ids: pa.ChunkedArray) -> np.ndarray:
    return np.array([int(i[:16], 16) for i in ids.to_pylist()], np.uint64)


def write_pairs(run: Run, bucket: int) -> dict[str, Any]:
    table = read_bucket([run.part(STAGE, "keys", p) for p in range(_groups(run))], bucket)
    arrays = [table.column(name).to_numpy() for name in ("key", "unit", "order")]
    pairs = candidates.pairs_of_groups(*arrays, all_pairs=run.config.fuzzy_dedup.verify)
    storage.write_table(run.part(STAGE, "pairs", bucket), _pair_table(pairs))
    return {"rows": len(pairs)}


def _pair_table(pairs: np.ndarray) -> pa.Table:
    return pa.table({"left": pairs[:, 0], "right": pairs[:, 1]})


def candidate_pairs(run: Run) -> np.ndarray:
    """All candidate pairs of the run, int64 [P, 2]."""
    found = [storage.read_table(run.part(STAGE, "pairs", b)) for b in range(_key_buckets(run))]
    return candidates.distinct_pairs([np.stack([t["left"].to_numpy(), t["right"].to_numpy()], 1) for t in found])


def _assign(run: Run) -> None:
    """Candidate components into buckets of some 10,000 units, so that a bucket's shingles fit in memory."""
    pairs = candidate_pairs(run)
    units, component = candidates.components(pairs)
    sizes = np.bincount(component) if len(component) else np.zeros(0, np.int64)
    bucket_of_component = np.cumsum(sizes) // _VERIFY_UNITS
    bucket = bucket_of_component[component] if len(component) else component
    buckets = int(bucket.max()) + 1 if len(bucket) else 0
    part = units >> _PART_BITS
    members = pa.table({"part": part, "unit": units, "bucket": bucket})
    storage.write_table(storage.join(run.directory(STAGE), "components", "members.parquet"), members)
    if len(pairs):
        pair_bucket = bucket[np.searchsorted(units, pairs[:, 0])]
        order = np.argsort(pair_bucket, kind="stable")
        pairs, pair_bucket = pairs[order], pair_bucket[order]
        ends = np.searchsorted(pair_bucket, np.arange(buckets + 1))
        for b in range(buckets):
            storage.write_table(run.part(STAGE, "candidates", b), _pair_table(pairs[ends[b] : ends[b + 1]]))
    storage.write_json(
        storage.join(run.directory(STAGE), "components", "plan.json"),
        {"buckets": buckets, "candidate_pairs": len(pairs), "candidate_units": len(units)},
    )


def _members_of(run: Run, part: int) -> dict[int, int]:
    """unit -> bucket of the candidates in a partition."""
    url = storage.join(run.directory(STAGE), "components", "members.parquet")
    with storage.open_read(url) as handle:
        table = pq.read_table(handle, filters=[("part", "=", part)])
    return dict(zip(table.column("unit").to_pylist(), table.column("bucket").to_pylist(), strict=True))


def write_members(run: Run, part: int) -> dict[str, Any]:
    """Rank columns of the candidates of a partition and, to verify, their sorted shingles by bucket."""
    config = run.config.fuzzy_dedup
    bucket_of = _members_of(run, part)
    units: list[int] = []
    ranks: list[pa.Table] = []
    sets: list[np.ndarray] = []
    if bucket_of:
        for batch in iter_units(run, STAGE, part):
            numbers = ((np.int64(part) << _PART_BITS) | batch.number).tolist()
            chosen = [i for i, n in enumerate(numbers) if n in bucket_of]
            if not chosen:
                continue
            units += [numbers[i] for i in chosen]
            ranks.append(batch.rank.take(pa.array(chosen)))
            if config.verify:
                sets += [np.sort(batch.shingles[batch.offsets[i] : batch.offsets[i + 1]]) for i in chosen]
    unit = np.array(units, np.int64)
    rank = pa.concat_tables([_empty_rank(), *(r.cast(_empty_rank().schema) for r in ranks)])
    storage.write_table(run.part(STAGE, "ranks", part), rank.append_column("unit", pa.array(unit)))
    if config.verify:
        offsets = np.concatenate([[0], np.cumsum([len(s) for s in sets])]).astype(np.int64)
        flat = np.concatenate(sets) if sets else np.zeros(0, np.uint64)
        column = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(flat))
        table = pa.table({"unit": unit, "shingles": column})
        bucket = np.array([bucket_of[u] for u in units], np.int64)
        buckets = storage.read_json(storage.join(run.directory(STAGE), "components", "plan.json"))["buckets"]
        write_buckets(run.part(STAGE, "shingles", part), table, bucket, max(buckets, 1))
    return {"rows": len(units)}


def _empty_rank() -> pa.Table:
    return pa.schema([DOCUMENTS.field(name) for name in RANK_COLUMNS]).empty_table()


def verify(run: Run, bucket: int) -> dict[str, Any]:
    """Exact Jaccard similarity of the candidate pairs of a bucket; those below `min_jaccard` are dropped."""
    table = read_bucket([run.part(STAGE, "shingles", p) for p in range(_groups(run))], bucket).combine_chunks()
    order = np.argsort(table.column("unit").to_numpy())
    table = table.take(pa.array(order)).combine_chunks()
    units = table.column("unit").to_numpy()
    column = table.column("shingles").combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    offsets = column.offsets.to_numpy() - column.offsets[0].as_py()
    pairs = storage.read_table(run.part(STAGE, "candidates", bucket))
    left, right = (np.searchsorted(units, pairs.column(n).to_numpy()) for n in ("left", "right"))
    jaccard = kernels.jaccard_of_pairs(flat, offsets, left, right)
    keep = jaccard >= run.config.fuzzy_dedup.min_jaccard
    result = pairs.append_column("jaccard", pa.array(jaccard)).filter(pa.array(keep))
    storage.write_table(run.part(STAGE, "verified", bucket), result)
    return {"pairs": pairs.num_rows, "rows": result.num_rows}


def _decide(run: Run, buckets: int) -> None:
    """Components of the final pairs; all of a component but its best are copies."""
    config = run.config.fuzzy_dedup
    kind = "verified" if config.verify else "candidates"
    tables = [storage.read_table(run.part(STAGE, kind, b), ["left", "right"]) for b in range(buckets)]
    pairs = candidates.distinct_pairs([np.stack([t["left"].to_numpy(), t["right"].to_numpy()], 1) for t in tables])
    units, component = candidates.components(pairs)
    ranks = pa.concat_tables([storage.read_table(run.part(STAGE, "ranks", p)) for p in range(_groups(run))])
    ranks = ranks.filter(pa.array(np.isin(ranks.column("unit").to_numpy(), units)))
    of_unit = component[np.searchsorted(units, ranks.column("unit").to_numpy())] if len(units) else component
    ranks = ranks.append_column("component", pa.array(of_unit, pa.int64()))
    # Chunks of one file rank equal: the earlier one stays.
    ranks = fill_unknown(ranks).sort_by([*sort_keys([("component", "ascending")]), ("unit", "ascending")])
    group = ranks.column("component").to_numpy()
    first = np.r_[True, group[1:] != group[:-1]] if len(group) else np.zeros(0, bool)
    leader = np.maximum.accumulate(np.where(first, np.arange(len(group)), 0)) if len(group) else np.zeros(0, np.int64)
    unit = ranks.column("unit").to_numpy()
    copies = pa.table({
        "part": unit >> _PART_BITS,
        "number": unit & ((1 << _PART_BITS) - 1),
        "doc_id": ranks.column("doc_id"),
        "repo": ranks.column("repo"),
        "kept": ranks.column("doc_id").take(pa.array(leader)),
    }).filter(pa.array(~first))  # fmt: skip
    copies = copies.sort_by([("part", "ascending"), ("number", "ascending")])
    directory = storage.join(run.directory(STAGE), "components")
    storage.write_table(storage.join(directory, "copies.parquet"), copies)
    sizes = np.bincount(component) if len(component) else np.zeros(0, np.int64)
    plan = storage.read_json(storage.join(directory, "plan.json"))
    band = banding(config)
    report = {
        "level": config.level, "sketch": config.sketch, "banding": band.note(), "threshold": kernels.threshold(band.bands, band.rows),
        "units": sum(storage.read_json(run.done(STAGE, "keys", p))["units"] for p in range(_groups(run))),
        "candidate_pairs": plan["candidate_pairs"],
        "verified_pairs": len(pairs) if config.verify else None,
        "min_jaccard": config.min_jaccard if config.verify else None,
        "components": len(sizes), "largest_component": int(sizes.max()) if len(sizes) else 0,
        "copies": copies.num_rows,
    }  # fmt: skip
    storage.write_json(storage.join(directory, "report.json"), report)


def apply(run: Run, part: int) -> dict[str, Any]:
    """Partition without its copies: files, chunks of files, or files of repositories."""
    config = run.config.fuzzy_dedup
    url = storage.join(run.directory(STAGE), "components", "copies.parquet")
    with storage.open_read(url) as handle:
        copies = pq.read_table(handle, filters=[("part", "=", part)] if config.level != "repo" else None)
    if config.level == "repo":
        return repo_level.drop_repositories(run, STAGE, part, copies)
    if config.level == "chunk":
        return _drop_chunks(run, part, copies)
    pairs = zip(copies.column("doc_id").to_pylist(), copies.column("kept").to_pylist(), strict=True)
    return drop_copies(run, STAGE, part, dict(pairs), "near_duplicate")


def _drop_chunks(run: Run, part: int, copies: pa.Table) -> dict[str, Any]:
    """Cut repeated chunks out of the texts; a file with nothing left is dropped."""
    kept_of = dict(zip(copies.column("number").to_pylist(), copies.column("kept").to_pylist(), strict=True))
    config = run.config.fuzzy_dedup
    number = 0
    cut_chunks = 0
    with storage.open_read(run.part(run.upstream(STAGE), "docs", part)) as handle:
        parquet = pq.ParquetFile(handle)
        with partition_writers(run, STAGE, part, parquet.schema_arrow) as writers:
            for group in range(parquet.num_row_groups):
                batch = parquet.read_row_group(group)
                data, offsets = text_buffer(batch.column("content"))
                contents: list[str | None] = []
                dropped: dict[int, str] = {}
                cut: dict[int, list[tuple[int, int]]] = defaultdict(list)
                for row in range(batch.num_rows):
                    start, end = int(offsets[row]), int(offsets[row + 1])
                    ranges = chunk_ranges(data, start, end, config.chunk_bytes)
                    for index, piece in enumerate(ranges):
                        if number + index not in kept_of:
                            cut[row].append(piece)
                        else:
                            cut_chunks += 1
                            dropped[row] = kept_of[number + index]
                    number += len(ranges)
                    contents.append("".join(data[s:e].tobytes().decode() for s, e in cut[row]))
                gone = [row for row in range(batch.num_rows) if not cut[row]]
                rows = batch.select(["doc_id", "language", "doc_type"]).take(pa.array(gone, pa.int64())).to_pylist()
                writers.drop([
                    {**r, "rule": "near_duplicate", "detail": f"every chunk is in other files, the last in {dropped[row]}"}
                    for r, row in zip(rows, gone, strict=True)
                ])  # fmt: skip
                index = batch.schema.get_field_index("content")
                batch = batch.set_column(index, batch.schema.field(index), pa.array(contents, pa.large_string()))
                writers.keep(batch.filter(pa.array([bool(cut[row]) for row in range(batch.num_rows)], pa.bool_())))
            return {**writers.counts(), "cut_chunks": cut_chunks}


def iter_units(run: Run, stage: str, part: int) -> Iterator[Units]:
    """Units of a partition, batch by batch; their numbers are the same at every call."""
    config = run.config.fuzzy_dedup
    if config.level == "repo":
        yield from repo_level.iter_repo_units(run, stage, part)
        return
    number = 0
    columns = ["content", *RANK_COLUMNS]
    for batch in run.documents(run.upstream(stage), part, columns):
        units = units_of_batch(batch, number, config.level, config.chunk_bytes)
        number += len(units.rows)
        yield units
