"""SwiGLU as it is written down."""

from __future__ import annotations

import jax


def swiglu(x: jax.Array, w_gate: jax.Array, w_up: jax.Array) -> jax.Array:
    """See `opencoder_kernels.swiglu`."""
    return jax.nn.silu(x @ w_gate) * (x @ w_up)
