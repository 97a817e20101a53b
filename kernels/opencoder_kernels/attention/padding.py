"""Brings lengths to what the kernels take."""

from __future__ import annotations

import jax.numpy as jnp

# Queries and keys are padded to this many; padded ones belong to segments of their own.
BLOCK = 128


def padded(kernel, q, k, v, *, q_segment_ids, kv_segment_ids, causal, scale):
    """kernel(q, k, v, q_segment_ids, kv_segment_ids, causal, scale) -> (out, lse), on lengths that are multiples of `BLOCK`.

    What is added is seen by nothing that is kept.
    """
    T, pad_q, pad_kv = q.shape[1], -q.shape[1] % BLOCK, -k.shape[1] % BLOCK
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
    out, lse = kernel(q, k, v, q_segment_ids, kv_segment_ids, causal, scale)
    return out[:, :T], lse[:, :T]
