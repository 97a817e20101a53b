"""Attention on Hopper GPUs: what the kernels ask of their arguments, and the gradient that joins them.

The kernels have the log-sum-exp as [B, N, T], a row of queries after the other; outside it is [B, T, N].
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from opencoder_kernels.attention import mosaic_gpu_backward, mosaic_gpu_forward, padding, residuals
from opencoder_kernels.hopper import unsupported_device

HEAD_DIMS = (64, 128, 160)


def unsupported(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    q_positions: jax.Array | None,
    kv_positions: jax.Array | None,
    causal: bool,
    **_: Any,
) -> str | None:
    if q.dtype != jnp.bfloat16:
        return f"q, k, v are {q.dtype}; it takes bfloat16; cast them, or use 'xla'"
    if q.shape[3] not in HEAD_DIMS:
        return f"head dim {q.shape[3]} of q {q.shape}; it has {', '.join(map(str, HEAD_DIMS))}; use 'xla'"
    if q_positions is not None or kv_positions is not None:
        return "q_positions and kv_positions are given; it counts from 0; use 'xla'"
    if causal and q.shape[1] != k.shape[1]:
        return f"causal with {q.shape[1]} queries and {k.shape[1]} keys; it wants as many of each; use 'xla'"
    return unsupported_device()


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    q_positions: jax.Array | None,
    kv_positions: jax.Array | None,
    **masks: Any,
) -> tuple[jax.Array, jax.Array]:
    """See `opencoder_kernels.attention`."""
    del q_positions, kv_positions
    return padding.padded(_attention, q, k, v, **masks)


def _run(static, q, k, v, q_segments, kv_segments):
    causal, scale = static
    out, lse = mosaic_gpu_forward.forward(q, k, v, q_segments, kv_segments, causal=causal, scale=scale)
    return out, lse.transpose(0, 2, 1)


def gradients(
    q: jax.Array, k: jax.Array, v: jax.Array, d_out: jax.Array, lse: jax.Array, delta: jax.Array, **masks: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """See `xla.gradients`; the results are bfloat16."""
    return padding.padded_gradients(_gradients, q, k, v, d_out, lse, delta, **masks)


def _gradients(static, q, k, v, d_out, lse, delta, q_segments, kv_segments):
    causal, scale = static
    lse2, delta = (lse * mosaic_gpu_forward.LOG2E).transpose(0, 2, 1), delta.transpose(0, 2, 1)
    args = (q, k, v, d_out, lse2, delta, q_segments, kv_segments)
    dk, dv = mosaic_gpu_backward.d_keys_values(*args, causal=causal, scale=scale)
    return mosaic_gpu_backward.d_queries(*args, causal=causal, scale=scale), dk, dv


_attention = residuals.with_gradient(_run, _gradients)
