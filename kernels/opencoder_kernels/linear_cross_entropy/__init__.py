"""Output projection and cross-entropy in one: hidden states and output matrix in, summed loss out.

Shapes: B batch, T time, D model, V vocabulary.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from opencoder_kernels.arrays import axis_size, check_floats, check_integers
from opencoder_kernels.dispatch import Backend, choose
from opencoder_kernels.linear_cross_entropy import mosaic_gpu, reference, tpu, xla

BACKENDS = {
    "reference": Backend(reference.linear_cross_entropy),
    "xla": Backend(xla.linear_cross_entropy),
    "mosaic_gpu": Backend(mosaic_gpu.linear_cross_entropy, mosaic_gpu.unsupported, one_device=True),
    "tpu": Backend(tpu.linear_cross_entropy, tpu.unsupported, one_device=True),
}


def linear_cross_entropy(
    hidden: jax.Array,
    w_out: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    *,
    z_loss: float = 0.0,
    vocab_axis: str | None = None,
    implementation: str = "auto",
) -> tuple[jax.Array, jax.Array]:
    """sum_t weights_t (lse_t - logit_t[target_t] + z_loss lse_t^2), a sum over tokens and never a mean.

    Args:
      hidden: [B, T, D], any float dtype.
      w_out: [D, V]; cast to hidden's dtype for the matmuls, which accumulate in fp32. Its gradient is summed over
        chunks, and over devices, in its own dtype (see `chunked.py`): an fp32 w_out under bf16 hidden states has sums
        in fp32, at the price of twice the memory for the gradient and of a bf16 copy of w_out.
      targets: int32 [B, T] in [0, V).
      weights: [B, T], bool or float: 0 leaves a token out.
      z_loss: coefficient of the squared log-partition (PaLM section 5); 0 leaves it out.
      vocab_axis: inside shard_map, the mesh axis over which V is sharded; targets count over the whole vocabulary.

    Returns:
      (total, z_sum), fp32 scalars. total holds the z-loss; z_sum, its share, is for reports and has no gradient.

    Raises:
      ValueError: shapes, dtypes, vocab_axis or an implementation that do not fit.
    """
    if (
        hidden.ndim != 3
        or targets.shape != hidden.shape[:2]
        or weights.shape != targets.shape
        or w_out.ndim != 2
        or w_out.shape[0] != hidden.shape[2]
    ):
        raise ValueError(
            "linear_cross_entropy: hidden [B,T,D], w_out [D,V], targets and weights [B,T]; "
            f"got {hidden.shape}, {w_out.shape}, {targets.shape}, {weights.shape}"
        )
    check_floats("linear_cross_entropy", hidden=hidden, w_out=w_out)
    check_integers("linear_cross_entropy", targets=targets)
    if vocab_axis is not None:
        axis_size("linear_cross_entropy", "vocab_axis", vocab_axis)
    wide = jnp.promote_types(hidden.dtype, jnp.float32)
    args = (hidden, w_out, targets, weights.astype(wide), z_loss, vocab_axis)
    return BACKENDS[choose("linear_cross_entropy", BACKENDS, implementation, *args)].run(*args)
