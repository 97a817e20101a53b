"""Stage 7: languages cut to target sizes or ratios, by a hash of each file, so every run keeps the same files.

The paper cuts Java to 200 GB and HTML to 64 GB out of 474.3 and 582.4 GB after filtering (its table 16); on a smaller
corpus the same shares are kept.
"""

import hashlib
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from opencoder_data.refinecode import storage
from opencoder_data.refinecode.config import SampleConfig
from opencoder_data.refinecode.engine import Executor
from opencoder_data.refinecode.run import Run, map_documents, run_step

STAGE = "sample"
PUBLISHED_RATIOS = {"java": 200 / 474.3, "html": 64 / 582.4}
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


def parse_size(text: str) -> float:
    """Bytes of a size such as ``64GB`` or ``1.5 mb`` (powers of ten); ValueError when it does not parse."""
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([a-z]*)\s*", text.lower())
    if not match or match.group(2) not in _UNITS:
        raise ValueError(f"{text!r} is not a size; write for instance 64GB")
    return float(match.group(1)) * _UNITS[match.group(2)]


def ratios_of(config: SampleConfig) -> dict[str, float]:
    """Language -> share to keep, for languages without a target size. Raises ValueError."""
    ratios: dict[str, float] = dict(PUBLISHED_RATIOS) if config.published else {}
    for language, ratio in config.ratios.items():
        if not 0 <= ratio <= 1:
            raise ValueError(f"sample.ratios.{language} must be in [0, 1], not {ratio}")
        ratios[language] = ratio
    return {k: v for k, v in ratios.items() if k not in config.sizes}


def check(config: SampleConfig) -> None:
    """Raises ValueError for a ratio or a size that makes no sense."""
    ratios_of(config)
    for language, text in config.sizes.items():
        try:
            parse_size(text)
        except ValueError as error:
            raise ValueError(f"sample.sizes.{language}: {error}") from None


def run(run: Run, executor: Executor) -> dict[str, float]:
    check(run.config.sample)
    parts = range(run.num_parts())
    cost = run_step(run, executor, STAGE, "keys", write_keys, parts, "sample: keys")
    target = storage.join(run.directory(STAGE), "cuts.json")
    if not storage.exists(target):
        storage.write_json(target, _cuts(run))
    more = run_step(run, executor, STAGE, "docs", apply, parts, "sample: write")
    return {key: cost[key] + more[key] for key in cost}


def _order(seed: int, sha256: str, path: str) -> int:
    """63-bit position of a file in the order in which files are kept."""
    digest = hashlib.blake2b(f"{seed}:{sha256}:{path}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def write_keys(run: Run, part: int) -> dict[str, Any]:
    """(language, order, bytes of text) of the files of sampled languages."""
    config = run.config.sample
    sampled = {*ratios_of(config), *config.sizes}
    tables = []
    with storage.open_read(run.part(run.upstream(STAGE), "docs", part)) as handle:
        parquet = pq.ParquetFile(handle)
        for group in range(parquet.num_row_groups):
            batch = parquet.read_row_group(group, columns=["path", "sha256", "language", "content"])
            size = pc.binary_length(batch.column("content"))  # pyright: ignore[reportAttributeAccessIssue]
            table = pa.table({
                "language": batch.column("language"),
                "order": pa.array([
                    _order(config.seed, s, p)
                    for s, p in zip(batch.column("sha256").to_pylist(), batch.column("path").to_pylist(), strict=True)
                ], pa.int64()),
                "bytes": size.cast(pa.int64()),
            })  # fmt: skip
            mask = pc.is_in(table.column("language"), pa.array(sorted(sampled), pa.string()))  # pyright: ignore[reportAttributeAccessIssue]
            tables.append(table.filter(mask))
    empty = pa.schema([("language", pa.string()), ("order", pa.int64()), ("bytes", pa.int64())]).empty_table()
    storage.write_table(
        run.part(STAGE, "keys", part), pa.concat_tables([empty, *(t.cast(empty.schema) for t in tables)])
    )
    return {"rows": sum(t.num_rows for t in tables)}


def _cuts(run: Run) -> dict[str, Any]:
    """Per sampled language the last position kept, and sizes before and after."""
    config = run.config.sample
    ratios = ratios_of(config)
    table = pa.concat_tables([storage.read_table(run.part(STAGE, "keys", p)) for p in range(run.num_parts())])
    cuts: dict[str, Any] = {}
    for language in sorted({*ratios, *config.sizes}):
        rows = table.filter(pc.equal(table.column("language"), language))  # pyright: ignore[reportAttributeAccessIssue]
        order, size = rows.column("order").to_numpy(), rows.column("bytes").to_numpy()
        sort = np.argsort(order)
        total = int(size.sum())
        target = parse_size(config.sizes[language]) if language in config.sizes else ratios[language] * total
        # Files are kept while their middle lies below the target: on average exact, never biased to small files.
        middle = np.cumsum(size[sort]) - size[sort] / 2
        kept = int(np.searchsorted(middle, target, side="left"))
        cuts[language] = {
            "last": int(order[sort][kept - 1]) if kept else -1,
            "target_bytes": round(min(target, total)), "bytes_before": total, "bytes_kept": int(size[sort][:kept].sum()),
            "files_before": len(order), "files_kept": kept,
        }  # fmt: skip
    return cuts


def apply(run: Run, part: int) -> dict[str, Any]:
    cuts = storage.read_json(storage.join(run.directory(STAGE), "cuts.json"))
    return map_documents(run, STAGE, part, lambda batch: _cut(batch, run.config.sample, cuts))


def _cut(batch: pa.Table, config: SampleConfig, cuts: dict[str, Any]) -> tuple[pa.Table, list[dict[str, Any]]]:
    keep, drops = [], []
    for row in batch.select(["doc_id", "path", "sha256", "language", "doc_type"]).to_pylist():
        cut = cuts.get(row["language"])
        stays = cut is None or _order(config.seed, row["sha256"], row["path"]) <= cut["last"]
        keep.append(stays)
        if not stays:
            assert cut is not None
            detail = f"{row['language']} cut to {cut['target_bytes']} of {cut['bytes_before']} bytes"
            drops.append({**row, "rule": "sampled_out", "detail": detail})
    return batch.filter(pa.array(keep, pa.bool_())), drops
