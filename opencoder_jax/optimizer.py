"""AdamW and the learning-rate schedules, as optax transformations."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from opencoder_jax.config import OptimizerConfig, RunConfig, ScheduleConfig


def learning_rate(config: ScheduleConfig, num_steps: int) -> optax.Schedule:
    """Learning rate of the update that step s (from 0) makes.

    wsd (paper section 3.2; MiniCPM, arXiv 2404.06395): linear from 0 over warmup_steps, constant at peak, and over the
    last decay_steps exponential to final. cosine: the same warm-up, then half a cosine to final.

    Raises: ValueError for an unknown kind or for steps that do not fit into num_steps.
    """
    c = config
    if c.kind not in ("wsd", "cosine"):
        raise ValueError(f"schedule.kind={c.kind!r}: choose wsd or cosine")
    if c.warmup_steps + c.decay_steps > num_steps:
        raise ValueError(
            f"schedule: warmup_steps={c.warmup_steps} + decay_steps={c.decay_steps} exceed num_steps={num_steps}"
        )
    warmup = optax.linear_schedule(c.peak / max(c.warmup_steps, 1), c.peak, max(c.warmup_steps - 1, 1))
    if c.kind == "cosine":
        rest = optax.cosine_decay_schedule(c.peak, max(num_steps - c.warmup_steps, 1), alpha=c.final / c.peak)
        return optax.join_schedules([warmup, rest], [c.warmup_steps])
    parts, boundaries = [warmup, optax.constant_schedule(c.peak)], [c.warmup_steps]
    if c.decay_steps:
        parts.append(optax.exponential_decay(c.peak, c.decay_steps, c.final / c.peak, end_value=c.final))
        boundaries.append(num_steps - c.decay_steps)
    return optax.join_schedules(parts, boundaries)


def make_optimizer(config: RunConfig) -> optax.GradientTransformation:
    """Global-norm clip, Adam moments, decay of matrices only, learning rate left to the caller (scale by -lr).

    The rate is applied outside so that the state holds no schedule: annealing inherits the moments of another run.
    """
    o: OptimizerConfig = config.optimizer
    return optax.chain(
        optax.clip_by_global_norm(o.clip_norm) if o.clip_norm else optax.identity(),
        optax.scale_by_adam(o.b1, o.b2, o.eps, mu_dtype=jnp.dtype(o.moment_dtype)),
        optax.add_decayed_weights(o.weight_decay, mask=decayed),
    )


def decayed(params: nnx.State) -> Any:
    """True for matrices and embeddings, False for norm scales."""
    return jax.tree.map(lambda weight: "norm" not in weight.axes, params, is_leaf=lambda x: isinstance(x, nnx.Variable))
