"""1p5b_anneal: OpenCoder-1.5B annealing, 100 B tokens, learning rate 3e-4 -> 1e-5 exponentially.

Hardware and expectations as `1p5b`: memory, tokens/s and loss not measured.
Command: python -m opencoder_jax.train --config=1p5b_anneal --init_from=runs/1p5b --run_dir=runs/1p5b_anneal

From the paper: 100 B tokens (23,841 steps, the last published anneal_iter; the released base is step 23,000), the
decay and its end, and the shares of the mixture (table 3, v3: RefineCode 83.94, algorithmic corpus 12.44, synthetic
snippets 2.71, textbooks 0.91). Ours: the optimizer's settings; the moments are inherited from pre-training.
"""

from opencoder_jax.config import RunConfig, ScheduleConfig, SourceConfig, replace
from opencoder_jax.overrides import load

MIXTURE = (
    SourceConfig("shards/refinecode", 0.8394),
    SourceConfig("shards/algorithmic", 0.1244),
    SourceConfig("shards/synthetic_snippets", 0.0271),
    SourceConfig("shards/synthetic_textbooks", 0.0091),
)


def config() -> RunConfig:
    base = load("1p5b")
    steps = 23_841
    return replace(
        base,
        name="1p5b_anneal",
        data=replace(base.data, sources=MIXTURE),
        schedule=ScheduleConfig(peak=3e-4, final=1e-5, warmup_steps=0, decay_steps=steps),
        num_steps=steps,
        init_from="runs/1p5b",
    )
