"""Linear cross-entropy on Hopper: hidden states times output matrix in one kernel, softmax statistics in its epilogue.

A block of 128 rows, 64 to a computing warpgroup, is multiplied with two tiles of 128 columns; the logits stay in
registers, and what leaves them is described in `tiles.py`. Rows vary fastest over the grid: the blocks in flight share
columns of the output matrix, which is read from memory once per chunk, while the rows of a chunk stay in L2. The last
tile may reach beyond the matrix: TMA fills with zeros and leaves out what is outside, and the epilogue masks all that is
beyond the vocabulary. A D or V that is not a multiple of 64 is brought to one with zeros, once for all chunks: the 8B's V of
96,640 over tensor=4 (24,160 words to a device) takes a copy of 32 columns more, and of its gradient one of 32 less.

The two matmuls of the gradient are plain and cuBLAS's. What the interpreter leaves unproven is said in `hopper.py`.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from opencoder_kernels import hopper
from opencoder_kernels.hopper import ROWS, WARPGROUPS, PairOfMatmuls, smem
from opencoder_kernels.linear_cross_entropy import chunked, tiles

BLOCK_M, BLOCK_D = PairOfMatmuls.BLOCK_M, PairOfMatmuls.BLOCK_K
TILE = PairOfMatmuls.BLOCK_N  # columns of a tile; a block has two
COLUMNS = 64  # of a 128-byte swizzle: lowering rejects a copy of a part of them
STAGES = 4  # beside 32 KB for p
LOG2E = math.log2(math.e)
MASKED = -1e30


def unsupported(
    hidden: jax.Array, w_out: jax.Array, targets: jax.Array, weights: jax.Array, z_loss: float, vocab_axis: str | None
) -> str | None:
    del w_out, targets, weights, z_loss, vocab_axis
    if hidden.dtype != jnp.bfloat16:
        return f"hidden is {hidden.dtype}; it takes bfloat16; cast, or use 'xla'"
    return hopper.unsupported_device()


def linear_cross_entropy(hidden: jax.Array, w_out: jax.Array, *args: Any) -> tuple[jax.Array, jax.Array]:
    """See `opencoder_kernels.linear_cross_entropy`; any D and V."""
    D, V = w_out.shape
    softmax = chunked.Softmax(tiles.TiledSoftmax(_matmul, _gradient, V), tiles.GRADIENT_BYTES)
    hidden = jnp.pad(hidden, ((0, 0), (0, 0), (0, -D % BLOCK_D)))
    w_out = jnp.pad(w_out, ((0, -D % BLOCK_D), (0, -V % COLUMNS)))
    return chunked.linear_cross_entropy(softmax, hidden, w_out, *args)


def _matmul(h, w, targets, V: int, gradient: bool):
    """See `tiles.TiledSoftmax`."""
    (M, D), columns = h.shape, w.shape[1]
    cols = -(-columns // (2 * TILE))
    matmuls = PairOfMatmuls(D, STAGES)

    def kernel(inputs, out_refs, buffers, barriers):
        h_ref, w_ref, targets_ref = inputs
        *blocks, stats_smem, p_smem = buffers
        row, col = lax.axis_index("rows"), lax.axis_index("cols")

        def compute(warpgroup):
            rows = pl.ds(row * BLOCK_M + warpgroup * ROWS, ROWS)
            both = matmuls.compute(warpgroup, blocks, barriers)
            target = plgpu.load(targets_ref.at[rows], layout=plgpu.Layout.WGMMA.reduce(1), optimized=False)
            for side, s in enumerate(both):
                tile = col * 2 + side
                index = plgpu.broadcasted_iota(jnp.int32, s.shape, 1, layout=plgpu.Layout.WGMMA) + tile * TILE
                if V % (2 * TILE):  # zeros beyond the vocabulary are not logits

                    def mask(s, index):
                        return jnp.where(index < V, s, MASKED)

                    s = lax.cond(tile >= V // TILE, mask, lambda s, _: s, s, index)
                hit = jnp.where(lax.broadcast_in_dim(target, s.shape, [0]) == index, s, 0.0).sum(axis=1)
                peak = s.max(axis=1)
                p = jnp.exp2((s - lax.broadcast_in_dim(peak, s.shape, [0])) * LOG2E)
                if side:  # the left half has been read by its copies before the right one overwrites it
                    plgpu.wait_smem_to_gmem(0, wait_read_only=True)
                for i, value in enumerate((peak, p.sum(axis=1), hit)):
                    stats_smem[warpgroup, i] = value
                if gradient:
                    p_smem[warpgroup] = p.astype(h.dtype)
                plgpu.commit_smem()
                for i in range(3):
                    plgpu.copy_smem_to_gmem(stats_smem.at[warpgroup, i], out_refs[i].at[tile, rows])
                if gradient:
                    plgpu.copy_smem_to_gmem(p_smem.at[warpgroup], out_refs[3].at[rows, pl.ds(tile * TILE, TILE)])
            plgpu.wait_smem_to_gmem(0)

        def copy():
            rows = pl.ds(row * BLOCK_M, BLOCK_M)
            matmuls.copy(
                lambda inner: h_ref.at[rows, inner],
                lambda inner, side: w_ref.at[inner, pl.ds((col * 2 + side) * TILE, TILE)], blocks, barriers,
            )  # fmt: skip

        hopper.specialise(compute, copy)

    statistics = jax.ShapeDtypeStruct((2 * cols, M), jnp.float32)
    run = hopper.kernel(
        kernel,
        [statistics] * 3 + ([jax.ShapeDtypeStruct((M, columns), h.dtype)] if gradient else []),
        (
            *matmuls.buffers(),
            smem((WARPGROUPS, 3, ROWS), jnp.float32),
            smem((WARPGROUPS, ROWS, TILE)) if gradient else None,
        ),
        matmuls.barriers(),
        grid={"cols": cols, "rows": M // BLOCK_M},
        # Rows are summed within four lanes, which takes no scratch; the stages need the space.
        reduction_scratch_bytes=0,
    )
    return run(h, w, targets)


def _gradient(p, scale, targets, weights):
    """See `tiles.TiledSoftmax`. A warpgroup to a tile, and many tiles in flight: nothing but traffic."""
    M, num = p.shape[0], 4
    cols = -(-scale.shape[0] // num)

    def kernel(p_ref, scale_ref, targets_ref, weights_ref):
        row, warpgroup = lax.axis_index("rows"), lax.axis_index("wg")
        tile, rows = lax.axis_index("cols") * num + warpgroup, pl.ds(row * ROWS, ROWS)
        per_row = plgpu.Layout.WGMMA.reduce(1)

        def scoped(tile_smem, loaded):
            tile_smem, loaded = tile_smem.at[warpgroup], loaded.at[warpgroup]
            place = p_ref.at[rows, pl.ds(tile * TILE, TILE)]
            plgpu.copy_gmem_to_smem(place, tile_smem, loaded)
            target, weight, factor = (
                plgpu.load(ref, layout=per_row, optimized=False)
                for ref in (targets_ref.at[rows], weights_ref.at[rows], scale_ref.at[tile, rows])
            )
            plgpu.barrier_wait(loaded)
            x = plgpu.load(tile_smem, layout=plgpu.Layout.WGMMA).astype(jnp.float32)
            index = plgpu.broadcasted_iota(jnp.int32, x.shape, 1, layout=plgpu.Layout.WGMMA) + tile * TILE
            target, weight, factor = (lax.broadcast_in_dim(a, x.shape, [0]) for a in (target, weight, factor))
            tile_smem[...] = (x * factor - jnp.where(index == target, weight, 0.0)).astype(p.dtype)
            plgpu.commit_smem()
            plgpu.copy_smem_to_gmem(tile_smem, place)
            plgpu.wait_smem_to_gmem(0)

        pl.run_scoped(scoped, smem((num, ROWS, TILE)), plgpu.Barrier(num_barriers=num), collective_axes="wg")

    ref = jax.new_ref(p)
    run = plgpu.kernel(
        kernel,
        grid=(cols, M // ROWS),
        grid_names=("cols", "rows"),
        num_threads=num,
        thread_name="wg",
        compiler_params=plgpu.CompilerParams(reduction_scratch_bytes=0),
    )
    run(ref, jnp.pad(scale, ((0, cols * num - scale.shape[0]), (0, 0))), targets, weights)
    return jax.freeze(ref)
