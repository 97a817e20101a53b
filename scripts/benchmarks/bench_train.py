"""Training step on two CPU threads: ours against Hugging Face's Llama with torch, side by side.

    python scripts/benchmarks/bench_train.py [--rounds 5] [--steps 5]

The model of configs/tiny.py, the same weights and batch, fp32, AdamW and clip on both sides; forward, backward and
update are timed, loading and compiling are not. The two take turns, so that a change in the machine's load meets both.
Prints both medians, the ratio, and how far the losses of the first steps are apart (they must agree). Needs `make
.venv-oracle/ready`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the oracle's client

THREADS = 2
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])  # before jax counts cores; the oracle inherits it

import jax  # noqa: E402
import numpy as np  # noqa: E402
from oracle import client, golden  # noqa: E402

from opencoder_jax import sharding  # noqa: E402
from opencoder_jax.config import MeshConfig, replace  # noqa: E402
from opencoder_jax.hf import mapping as hf  # noqa: E402
from opencoder_jax.overrides import apply, load  # noqa: E402
from opencoder_jax.step import make_train_step  # noqa: E402

RATE = 1e-3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each side per round")
    parser.add_argument("--config", default="tiny")
    args, overrides = parser.parse_known_args()
    config = load(args.config)
    config = apply(config, dict(o.removeprefix("--").split("=", 1) for o in overrides))
    config = replace(config, mesh=MeshConfig(fsdp=1), schedule=replace(config.schedule, peak=RATE, warmup_steps=0))
    cfg, data = config.model, config.data
    weights = golden.weights(cfg, 0)
    draw = np.random.RandomState(0)
    records = draw.randint(0, cfg.vocab_size, (data.global_batch_size, data.seq_len + 1))
    tokens, targets = records[:, :-1], records[:, 1:]

    mesh = sharding.make_mesh(config.mesh, jax.devices("cpu")[:1])
    jax.set_mesh(mesh)
    ts = make_train_step(config, mesh)
    state = ts.init(jax.random.key(0))
    params = hf.from_hf(cfg, weights)
    state["params"] = jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), params, state["params"])
    batch = {
        "tokens": tokens,
        "targets": targets,
        "positions": np.broadcast_to(np.arange(data.seq_len), tokens.shape),
        "segment_ids": np.ones_like(tokens),
        "loss_mask": np.ones(tokens.shape, bool),
    }
    shapes = ts.abstract_batch
    batch = {k: jax.device_put(v.astype(shapes[k].dtype)[None], shapes[k].sharding) for k, v in batch.items()}
    step = ts.step.lower(ts.abstract_state, shapes).compile()
    print(f"{args.config}: batch {tokens.shape}, {THREADS} threads, jax {jax.__version__}", flush=True)

    ours, theirs, our_losses, their_losses = [], [], [], []
    mine = other = float("nan")
    with tempfile.TemporaryDirectory() as directory:
        golden.save_model(directory, cfg, weights)
        for turn in range(args.rounds):
            # One step to warm up on either side, not counted.
            arrays = {"tokens": tokens, "targets": targets, "mask": np.ones(tokens.shape, np.float32)}
            result = client.call(
                "time",
                directory,
                **arrays,
                **golden.adamw(config),
                rate=np.array(RATE),
                steps=args.steps + 1,
                threads=THREADS,
            )
            theirs += result["seconds"][1:].tolist()
            their_losses = their_losses or result["losses"].tolist()
            for i in range(args.steps + 1):
                start = time.perf_counter()
                state, metrics = step(state, batch)
                loss = float(metrics["loss"])
                if i:
                    ours.append(time.perf_counter() - start)
                our_losses.append(loss)
            mine, other = statistics.median(ours), statistics.median(theirs)
            print(f"round {turn + 1}: ours {mine:.3f} s, torch {other:.3f} s, ratio {other / mine:.2f}", flush=True)
    apart = np.abs(np.array(our_losses[: len(their_losses)]) / np.array(their_losses) - 1).max()
    size = tokens.size
    print(f"losses of the first {len(their_losses)} steps agree to {apart:.1e}")
    print(f"ours  median {mine:.4f} s = {size / mine:,.0f} tokens/s; fastest {min(ours):.4f} s")
    print(f"torch median {other:.4f} s = {size / other:,.0f} tokens/s; fastest {min(theirs):.4f} s")
    print(f"ratio of medians {other / mine:.2f}, of the fastest {min(theirs) / min(ours):.2f}")
    return 0 if apart < 1e-3 else 1


if __name__ == "__main__":
    sys.exit(main())
