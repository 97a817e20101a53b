"""SwiGLU as it is written down."""

import jax


def swiglu(x, w_gate, w_up):
    return jax.nn.silu(x @ w_gate) * (x @ w_up)
