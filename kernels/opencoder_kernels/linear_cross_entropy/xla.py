"""Any platform: the logits of some tokens at a time, in fp32 and for the full vocabulary."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from opencoder_kernels.linear_cross_entropy import chunked
from opencoder_kernels.varying import zeros

# fp32 logits (a backward pass holds them about twice) alive at once: 512 tokens x 96,640.
LOGIT_BYTES = 200_000_000
# d logits of a chunk, in hidden's dtype: 2,069 tokens x 96,640 in bf16.
SOFTMAX_GRADIENT_BYTES = 400_000_000


def _rows(h, w, targets, weights, z_loss, vocab_axis, gradient: bool):
    """Loss of [B, n] tokens and d loss / d logits: h [B, n, D] -> (total, z_sum, dlogits [B, n, V])."""
    wide = jnp.promote_types(h.dtype, jnp.float32)
    logits = jnp.einsum("bnd,dv->bnv", h, w, preferred_element_type=wide)
    V = logits.shape[-1]
    peak = logits.max(-1)
    if vocab_axis is not None:
        targets = targets - jax.lax.axis_index(vocab_axis) * V
        peak = jax.lax.pmax(peak, vocab_axis)
    p = jnp.exp(logits - peak[..., None])
    one_hot = targets[..., None] == jnp.arange(V)
    hit = jnp.where(one_hot, logits, 0).sum(-1)
    sums, scale = chunked.loss(peak, p.sum(-1), hit, weights, z_loss, vocab_axis)
    if not gradient:
        return *sums, None
    dlogits = p * scale[..., None] - jnp.where(one_hot, weights[..., None], 0)
    return *sums, dlogits.astype(h.dtype)


def _softmax(h, w, targets, weights, z_loss, vocab_axis, gradient: bool):
    B, n = targets.shape
    rows = chunked.chunk_length(B, n, LOGIT_BYTES // (4 * w.shape[1]))
    if rows == n:
        return _rows(h, w, targets, weights, z_loss, vocab_axis, gradient)

    pad = -n % rows
    arrays = [jnp.pad(x, [(0, 0), (0, pad)] + [(0, 0)] * (x.ndim - 2)) for x in (h, targets, weights)]

    def some(dlogits, start):
        h_rows, target_rows, weight_rows = (jax.lax.dynamic_slice_in_dim(x, start, rows, 1) for x in arrays)
        total, z_sum, part = _rows(h_rows, w, target_rows, weight_rows, z_loss, vocab_axis, gradient)
        if part is not None:
            dlogits = jax.lax.dynamic_update_slice_in_dim(dlogits, part, start, 1)
        return dlogits, (total, z_sum)

    empty = zeros((B, n + pad, w.shape[1] if gradient else 0), h.dtype, w, *arrays)
    dlogits, (totals, z_sums) = jax.lax.scan(some, empty, jnp.arange(0, n + pad, rows))
    return totals.sum(), z_sums.sum(), dlogits[:, :n] if gradient else None


def linear_cross_entropy(*args: Any) -> tuple[jax.Array, jax.Array]:
    """See `opencoder_kernels.linear_cross_entropy`."""
    return chunked.linear_cross_entropy(chunked.Softmax(_softmax, SOFTMAX_GRADIENT_BYTES), *args)
