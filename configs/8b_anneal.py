"""8b_anneal: OpenCoder-8B annealing, 100 B tokens at T 8,192, learning rate 3e-4 -> 1e-5 exponentially.

Hardware and expectations as `8b`: memory, tokens/s and loss not measured.
Command: python -m opencoder_jax.train --config=8b_anneal --init_from=runs/8b --run_dir=runs/8b_anneal

From the paper: 100 B tokens (11,920 steps, the last published anneal_iter; the released base is step 10,000), decay,
and mixture as in `1p5b_anneal`. Ours: the optimizer's settings.
"""

from opencoder_jax.config import RunConfig, ScheduleConfig, replace
from opencoder_jax.overrides import load


def config() -> RunConfig:
    base = load("8b")
    steps = 11_920
    return replace(
        base,
        name="8b_anneal",
        data=replace(base.data, sources=load("1p5b_anneal").data.sources),
        schedule=ScheduleConfig(peak=3e-4, final=1e-5, warmup_steps=0, decay_steps=steps),
        num_steps=steps,
        init_from="runs/8b",
    )
