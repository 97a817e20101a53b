"""small_anneal: annealing of `small`, a tenth of its steps, learning rate to 1e-5.

Hardware: one GPU of 24 GB or more. Memory, tokens/s and loss: not measured.
Command: python -m opencoder_jax.train --config=small_anneal --data.sources=A:0.84,B:0.16 --run_dir=runs/small_anneal

Every figure is ours.
"""

from opencoder_jax.config import RunConfig, ScheduleConfig, replace
from opencoder_jax.overrides import load


def config() -> RunConfig:
    base = load("small")
    steps = 400
    return replace(
        base,
        name="small_anneal",
        schedule=ScheduleConfig(peak=base.schedule.peak, warmup_steps=0, decay_steps=steps),
        num_steps=steps,
        init_from="runs/small",
    )
