"""What a gradient of attention takes from the forward pass; the names are for rematerialisation policies."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

from opencoder_kernels.varying import like

NAME = "attention"


def with_gradient(run: Callable[..., Any], gradients: Callable[..., Any]) -> Callable[..., Any]:
    """`run` with a gradient that saves its arguments, out and log-sum-exp, and from these computes the probabilities again.

    Args:
      run: (static, q, k, v, *masks) -> (out [B, T, N, H], lse [B, T, N], fp32 or wider). static is what is known when a
        program is built, hashable; masks are arrays or None and have no gradient.
      gradients: (static, q, k, v, d_out, lse, delta, *masks) -> (dq, dk, dv) of any float dtype; see `delta`.
    """

    @partial(jax.custom_vjp, nondiff_argnums=(0,))
    def attention(static, q, k, v, *masks):
        return run(static, q, k, v, *masks)

    def forward(static, q, k, v, *masks):
        out, lse = named(*run(static, q, k, v, *masks))
        return (out, lse), (q, k, v, out, lse, masks)

    def backward(static, saved, cotangents):
        q, k, v, out, lse, masks = saved
        d_out, d_lse = cotangents
        found = gradients(static, q, k, v, d_out, lse, delta(out, d_out, d_lse), *masks)
        return *(like(d.astype(x.dtype), x) for d, x in zip(found, (q, k, v), strict=True)), *(None for _ in masks)

    attention.defvjp(forward, backward)
    return attention


def named(out: jax.Array, lse: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(out, lse) under `NAME`, for a custom gradient that saves them: kept, the forward pass is not run again.

    lse adds 4 bytes to the 2 H of each query and head.
    """
    return checkpoint_name(out, NAME), checkpoint_name(lse, NAME)


def named_result(out: jax.Array, lse: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The result alone under `NAME`: what it was computed from is computed again."""
    return checkpoint_name(out, NAME), lse


def delta(out: jax.Array, d_out: jax.Array, d_lse: jax.Array) -> jax.Array:
    """What the gradient of a query's scores takes of all its keys: out . d out - d lse, [B, T, N] like d_lse (fp32 or wider)."""
    return (out.astype(d_lse.dtype) * d_out.astype(d_lse.dtype)).sum(-1) - d_lse
