"""Chunked over tokens with the full vocabulary per chunk; gradients are formed in the forward pass.

The logits of a chunk live only while it is worked on: [B, chunk, V]. The loss is a sum, so its gradient is known up
to one scalar when it is computed; keeping d hidden and d w_out instead of recomputing logits saves one of four
matrix products (the form of Liger Kernel's fused linear cross-entropy, arXiv 2410.10989).
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from opencoder_kernels.varying import like, zeros

# Tokens (B x chunk) whose logits are alive at once: 1,024 x 96,640 fp32 are 400 MB, and matrix products stay large.
CHUNK_TOKENS = 1_024


def chunk_length(B: int, T: int) -> int:
    """Time steps per chunk: B x length is about CHUNK_TOKENS, and the last chunk is about as full as the others."""
    chunks = -(-T // max(1, CHUNK_TOKENS // B))
    return -(-T // chunks)


def _chunks(x, n: int):
    """[B, T, ...] -> [chunks, B, n, ...]; what is added at the end has weight 0."""
    B, T = x.shape[:2]
    x = jnp.pad(x, [(0, 0), (0, -T % n)] + [(0, 0)] * (x.ndim - 2))
    return jnp.moveaxis(x.reshape(B, -1, n, *x.shape[2:]), 1, 0)


def _chunk_loss(h, w_out, targets, weights, z_loss, vocab_axis):
    """Loss of one chunk and d loss / d logits: h [B, n, D] -> (total, z_sum, dlogits [B, n, V])."""
    wide = jnp.promote_types(h.dtype, jnp.float32)
    logits = jnp.einsum("bnd,dv->bnv", h, w_out, preferred_element_type=wide)
    V = logits.shape[-1]
    peak = logits.max(-1)
    if vocab_axis is not None:
        targets = targets - jax.lax.axis_index(vocab_axis) * V
        peak = jax.lax.pmax(peak, vocab_axis)
    p = jnp.exp(logits - peak[..., None])
    total = p.sum(-1)
    one_hot = targets[..., None] == jnp.arange(V)
    hit = jnp.where(one_hot, logits, 0).sum(-1)
    if vocab_axis is not None:
        total, hit = jax.lax.psum((total, hit), vocab_axis)
    lse = peak + jnp.log(total)
    z_sum = z_loss * (weights * lse**2).sum()
    softmax_scale = weights * (1 + 2 * z_loss * lse) / total
    dlogits = p * softmax_scale[..., None] - jnp.where(one_hot, weights[..., None], 0)
    return (weights * (lse - hit)).sum() + z_sum, z_sum, dlogits


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def linear_cross_entropy(hidden, w_out, targets, weights, z_loss, vocab_axis):
    n = chunk_length(*targets.shape)
    w_out = w_out.astype(hidden.dtype)

    def body(_, chunk):
        total, z_sum, _ = _chunk_loss(chunk[0], w_out, chunk[1], chunk[2], z_loss, vocab_axis)
        return None, (total, z_sum)

    _, sums = jax.lax.scan(body, None, tuple(_chunks(x, n) for x in (hidden, targets, weights)))
    return sums[0].sum(), sums[1].sum()


def _forward(hidden, w_out, targets, weights, z_loss, vocab_axis):
    n = chunk_length(*targets.shape)
    w = w_out.astype(hidden.dtype)

    def body(dw, chunk):
        h, targets, weights = chunk
        total, z_sum, dlogits = _chunk_loss(h, w, targets, weights, z_loss, vocab_axis)
        dlogits = dlogits.astype(h.dtype)
        dw = dw + jnp.einsum("bnd,bnv->dv", h, dlogits, preferred_element_type=dw.dtype)
        dh = jnp.einsum("bnv,dv->bnd", dlogits, w, preferred_element_type=dw.dtype)
        if vocab_axis is not None:
            dh = jax.lax.psum(dh, vocab_axis)
        return dw, (total, z_sum, dh.astype(h.dtype))

    chunks = tuple(_chunks(x, n) for x in (hidden, targets, weights))
    start = zeros(w_out.shape, jnp.promote_types(w.dtype, jnp.float32), hidden, w_out, targets, weights)
    dw, (totals, z_sums, dh) = jax.lax.scan(body, start, chunks)
    dh = jnp.moveaxis(dh, 0, 1).reshape(hidden.shape[0], -1, hidden.shape[2])[:, : hidden.shape[1]]
    dw = like(dw, w_out)
    return (totals.sum(), z_sums.sum()), (dh, dw.astype(w_out.dtype))


def _backward(z_loss, vocab_axis, saved, cotangents):
    dh, dw = saved
    g = cotangents[0]
    return (dh * g).astype(dh.dtype), (dw * g).astype(dw.dtype), None, None


linear_cross_entropy.defvjp(_forward, _backward)
