"""Stage 7: languages cut to target sizes or ratios, by a hash of each file, so every run keeps the same files.

The paper cuts Java to 200 GB and HTML to 64 GB out of 474.3 and 582.4 GB after filtering (its table 16); on a smaller
corpus the same shares are kept.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from opencoder_data.pipeline import storage
from opencoder_data.pipeline.run import Run, Steps, map_documents
from opencoder_data.pipeline.stage import Outcome
from opencoder_data.refinecode.config import SampleConfig

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


@dataclass(frozen=True)
class Sample:
    """Steps: ``keys`` of the files of sampled languages; `cuts.json`, on the driver; ``docs`` up to the cuts."""

    config: SampleConfig = field(default_factory=SampleConfig)
    name: ClassVar[str] = "sample"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ()

    def validate(self) -> None:
        """Raises ValueError for a ratio or a size that makes no sense."""
        ratios_of(self.config)
        for language, text in self.config.sizes.items():
            try:
                parse_size(text)
            except ValueError as error:
                raise ValueError(f"sample.sizes.{language}: {error}") from None

    def run(self, steps: Steps) -> None:
        steps.each(self.write_keys)
        steps.once("cuts.json", self.cuts)
        steps.each(self.write_docs)

    def write_keys(self, run: Run, part: int) -> dict[str, Any]:
        """(language, order, bytes of text) of the files of sampled languages."""
        columns = ["path", "sha256", "language", "content"]
        table = keys_of(run.documents(run.upstream(self.name), part, columns), self.config)
        storage.write_table(run.part(self.name, "keys", part), table)
        return {"rows": table.num_rows}

    def cuts(self, run: Run) -> dict[str, Any]:
        """`cuts_of` the whole run."""
        tables = [storage.read_table(run.part(self.name, "keys", p)) for p in range(run.num_parts())]
        return cuts_of(pa.concat_tables(tables), self.config)

    def write_docs(self, run: Run, part: int) -> dict[str, Any]:
        cuts = storage.read_json(storage.join(run.directory(self.name), "cuts.json"))
        return map_documents(run, self.name, part, lambda batch: decide(batch, self.config, cuts))


def _order(seed: int, sha256: str, path: str) -> int:
    """63-bit position of a file in the order in which files are kept."""
    digest = hashlib.blake2b(f"{seed}:{sha256}:{path}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def keys_of(batches: Iterable[pa.Table], config: SampleConfig) -> pa.Table:
    """(language, order, bytes of text) of the files of sampled languages."""
    sampled = {*ratios_of(config), *config.sizes}
    schema = pa.schema([("language", pa.string()), ("order", pa.int64()), ("bytes", pa.int64())])
    tables = [schema.empty_table()]
    for batch in batches:
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
        tables.append(table.filter(mask).cast(schema))
    return pa.concat_tables(tables)


def cuts_of(table: pa.Table, config: SampleConfig) -> dict[str, Any]:
    """Per sampled language the last position kept, and sizes before and after; `table` as `keys_of` gives it."""
    ratios = ratios_of(config)
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


def decide(batch: pa.Table, config: SampleConfig, cuts: dict[str, Any]) -> Outcome:
    """The files of a batch up to the cut of their language."""
    keep, drops = [], []
    for row in batch.select(["doc_id", "path", "sha256", "language", "doc_type"]).to_pylist():
        cut = cuts.get(row["language"])
        stays = cut is None or _order(config.seed, row["sha256"], row["path"]) <= cut["last"]
        keep.append(stays)
        if not stays:
            assert cut is not None
            detail = f"{row['language']} cut to {cut['target_bytes']} of {cut['bytes_before']} bytes"
            drops.append({**row, "rule": "sampled_out", "detail": detail})
    return Outcome(batch.filter(pa.array(keep, pa.bool_())), drops)
