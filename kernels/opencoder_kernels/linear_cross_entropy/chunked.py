"""What the backends share: the walk over chunks of tokens, and the matmuls that form the gradient.

A backend gives the loss of a chunk and d loss / d logits, in the dtype of the hidden states, for the full vocabulary.
Gradients are formed in the forward pass: the loss is a sum, so they are known up to one scalar when it is computed, and
keeping them instead of recomputing logits saves one of four matmuls (the form of Liger Kernel's fused linear
cross-entropy, arXiv 2410.10989). These matmuls are plain and XLA's.

The sum of the gradient of w_out over chunks costs a pass over [D, V] per chunk, so chunks are as large as the memory
for d logits allows. It is kept in the dtype of w_out itself, which is where it has to end, as long as chunks are few
enough (`MAX_ROUNDED`) for the extra rounding of each; beyond that in fp32, at the price of an fp32 [D, V].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from opencoder_kernels.varying import like, zeros

# Chunks whose gradients of w_out are summed in w_out's own dtype.
MAX_ROUNDED = 4
# Rows of a chunk come in whole blocks of the kernels, and of the tiles of a matmul.
ROWS = 128


@dataclass(frozen=True)
class Softmax:
    """A backend's part.

    Attributes:
      run: (h [B, n, D], w [D, V], targets [B, n], weights [B, n], z_loss, vocab_axis, gradient) -> (total, z_sum,
        d logits [B, n, V] in h's dtype, or None without gradient).
      gradient_bytes: memory for d logits of a chunk.
    """

    run: Callable[..., Any]
    gradient_bytes: int


def chunk_length(B: int, T: int, tokens: int) -> int:
    """Time steps per chunk: B x length is at most about `tokens`, and a multiple of ROWS if there is more than one."""
    chunks = -(-B * T // max(tokens, 1))
    if chunks == 1:
        return T
    length, step = -(-T // chunks), ROWS // math.gcd(B, ROWS)
    return min(T, -(-length // step) * step)


def _split(softmax: Softmax, hidden, w_out, targets, weights):
    """Arguments as [chunks, B, n, ...]; what is added at the end has weight 0."""
    B, T = targets.shape
    n = chunk_length(B, T, softmax.gradient_bytes // (w_out.shape[1] * hidden.dtype.itemsize))

    def split(x):
        x = jnp.pad(x, [(0, 0), (0, -T % n)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(B, -1, n, *x.shape[2:]), 1, 0)

    return tuple(map(split, (hidden, targets, weights)))


@partial(jax.custom_vjp, nondiff_argnums=(0, 5, 6))
def linear_cross_entropy(
    softmax: Softmax,
    hidden: jax.Array,
    w_out: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    z_loss: float,
    vocab_axis: str | None,
) -> tuple[jax.Array, jax.Array]:
    """See `opencoder_kernels.linear_cross_entropy`; weights are fp32 or wider."""
    w = w_out.astype(hidden.dtype)

    def body(_, chunk):
        h, targets, weights = chunk
        total, z_sum, _ = softmax.run(h, w, targets, weights, z_loss, vocab_axis, False)
        return None, (total, z_sum)

    _, sums = jax.lax.scan(body, None, _split(softmax, hidden, w_out, targets, weights))
    return sums[0].sum(), sums[1].sum()


def _forward(softmax: Softmax, hidden, w_out, targets, weights, z_loss, vocab_axis):
    w = w_out.astype(hidden.dtype)
    wide = jnp.promote_types(hidden.dtype, jnp.float32)
    chunks = _split(softmax, hidden, w_out, targets, weights)
    num = chunks[0].shape[0]
    sum_dtype = w_out.dtype if num <= MAX_ROUNDED else wide

    def gradients(h, targets, weights):
        total, z_sum, dlogits = softmax.run(h, w, targets, weights, z_loss, vocab_axis, True)
        dh = jnp.einsum("bnv,dv->bnd", dlogits, w, preferred_element_type=wide)
        if vocab_axis is not None:
            dh = jax.lax.psum(dh, vocab_axis)
        return jnp.einsum("bnd,bnv->dv", h, dlogits, preferred_element_type=sum_dtype), (
            total,
            z_sum,
            dh.astype(h.dtype),
        )

    def step(dw, chunk):
        h, *rest = chunk
        h, dw = jax.lax.optimization_barrier((h, dw))  # one chunk's d logits at a time
        more, out = gradients(h, *rest)
        return dw + more, out

    if num == 1:
        dw, (totals, z_sums, dh) = gradients(*(x[0] for x in chunks))
        dh = dh[None]
    else:  # from zeros: with a first chunk outside the loop XLA no longer adds in place everywhere
        start = zeros(w_out.shape, sum_dtype, hidden, w_out, targets, weights)
        dw, (totals, z_sums, dh) = jax.lax.scan(step, start, chunks)
    dh = jnp.moveaxis(dh, 0, 1).reshape(hidden.shape[0], -1, hidden.shape[2])[:, : hidden.shape[1]]
    types = hidden[:0], w_out[:0]  # what the backward pass needs to know of the arguments
    return (totals.sum(), z_sums.sum()), (dh, dw.astype(w_out.dtype), *types)


def _backward(softmax, z_loss, vocab_axis, saved, cotangents):
    dh, dw, hidden, w_out = saved
    g = cotangents[0]
    return like((dh * g).astype(dh.dtype), hidden), like((dw * g).astype(dw.dtype), w_out), None, None


linear_cross_entropy.defvjp(_forward, _backward)


def loss(
    peak: jax.Array, total: jax.Array, hit: jax.Array, weights: jax.Array, z_loss: float, vocab_axis: str | None
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    """((total, z_sum), scale) of a chunk from each token's largest logit, sum of p = exp(logit - peak), and target's logit.

    d loss / d logit is scale p - weight [target]. With vocab_axis, total and hit are of this device's part, peak is of all.
    """
    if vocab_axis is not None:
        total, hit = jax.lax.psum((total, hit), vocab_axis)
    lse = peak + jnp.log(total)
    z_sum = z_loss * (weights * lse**2).sum()
    return ((weights * (lse - hit)).sum() + z_sum, z_sum), weights * (1 + 2 * z_loss * lse) / total
