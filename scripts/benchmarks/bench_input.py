"""Throughput of the input pipeline alone on one core: records read at random through Grain, batched, made into arrays.

    taskset -c 0 python scripts/benchmarks/bench_input.py

Writes shards of random tokens (Zipf, as page-cache-warm files), then times batches of the mixture exactly as training
draws them, `grain.MapDataset` indexing included. Prints tokens per second of CPU and wall time, medians over rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from opencoder_data.shard_format import ShardWriter

from opencoder_jax.config import DataConfig, SourceConfig
from opencoder_jax.input import TrainingData


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=16_384)
    parser.add_argument("--seq_len", type=int, default=4_096)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--sources", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=40)
    args = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as directory:
        sources = []
        for s in range(args.sources):
            path = Path(directory, str(s))
            with ShardWriter(
                path, seq_len=args.seq_len, vocab_size=96_640, tokenizer_hash="bench", pad_id=3, records_per_shard=4_096
            ) as writer:
                left = args.records * args.seq_len // args.sources
                while left > 0:
                    ids = np.minimum(rng.zipf(1.2, int(rng.integers(50, 8_000))), 96_639)
                    writer.add(ids, text_bytes=3 * len(ids))
                    left -= len(ids)
            sources.append(SourceConfig(str(path), 1.0 + s))
        config = DataConfig(
            sources=tuple(sources), seq_len=args.seq_len, global_batch_size=args.batch, max_epochs=1e9, verify="size"
        )
        steps = TrainingData(config, vocab_size=96_640, seed=0).steps()
        tokens = args.steps * args.batch * args.seq_len
        wall, cpu = [], []
        for r in range(args.rounds + 1):
            start, start_cpu = time.perf_counter(), time.process_time()
            for step in range(r * args.steps, (r + 1) * args.steps):
                steps[step]
            if r:  # the first round maps the files
                wall.append(tokens / (time.perf_counter() - start) / 1e6)
                cpu.append(tokens / (time.process_time() - start_cpu) / 1e6)
    print(
        f"input: T={args.seq_len} batch={args.batch} sources={args.sources}, one core, {args.rounds} rounds: "
        f"median {statistics.median(wall):.1f} M tokens/s of wall time ({min(wall):.1f} to {max(wall):.1f}), "
        f"{statistics.median(cpu):.1f} of CPU time"
    )


if __name__ == "__main__":
    main()
