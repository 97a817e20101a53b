"""Brings lengths to what the kernels take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# Queries and keys are padded to this many; padded ones belong to segments of their own.
BLOCK = 128
# Log-sum-exp of a padded query: its probabilities come out as 0.
UNSEEING = 1e30


def padded(
    kernel: Callable[..., Any],
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    q_segment_ids: jax.Array | None,
    kv_segment_ids: jax.Array | None,
    causal: bool,
    scale: float,
) -> tuple[jax.Array, jax.Array]:
    """kernel((causal, scale), q, k, v, q_segment_ids, kv_segment_ids) -> (out, lse), on lengths that are multiples of `BLOCK`.

    What is added is seen by nothing that is kept.
    """
    T = q.shape[1]
    q_segments, kv_segments = _segments(q, k, q_segment_ids, kv_segment_ids, causal)
    out, lse = kernel((causal, scale), _up(q), _up(k), _up(v), q_segments, kv_segments)
    return out[:, :T], lse[:, :T]


def padded_gradients(
    kernel: Callable[..., Any],
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    d_out: jax.Array,
    lse: jax.Array,
    delta: jax.Array,
    *,
    q_segment_ids: jax.Array | None,
    kv_segment_ids: jax.Array | None,
    causal: bool,
    scale: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """As `padded`, for kernel((causal, scale), q, k, v, d_out, lse, delta, q_segment_ids, ...) -> (dq, dk, dv).

    See `xla.gradients`.
    """
    T, S = q.shape[1], k.shape[1]
    segments = _segments(q, k, q_segment_ids, kv_segment_ids, causal)
    rows = _up(q), _up(k), _up(v), _up(d_out), _up(lse, UNSEEING), _up(delta)
    dq, dk, dv = kernel((causal, scale), *rows, *segments)
    return dq[:, :T], dk[:, :S], dv[:, :S]


def _up(x, value: float = 0):
    """x with dim 1 brought to a multiple of `BLOCK`."""
    extra = -x.shape[1] % BLOCK
    return jnp.pad(x, ((0, 0), (0, extra), *((0, 0),) * (x.ndim - 2)), constant_values=value) if extra else x


def _segments(q, k, q_segments, kv_segments, causal):
    """Segment ids for the padded lengths, int32; None where no query that is kept could see what is added."""
    if q_segments is None:
        if causal or not (q.shape[1] % BLOCK or k.shape[1] % BLOCK):
            return None, None
        q_segments, kv_segments = jnp.zeros(q.shape[:2], jnp.int32), jnp.zeros(k.shape[:2], jnp.int32)
    return _up(q_segments.astype(jnp.int32), 2**30), _up(kv_segments.astype(jnp.int32), 2**30 + 1)
