"""Operations whose gradients are summed in fp32 at least, whatever the compute dtype.

Under bf16 compute a plain einsum or gather sums the gradient of a weight in bf16: over the tokens of a device, and again
over hundreds of devices, where most of what is added is lost (docs/experiments/2026-11-21-gradient-precision.md).
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

Array = jax.Array


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def project(equation: str, x: Array, w: Array) -> Array:
    """einsum(equation, x, w) in x's dtype; x is an activation, w a weight in the parameter dtype.

    The gradient of w leaves its matmul in fp32 at least, so that devices add their parts of it in fp32 and not in the
    compute dtype.
    """
    return jnp.einsum(equation, x, w.astype(x.dtype))


def _project_forward(equation: str, x: Array, w: Array):
    w_cast = w.astype(x.dtype)  # saved as gathered: what recomputes this and the gradient of x share one gather
    return jnp.einsum(equation, x, w_cast), (x, w_cast, jnp.zeros((), w.dtype))


def _project_backward(equation: str, saved: tuple[Array, Array, Array], d_out: Array):
    x, w, like = saved
    inputs, out = equation.split("->")
    left, right = inputs.split(",")
    dx = jnp.einsum(f"{out},{right}->{left}", d_out, w)
    wide = jnp.promote_types(like.dtype, jnp.float32)
    dw = jnp.einsum(f"{left},{out}->{right}", x, d_out, preferred_element_type=wide)
    return dx, dw.astype(like.dtype)


project.defvjp(_project_forward, _project_backward)


@jax.custom_vjp
def look_up(table: Array, tokens: Array) -> Array:
    """Rows of table [V, D] for tokens int32 [B, T] -> [B, T, D]; zeros for tokens outside the table.

    The gradient of a row, for a common token a sum over thousands, is added in fp32 at least.
    """
    return table.at[tokens].get(mode="fill", fill_value=0, wrap_negative_indices=False)


def _look_up_forward(table: Array, tokens: Array):
    return look_up(table, tokens), (table, tokens)


def _look_up_backward(saved: tuple[Array, Array], d_rows: Array):
    table, tokens = saved
    d_rows = d_rows.astype(jnp.promote_types(table.dtype, jnp.float32))
    zeros = jnp.zeros_like(table, d_rows.dtype)
    return zeros.at[tokens].add(d_rows, mode="drop", wrap_negative_indices=False).astype(table.dtype), None


look_up.defvjp(_look_up_forward, _look_up_backward)
