"""Attention on Hopper GPUs: what the kernels ask of their arguments, and the gradient that joins them."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from opencoder_kernels.attention import mosaic_gpu_backward, mosaic_gpu_forward
from opencoder_kernels.hopper import refuses_device
from opencoder_kernels.varying import like

HEAD_DIMS = (64, 128, 160)
# Queries and keys are padded to this many; padded ones belong to segments of their own.
BLOCK = 128


def refuses(q, k, v, *, q_positions, kv_positions, causal, **_) -> str | None:
    if q.dtype != jnp.bfloat16:
        return f"q, k, v are {q.dtype}; it takes bfloat16; cast them, or use 'xla'"
    if q.shape[3] not in HEAD_DIMS:
        return f"head dim {q.shape[3]} of q {q.shape}; it has {', '.join(map(str, HEAD_DIMS))}; use 'xla'"
    if q_positions is not None or kv_positions is not None:
        return "q_positions and kv_positions are given; it counts from 0; use 'xla'"
    if causal and q.shape[1] != k.shape[1]:
        return f"causal with {q.shape[1]} queries and {k.shape[1]} keys; it wants as many of each; use 'xla'"
    return refuses_device()


def padded(q, k, v, q_segment_ids, kv_segment_ids, causal):
    """The arguments with lengths brought to multiples of `BLOCK`; what is added is seen by nothing that is kept."""
    pad_q, pad_kv = -q.shape[1] % BLOCK, -k.shape[1] % BLOCK
    if pad_q or pad_kv:
        if q_segment_ids is None and not causal:
            q_segment_ids = jnp.zeros(q.shape[:2], jnp.int32)
            kv_segment_ids = jnp.zeros(k.shape[:2], jnp.int32)
        rows = ((0, 0), (0, pad_q), (0, 0), (0, 0))
        keys = ((0, 0), (0, pad_kv), (0, 0), (0, 0))
        q, k, v = jnp.pad(q, rows), jnp.pad(k, keys), jnp.pad(v, keys)
        if q_segment_ids is not None:
            q_segment_ids = jnp.pad(q_segment_ids, rows[:2], constant_values=2**30)
            kv_segment_ids = jnp.pad(kv_segment_ids, keys[:2], constant_values=2**30 + 1)
    if q_segment_ids is not None:
        q_segment_ids, kv_segment_ids = q_segment_ids.astype(jnp.int32), kv_segment_ids.astype(jnp.int32)
    return q, k, v, q_segment_ids, kv_segment_ids


def attention(q, k, v, *, q_segment_ids, kv_segment_ids, q_positions, kv_positions, causal, scale):
    """See `opencoder_kernels.attention`."""
    del q_positions, kv_positions
    T = q.shape[1]
    q, k, v, q_segment_ids, kv_segment_ids = padded(q, k, v, q_segment_ids, kv_segment_ids, causal)
    out, lse = _attention(q, k, v, q_segment_ids, kv_segment_ids, causal, scale)
    return out[:, :T], lse[:, :T]


@partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _attention(q, k, v, q_segments, kv_segments, causal, scale):
    out, lse = mosaic_gpu_forward.forward(q, k, v, q_segments, kv_segments, causal=causal, scale=scale)
    return out, lse.transpose(0, 2, 1)


def _forward(q, k, v, q_segments, kv_segments, causal, scale):
    out, lse = mosaic_gpu_forward.forward(q, k, v, q_segments, kv_segments, causal=causal, scale=scale)
    return (out, lse.transpose(0, 2, 1)), (q, k, v, q_segments, kv_segments, out, lse)


def _backward(causal, scale, saved, cotangents):
    q, k, v, q_segments, kv_segments, out, lse = saved
    d_out, d_lse = cotangents
    delta = (out.astype(jnp.float32) * d_out.astype(jnp.float32)).sum(-1) - d_lse
    args = (q, k, v, d_out, lse * mosaic_gpu_forward.LOG2E, delta.transpose(0, 2, 1), q_segments, kv_segments)
    dk, dv = mosaic_gpu_backward.d_keys_values(*args, causal=causal, scale=scale)
    dq = mosaic_gpu_backward.d_queries(*args, causal=causal, scale=scale)
    return like(dq, q), like(dk, k), like(dv, v), None, None


_attention.defvjp(_forward, _backward)
