"""Held-out loss and bits per byte, one row per source (one per language, say).

Within training, or of a checkpoint: `python -m opencoder_jax.validate --checkpoint=RUN --data.eval_sources=A,B
[--field=value ...]`; prints a table and, last, the rows as JSON.
"""

from __future__ import annotations

import collections
import json
import math
import sys
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from opencoder_data import command
from opencoder_data.shard_format import BATCH_FIELDS, NOT_A_TARGET, ShardReader, to_batch

from opencoder_jax import distributed, overrides
from opencoder_jax import model as lm
from opencoder_jax.bounds import check_ranges
from opencoder_jax.checkpoint import load_state, read_record, resolve
from opencoder_jax.config import RunConfig
from opencoder_jax.distributed import local_rows, to_devices
from opencoder_jax.input import open_shards
from opencoder_jax.sharding import make_mesh
from opencoder_jax.step import batch_shapes, make_train_step
from opencoder_jax.watch import Watch

# Batches queued on the device before the host waits for the first of them.
AHEAD = 8


@dataclass(frozen=True)
class HeldOut:
    """loss: nats per target. bits_per_byte: length of a code for the text over its UTF-8 bytes: the targets' bits, and
    log2(vocab_size) for each document's first token, which nothing foretells. NaN where prompts are not scored."""

    name: str
    loss: float
    bits_per_byte: float
    tokens: int
    text_bytes: int


class Evaluator:
    """Reads every record of `data.eval_sources`, in order, in batches of one micro-batch of the run.

    Raises (constructor): ValueError for shards that do not fit the run or were packed with another tokenizer.
    """

    def __init__(self, config: RunConfig, mesh: Mesh, *, tokenizer_hash: str = "", watch: Watch | None = None):
        """watch: told of every wait for a batch."""
        self._watch = watch or Watch()
        vocab_size = config.model.vocab_size
        readers = [open_shards(source, config.data, vocab_size, tokenizer_hash) for source in config.data.eval_sources]
        self._readers = dict(zip(_names(readers), readers, strict=True))
        batch_size = config.data.global_batch_size // config.grad_accum
        data = replace(config.data, global_batch_size=batch_size)
        self._batch = batch_shapes(replace(config, data=data, grad_accum=1), mesh)
        self._rows = local_rows(self._batch)

        def losses(params, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
            micro = jax.tree.map(lambda x: x[0], batch)
            total, _ = lm.bind(config.model, params).loss(micro)
            return total, micro["loss_mask"].sum(dtype=jnp.int32)

        self._losses = jax.jit(losses, out_shardings=NamedSharding(mesh, P()))

    def __call__(self, params: Any) -> list[HeldOut]:
        """Evaluates sharded parameters; the mesh is set (`jax.set_mesh`)."""
        return [self._evaluate(name, reader, params) for name, reader in self._readers.items()]

    def _evaluate(self, name: str, reader: ShardReader, params: Any) -> HeldOut:
        size = self._batch["tokens"].shape[1]
        queued, totals, counts = collections.deque(), [], []
        for first in range(0, len(reader), size):
            with self._watch.waiting("the evaluation's shards"):
                batch = self._load(reader, first)
            queued.append(self._losses(params, batch))
            # A few batches ahead of the device: it is never idle, and the host neither runs away nor waits for all at once.
            while len(queued) > AHEAD or (queued and first + size >= len(reader)):
                with self._watch.waiting("the evaluation on the device"):
                    total, count = jax.device_get(queued.popleft())
                totals.append(total)
                counts.append(count)
        nats, tokens, m = math.fsum(totals), int(sum(map(int, counts))), reader.manifest
        everything = tokens == m.num_tokens - m.num_documents
        bits = nats / math.log(2) + m.num_documents * math.log2(m.vocab_size)
        bits_per_byte = bits / m.text_bytes if everything and m.text_bytes else math.nan
        return HeldOut(name, nats / max(tokens, 1), bits_per_byte, tokens, m.text_bytes)

    def _load(self, reader: ShardReader, first: int) -> dict[str, jax.Array]:
        empty = np.full(reader.manifest.seq_len + 1, NOT_A_TARGET, np.uint32)
        wanted = range(first + self._rows[0], first + self._rows[1])
        batch = to_batch(np.stack([reader[i] if i < len(reader) else empty for i in wanted]))
        return to_devices({name: batch[name][None] for name in BATCH_FIELDS}, self._batch, self._rows)


def _names(readers: list[ShardReader]) -> list[str]:
    """The shards' languages, else the directories' names, else their paths: the first that tells them all apart."""
    names = [r.manifest.language or r.directory.name for r in readers]
    return names if len(set(names)) == len(names) else [str(r.directory) for r in readers]


def run(arguments: list[str]) -> int:
    """Evaluates a checkpoint. Raises: ValueError for what the user must change."""
    named = [a for a in arguments if a.startswith("--checkpoint=")]
    if len(named) != 1:
        raise ValueError("give one --checkpoint=RUN (its newest) or --checkpoint=RUN/checkpoints/STEP")
    checkpoint = resolve(named[0].partition("=")[2])
    record = read_record(checkpoint)
    config = overrides.from_dict(record["config"])
    changes = overrides.split(a for a in arguments if a not in named)
    config = overrides.apply(config, changes)
    check_ranges(config, changes)
    if not config.data.eval_sources:
        raise ValueError("nothing to evaluate on: --data.eval_sources=SHARDS,SHARDS")
    distributed.initialize()
    mesh = make_mesh(config.mesh)
    with jax.set_mesh(mesh):
        results = Evaluator(config, mesh, tokenizer_hash=record["data"].get("tokenizer", ""))(
            load_state(checkpoint, make_train_step(config, mesh).abstract_state)[0]["params"]
        )
    if distributed.is_first():
        width = max(len(r.name) for r in results)
        for r in results:
            print(f"{r.name:<{width}}  loss {r.loss:.4f}  {r.bits_per_byte:.4f} bits per byte  {r.tokens:,} tokens")
        print(json.dumps({"checkpoint": str(checkpoint), "sources": [asdict(r) for r in results]}))
    return 0


def main(arguments: list[str]) -> int:
    """Exit code 2 and one line for what the user must change; --help prints what is at the top of this file."""
    return overrides.command(run, arguments, __doc__)


if __name__ == "__main__":
    command.end(main(sys.argv[1:]))
