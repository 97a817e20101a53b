"""Dense logits of all tokens: the oracle."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def linear_cross_entropy(
    hidden: jax.Array, w_out: jax.Array, targets: jax.Array, weights: jax.Array, z_loss: float, vocab_axis: str | None
) -> tuple[jax.Array, jax.Array]:
    """See `opencoder_kernels.linear_cross_entropy`."""
    if vocab_axis is not None:
        w_out = jax.lax.all_gather(w_out, vocab_axis, axis=1, tiled=True)
    w_out = w_out.astype(hidden.dtype)
    wide = jnp.promote_types(hidden.dtype, jnp.float32)
    logits = jnp.einsum("btd,dv->btv", hidden, w_out, preferred_element_type=wide)
    lse = jax.nn.logsumexp(logits, axis=-1)
    hit = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    z_sum = z_loss * (weights * lse**2).sum()
    sums = (weights * (lse - hit)).sum() + z_sum, jax.lax.stop_gradient(z_sum)
    # Equal on every device of the axis, which JAX cannot know of gathered values.
    return sums if vocab_axis is None else jax.lax.pmean(sums, vocab_axis)
