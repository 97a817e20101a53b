"""Dense attention in the precision of its inputs, at least fp32: the oracle of every other backend."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from opencoder_kernels.attention import residuals

# A masked score: finite, so that a row without any visible key gives zeros and not NaN (see `where` below).
MASKED = -1e30


def visible(
    q_positions: jax.Array,
    kv_positions: jax.Array,
    q_segment_ids: jax.Array | None,
    kv_segment_ids: jax.Array | None,
    causal: bool,
) -> jax.Array | None:
    """Which key each query may see, bool [B or 1, T, S]; None when all of them."""
    mask = None
    if causal:
        mask = (q_positions[:, None] >= kv_positions[None, :])[None]
    if q_segment_ids is not None and kv_segment_ids is not None:
        same = q_segment_ids[:, :, None] == kv_segment_ids[:, None, :]
        mask = same if mask is None else mask & same
    return mask


def scores(q: jax.Array, k: jax.Array, scale: float, mask: jax.Array | None) -> jax.Array:
    """fp32 scores [B, K, G, T, S] of grouped queries q [B, T, K, G, H] against k [B, S, K, H], masked."""
    s = jnp.einsum("btkgh,bskh->bkgts", q, k, preferred_element_type=jnp.promote_types(q.dtype, jnp.float32)) * scale
    return s if mask is None else jnp.where(mask[:, None, None], s, MASKED)


def attend(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, scale: float
) -> tuple[jax.Array, jax.Array]:
    """Attention of all queries at once.

    Args: q [B, T, N, H]; k, v [B, S, K, H]; mask bool [B or 1, T, S] or None.
    Returns: out [B, T, N, H] in q's dtype, log-sum-exp [B, T, N] (fp32 or wider; -inf-like where nothing is visible).
    """
    B, T, N, H = q.shape
    K = k.shape[2]
    s = scores(q.reshape(B, T, K, N // K, H), k, scale, mask)
    peak = jax.lax.stop_gradient(s.max(-1, keepdims=True))
    weights = jnp.exp(s - peak)
    if mask is not None:
        weights = jnp.where(mask[:, None, None], weights, 0.0)
    total = weights.sum(-1, keepdims=True)
    weights = weights / jnp.maximum(total, jnp.finfo(s.dtype).tiny)
    out = jnp.einsum("bkgts,bskh->btkgh", weights.astype(v.dtype), v, preferred_element_type=s.dtype)
    lse = (peak + jnp.log(jnp.maximum(total, jnp.finfo(s.dtype).tiny)))[..., 0]
    return out.reshape(B, T, N, v.shape[-1]).astype(q.dtype), lse.transpose(0, 3, 1, 2).reshape(B, T, N)


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    q_segment_ids: jax.Array | None,
    kv_segment_ids: jax.Array | None,
    q_positions: jax.Array | None,
    kv_positions: jax.Array | None,
    causal: bool,
    scale: float,
) -> tuple[jax.Array, jax.Array]:
    """See `opencoder_kernels.attention`."""
    q_positions = jnp.arange(q.shape[1]) if q_positions is None else q_positions
    kv_positions = jnp.arange(k.shape[1]) if kv_positions is None else kv_positions
    mask = visible(q_positions, kv_positions, q_segment_ids, kv_segment_ids, causal)
    return residuals.named_result(*attend(q, k, v, mask, scale))
