"""8b: OpenCoder-8B from step 130,000 on, T 8,192: 170,000 steps, 1.43 T tokens.

Hardware: 512 GPUs of 80 GB, 2 records a GPU and step. Memory, tokens/s and loss: not measured (published: see 8b_4k).
Command: python -m opencoder_jax.train --config=8b --init_from=runs/8b_4k --data.sources=SHARDS:1 --run_dir=runs/8b

From the paper: T 8,192, batch 1,024 (8,388,608 tokens a step), constant 3e-4; the last published checkpoint is step
300,000 of both phases together. Ours: the optimizer's settings, carried over with its moments from `8b_4k`.
"""

from opencoder_jax.config import RunConfig, ScheduleConfig, replace
from opencoder_jax.overrides import load


def config() -> RunConfig:
    base = load("8b_4k")
    return replace(
        base,
        name="8b",
        data=replace(base.data, seq_len=8_192, global_batch_size=1_024),
        schedule=ScheduleConfig(peak=3e-4, final=1e-5, warmup_steps=0),
        num_steps=170_000,
        init_from="runs/8b_4k",
    )
