"""SwiGLU as it is written down."""

import jax


def swiglu(x, w_gate, w_up):
    """See `opencoder_kernels.swiglu`."""
    return jax.nn.silu(x @ w_gate) * (x @ w_up)
