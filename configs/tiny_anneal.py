"""tiny_anneal: annealing of `tiny`: the learning rate falls exponentially to 1e-5 on another mixture (`make demo`).

Hardware: 2 CPU cores. Needs `--init_from=RUN` of a finished `tiny` run and `--data.sources=...`.
"""

from opencoder_jax.config import RunConfig, ScheduleConfig, replace
from opencoder_jax.overrides import load


def config() -> RunConfig:
    base = load("tiny")
    steps = 330
    return replace(
        base,
        name="tiny_anneal",
        schedule=ScheduleConfig(peak=base.schedule.peak, warmup_steps=0, decay_steps=steps),
        num_steps=steps,
        init_from="runs/tiny",
    )
