"""Linear cross-entropy on TPU: hidden states times output matrix in one kernel, softmax statistics in its epilogue.

A block of rows is multiplied with a tile of columns over the whole model dim at once; the logits stay in VMEM, and what
leaves it is described in `tiles.py`. Rows vary fastest over the grid, so that a tile of the output matrix is fetched once
per chunk. Both matmuls of the gradient are plain and XLA's. The interpreter leaves unproven, besides what is said in
`tpu_device.py`, that d logits may take the place of p: it writes them elsewhere.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from opencoder_kernels import tpu_device
from opencoder_kernels.interpret import is_interpreted
from opencoder_kernels.linear_cross_entropy import chunked, tiles

BLOCK_M = (512, 256, 128)
TILE = 1024
MASKED = -1e30
# Bytes of a value of hidden -> widest D whose blocks were seen to fit the VMEM of a v5p; fp32, multiplied in several passes,
# did not at 3072.
MAX_DIM = {2: 8192, 4: 2240}


def unsupported(
    hidden: jax.Array, w_out: jax.Array, targets: jax.Array, weights: jax.Array, z_loss: float, vocab_axis: str | None
) -> str | None:
    del targets, weights, z_loss, vocab_axis
    if hidden.dtype not in (jnp.bfloat16, jnp.float32):
        return f"hidden is {hidden.dtype}; it takes bfloat16 and float32; cast, or use 'xla'"
    most = MAX_DIM[hidden.dtype.itemsize]
    if w_out.shape[0] > most:
        return (
            f"w_out {w_out.shape}: D is at most {most} in {hidden.dtype}, or a block does not fit the memory; use 'xla'"
        )
    return tpu_device.unsupported()


def linear_cross_entropy(hidden: jax.Array, w_out: jax.Array, *args: Any) -> tuple[jax.Array, jax.Array]:
    """See `opencoder_kernels.linear_cross_entropy`; any V: a last tile may reach beyond it."""
    softmax = tiles.TiledSoftmax(_matmul, _gradient, w_out.shape[1])
    return chunked.linear_cross_entropy(chunked.Softmax(softmax, tiles.GRADIENT_BYTES), hidden, w_out, *args)


def _matmul(h, w, targets, V: int, gradient: bool):
    """See `tiles.TiledSoftmax`."""
    M, D = h.shape
    rows = next(b for b in BLOCK_M if M % b == 0)
    cols = -(-V // TILE)

    def kernel(h_ref, w_ref, targets_ref, peak_ref, total_ref, hit_ref, *p_refs):
        logits = jnp.dot(h_ref[...], w_ref[...], preferred_element_type=jnp.float32, precision=tpu_device.precision(h))
        index = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1) + pl.program_id(0) * TILE
        if V % TILE:
            logits = jnp.where(index < V, logits, MASKED)  # beyond it the matrix is whatever was there
        hit = jnp.where(index == targets_ref[...], logits, 0.0).sum(axis=1, keepdims=True)
        peak = logits.max(axis=1, keepdims=True)
        p = jnp.exp(logits - peak)
        for ref, column in ((peak_ref, peak), (total_ref, p.sum(axis=1, keepdims=True)), (hit_ref, hit)):
            ref[0] = column.T
        for ref in p_refs:
            ref[...] = p.astype(h.dtype)

    column = pl.BlockSpec((1, 1, rows), lambda j, i: (j, 0, i))
    statistics = jax.ShapeDtypeStruct((cols, 1, M), jnp.float32)
    peak, total, hit, *p = pl.pallas_call(
        kernel,
        grid=(cols, M // rows),
        in_specs=[
            pl.BlockSpec((rows, D), lambda j, i: (i, 0)),
            pl.BlockSpec((D, TILE), lambda j, i: (0, j)),
            pl.BlockSpec((rows, 1), lambda j, i: (i, 0)),
        ],
        out_specs=[column] * 3 + ([pl.BlockSpec((rows, TILE), lambda j, i: (i, j))] if gradient else []),
        out_shape=[statistics] * 3 + ([jax.ShapeDtypeStruct((M, V), h.dtype)] if gradient else []),
        compiler_params=tpu_device.params(2),
    )(h, w, targets[:, None])
    return [peak[:, 0], total[:, 0], hit[:, 0], *p]


def _gradient(p, scale, targets, weights):
    """See `tiles.TiledSoftmax`. A kernel, since XLA would lay the scales of all logits out in memory."""
    M, V = p.shape
    rows = next(b for b in BLOCK_M if M % b == 0)

    def kernel(p_ref, scale_ref, targets_ref, weights_ref, out_ref):
        index = jax.lax.broadcasted_iota(jnp.int32, p_ref.shape, 1) + pl.program_id(0) * TILE
        hit = jnp.where(index == targets_ref[...], weights_ref[...], 0.0)
        out_ref[...] = (p_ref[...].astype(jnp.float32) * scale_ref[0].T - hit).astype(p.dtype)

    block, column = pl.BlockSpec((rows, TILE), lambda j, i: (i, j)), pl.BlockSpec((rows, 1), lambda j, i: (i, 0))
    return pl.pallas_call(
        kernel,
        grid=(scale.shape[0], M // rows),
        in_specs=[block, pl.BlockSpec((1, 1, rows), lambda j, i: (j, 0, i)), column, column],
        out_specs=block,
        out_shape=jax.ShapeDtypeStruct((M, V), p.dtype),
        input_output_aliases={}
        if is_interpreted("tpu")
        else {0: 0},  # the interpreter cannot, with a last tile in part outside
        compiler_params=tpu_device.params(2),
    )(p, scale[:, None], targets[:, None], weights[:, None])
