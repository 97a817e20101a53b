"""Batches from token shards: which records a step sees is a pure function of (seed, global step).

Nothing is stateful: a Grain MapDataset mixes the shuffled sources and batches them by index, so that the position in
the data is the step itself, hosts only pick their rows, and a run resumes with any number of hosts.
"""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass

import grain
import numpy as np
from opencoder_data.shard_format import BATCH_FIELDS, ShardReader, to_batch

from opencoder_jax.config import DataConfig, SourceConfig
from opencoder_jax.mixture import BatchSizes, Mixture, Stage, parse_changes

# Of DataConfig, besides sources and weights: what decides which record is read when.
_ORDER_FIELDS = ("global_batch_size", "seq_len", "shuffle")


@dataclass(frozen=True)
class SourcePlan:
    """What a run takes from one source: its share of all tokens, and how often that goes through the source."""

    path: str
    share: float
    tokens: int
    epochs: float


class TrainingData:
    """The mixture of a run's sources.

    Raises (constructor): ValueError for shards that are missing, corrupt, of another record length, another
    vocabulary or another tokenizer than their neighbours, and for a mixture that cannot be drawn.
    """

    def __init__(self, config: DataConfig, *, vocab_size: int, seed: int):
        self.batches = BatchSizes.constant(config)
        if not config.sources:
            raise ValueError("data.sources is empty: give shard directories, --data.sources=PATH:WEIGHT,PATH:WEIGHT")
        self.config = config
        self._readers = [open_shards(s, config, vocab_size) for s in config.sources]
        hashes = {r.manifest.tokenizer_hash: str(r.directory) for r in self._readers}
        if len(hashes) > 1:
            raise ValueError(
                f"data.sources: packed with different tokenizers: {', '.join(hashes.values())}; pack them again with one"
            )
        self.tokenizer_hash = next(iter(hashes))
        weights = tuple(s.weight for s in config.sources)
        self._stages = [Stage(0, weights), *parse_changes(config.mixture_changes, len(weights))]
        self._mixture = Mixture(self._stages, self.batches)
        self._seed = seed
        datasets = []
        for i, reader in enumerate(self._readers):
            records = grain.MapDataset.source(reader)
            if config.shuffle:
                # A new permutation of all records in every epoch.
                records = records.shuffle(seed=_source_seed(seed, i))
            datasets.append(records.repeat())
        self._datasets = datasets
        # Endless, by global record index: uint32 [T + 1] each.
        self.records = grain.MapDataset.select_from_datasets(datasets, self._mixture)

    def continued(self, batches: BatchSizes) -> TrainingData:
        """The same data for a run whose batches had other sizes before: each source goes on with the record after its last."""
        if batches == self.batches:
            return self
        data = copy.copy(self)
        data.batches = batches
        data._mixture = Mixture(self._stages, batches)
        data.records = grain.MapDataset.select_from_datasets(self._datasets, data._mixture)
        return data

    def plan(self, num_steps: int) -> list[SourcePlan]:
        """Tokens and epochs that `num_steps` steps take from each source."""
        total = self.batches.records(num_steps)
        counts = self._mixture.counts(total)
        return [
            SourcePlan(s.path, n / max(total, 1), n * self.config.seq_len, n / len(reader))
            for s, n, reader in zip(self.config.sources, counts, self._readers, strict=True)
        ]

    def check_enough(self, num_steps: int) -> None:
        """Raises ValueError when a source would be read more than `data.max_epochs` times."""
        for p in self.plan(num_steps):
            if p.epochs > self.config.max_epochs:
                raise ValueError(
                    f"{p.path}: {num_steps} steps would read it {p.epochs:.2f} times, data.max_epochs={self.config.max_epochs}; "
                    f"give more data, a smaller weight, num_steps <= {int(num_steps * self.config.max_epochs / p.epochs)}, "
                    "or a higher data.max_epochs"
                )

    @property
    def fingerprint(self) -> dict[str, str]:
        """Shards, tokenizer and mixture; equal fingerprints deliver the same tokens at the same step."""
        shards = [reader.manifest.fingerprint for reader in self._readers]
        stages = [[s.start_step, *s.weights] for s in self._mixture.stages]
        mixture = [shards, stages, self._seed, *(getattr(self.config, f) for f in _ORDER_FIELDS)]
        return {
            "shards": _digest(sorted(shards)),
            "tokenizer": self.tokenizer_hash,
            "mixture": _digest(mixture),
        }

    @property
    def first_step(self) -> int:
        """Step from which on batches have the size that they have now."""
        return self.batches.changes[-1][0]

    def steps(self, *, grad_accum: int = 1, rows: tuple[int, int] | None = None) -> grain.MapDataset:
        """MapDataset whose element `step - first_step` is a dict of arrays [grad_accum, stop - start, T] (see BATCH_FIELDS).

        Args:
          grad_accum: micro-batches per step; global_batch_size // grad_accum records each.
          rows: (start, stop) of this host's rows in a micro-batch; their number divides the micro-batch and start.
        """
        micro = self.config.global_batch_size // grad_accum
        start, stop = rows or (0, micro)
        count = stop - start
        assert micro % count == 0 and start % count == 0, (micro, rows)
        records = self.records[self.batches.records(self.first_step) :] if self.first_step else self.records
        host = (
            records.batch(grad_accum * micro, drop_remainder=True, batch_fn=list)
            if count == micro
            else self._rows(records, start, count, micro, grad_accum)
        )
        return host.map(lambda records: _assemble(records, grad_accum, count))

    @staticmethod
    def _rows(records: grain.MapDataset, start: int, count: int, micro: int, grad_accum: int) -> grain.MapDataset:
        mine = records.batch(count, drop_remainder=True, batch_fn=list)[start // count :: micro // count]
        flatten = lambda groups: [record for group in groups for record in group]  # noqa: E731
        return mine.batch(grad_accum, drop_remainder=True, batch_fn=flatten)


def iterate(steps: grain.MapDataset, start: int, stop: int, *, prefetch: int = 4):
    """Elements start..stop-1 in order, read ahead by threads."""
    options = grain.ReadOptions(num_threads=prefetch, prefetch_buffer_size=prefetch)
    return iter(steps[start:stop].to_iter_dataset(options))


def open_shards(source: SourceConfig, config: DataConfig, vocab_size: int, tokenizer_hash: str = "") -> ShardReader:
    """Raises ValueError, naming the directory, for shards that do not fit the run or, if given, the tokenizer."""
    reader = ShardReader(source.path, check=config.verify)
    manifest = reader.manifest
    if manifest.seq_len != config.seq_len:
        raise ValueError(
            f"{source.path}: records of {manifest.seq_len} tokens, data.seq_len={config.seq_len}; pack again or set data.seq_len"
        )
    if manifest.vocab_size > vocab_size:
        raise ValueError(
            f"{source.path}: vocabulary of {manifest.vocab_size}, model.vocab_size={vocab_size}: another tokenizer's shards"
        )
    if tokenizer_hash and manifest.tokenizer_hash != tokenizer_hash:
        raise ValueError(
            f"{source.path}: packed with tokenizer {manifest.tokenizer_hash}, expected {tokenizer_hash}; pack it again"
        )
    if not 0 < len(reader) < 2**32:
        raise ValueError(f"{source.path}: holds {len(reader)} records; a source has 1 to 2**32 - 1")
    return reader


def _assemble(records: list[np.ndarray], grad_accum: int, count: int) -> dict[str, np.ndarray]:
    batch = to_batch(np.stack(records))
    return {name: batch[name].reshape(grad_accum, count, -1) for name in BATCH_FIELDS}


def _source_seed(seed: int, source: int) -> int:
    """Far from the seeds of other sources, as Grain adds the epoch's number to it."""
    return int(np.random.SeedSequence([seed, source]).generate_state(1)[0])


def _digest(value) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
