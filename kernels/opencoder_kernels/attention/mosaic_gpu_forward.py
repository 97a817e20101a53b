"""Attention forward on Hopper: two warpgroups compute, one copies, as in FlashAttention-3 (arXiv 2407.08608, section 3).

A block of 128 queries, 64 to a computing warpgroup, walks over the blocks of keys that it can see. The copying
warpgroup keeps the next blocks of keys and values coming by TMA. The computing warpgroups take turns on the tensor
cores (ping-pong): while one multiplies, the other exponentiates. Head dim 160 is stored as 5 x 32 values (64-byte
swizzle), so nothing is padded.

    copying warpgroup               computing warpgroup 0            computing warpgroup 1
                                    copy q, wait q_ready[0]          copy q, wait q_ready[1]
    wait k_free[slot]               |                                | turn (lets 0 go first)
    copy k  -> k_ready[slot]  --->  wait k_ready[slot]               .
    wait v_free[slot]               s = q k^T                        .
    copy v  -> v_ready[slot]        turn  <----------------------->  wait k_ready[slot], s = q k^T
      (next slot)                   mask; arrive k_free[slot]        turn
                                    p = exp2(s - peak)               .
                                    wait v_ready[slot]; turn  <--->  mask; arrive k_free[slot]
                                    acc = acc * shrink + p v         p = exp2(s - peak)
                                    arrive v_free[slot]              wait v_ready[slot]; turn ...

`k_ready`, `v_ready`: one per slot, completed by TMA (k_ready twice when segment ids come with the keys). `k_free`, `v_free`:
one per slot, an arrival of each computing warpgroup. `turn`: arrivals of both computing warpgroups; each passes it twice a
block, so that one is on the tensor cores while the other is in the exponentials. Warpgroup 1 passes it once before its loop
and warpgroup 0 once after, which keeps them half a block apart and the number of passes equal.

Constants: 64 rows are one wgmma instruction's M, 128 threads a warpgroup. block_kv 128 is the largest for which scores
(64 fp32 registers a thread), accumulator (64 at H 128) and the fresh product (64) fit 232 registers; 232 + 232 + 40 are the
504 of 512 that three warpgroups may have in steps of 8 (PTX setmaxnreg). At H 160 the accumulators take 80 each: block_kv 64.
Base-2 exponentials (ex2 is the instruction): scale and log2(e) are one factor.

The matmul with the values goes to a fresh accumulator, which is added by the same multiply-add that rescales the old
one. The interpreter takes wgmma operands from shared memory only: there the probabilities go through shared
memory, compiled they stay in registers. That one operand is thus what the interpreter does not prove, besides what
`hopper.py` lists.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from opencoder_kernels import hopper
from opencoder_kernels.attention import blocks
from opencoder_kernels.hopper import ROWS, WARPGROUPS, refill, rem, smem
from opencoder_kernels.interpret import is_interpreted
from opencoder_kernels.varying import unchecked

LOG2E = math.log2(math.e)
# Finite: a masked score is so far below the lowest running maximum that its probability is exactly 0.
MASKED = -1e30
LOWEST = -1e25  # start of the running maximum: above MASKED, so that exp2(MASKED - LOWEST) is 0


@dataclass(frozen=True)
class Config:
    """block_kv: keys of a block; stages: blocks of keys and values in flight."""

    block_kv: int
    stages: int = 2

    @property
    def block_q(self) -> int:
        return ROWS * WARPGROUPS


def config(head_dim: int) -> Config:
    """Of 227 KB of shared memory (232,448 bytes a block on Hopper) queries take 256 H bytes, each stage of keys and values 4 H block_kv."""
    return Config(block_kv=128, stages=2) if head_dim <= 128 else Config(block_kv=64, stages=3)


def forward(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    q_segments: jax.Array | None,
    kv_segments: jax.Array | None,
    *,
    causal: bool,
    scale: float,
) -> tuple[jax.Array, jax.Array]:
    """out [B, T, N, H] and lse, fp32 [B, N, T]. T is a multiple of block_q, S of block_kv; segment ids both or neither."""
    B, T, N, H = q.shape
    S, K = k.shape[1], k.shape[2]
    cfg = config(H)
    block_q, block_kv, stages = cfg.block_q, cfg.block_kv, cfg.stages
    num_q = T // block_q
    packed = q_segments is not None
    p_in_shared_memory = is_interpreted("gpu")
    bounds = blocks.ranges(*blocks.visibility(q_segments, kv_segments, T, S, block_q, block_kv, causal), B)
    scale2 = scale * LOG2E

    def kernel(inputs, outputs, buffers, barriers):
        q_ref, k_ref, v_ref, bounds_ref, *segment_refs = inputs
        out_ref, lse_ref = outputs
        q_smem, k_smem, v_smem, lse_smem, p_smem, q_seg_smem, kv_seg_smem = buffers
        q_ready, k_ready, v_ready, k_free, v_free, turn = barriers
        head, batch = lax.axis_index("heads"), lax.axis_index("batch")
        # The last queries see the most keys: they start first.
        tile = num_q - 1 - lax.axis_index("q_tiles")
        first, full_first, full_end, end = (bounds_ref[batch, tile, i] for i in range(4))

        def compute(warpgroup):
            q_rows = q_smem.at[warpgroup]
            start = tile * block_q + warpgroup * ROWS
            plgpu.copy_gmem_to_smem(q_ref.at[batch, pl.ds(start, ROWS), head], q_rows, q_ready.at[warpgroup])
            if packed:
                plgpu.copy_gmem_to_smem(
                    segment_refs[0].at[batch, pl.ds(start, ROWS)], q_seg_smem.at[warpgroup], q_ready.at[warpgroup]
                )
            plgpu.barrier_wait(q_ready.at[warpgroup])
            per_row = plgpu.Layout.WGMMA.reduce(1)

            def take_turn():
                plgpu.barrier_arrive(turn)
                plgpu.barrier_wait(turn)

            def step(i, carry):
                acc, peak, total = carry
                slot = rem(i - first, stages)
                plgpu.barrier_wait(k_ready.at[slot])

                def scores(acc_ref):
                    hopper.wgmma(acc_ref, q_rows, k_smem.at[slot].transpose((1, 0)))
                    take_turn()
                    return acc_ref[...]

                s = pl.run_scoped(scores, plgpu.WGMMAAccumulatorRef((ROWS, block_kv), jnp.float32)) * scale2

                def mask(s):
                    if causal:
                        rows = plgpu.broadcasted_iota(jnp.int32, s.shape, 0, layout=plgpu.Layout.WGMMA)
                        cols = plgpu.broadcasted_iota(jnp.int32, s.shape, 1, layout=plgpu.Layout.WGMMA)
                        s = jnp.where(rows + start >= cols + i * block_kv, s, MASKED)
                    if packed:
                        q_seg = plgpu.load(q_seg_smem.at[warpgroup], layout=per_row)
                        kv_seg = plgpu.load(kv_seg_smem.at[slot], layout=plgpu.Layout.WGMMA.reduce(0))
                        same = lax.broadcast_in_dim(q_seg, s.shape, [0]) == lax.broadcast_in_dim(kv_seg, s.shape, [1])
                        s = jnp.where(same, s, MASKED)
                    return s

                s = lax.cond((i < full_first) | (i >= full_end), mask, lambda s: s, s)
                plgpu.barrier_arrive(k_free.at[slot])
                new_peak = jnp.maximum(peak, s.max(axis=1))
                shrink = jnp.exp2(peak - new_peak)
                p = jnp.exp2(s - lax.broadcast_in_dim(new_peak, s.shape, [0]))
                total = total * shrink + p.sum(axis=1)
                p = p.astype(v.dtype)
                if p_in_shared_memory:
                    p_smem[warpgroup] = p  # no commit_smem: see left_operand in mosaic_gpu_backward.py
                    p = p_smem.at[warpgroup]
                plgpu.barrier_arrive(turn)
                plgpu.barrier_wait(v_ready.at[slot])
                plgpu.barrier_wait(turn)

                def weighted(acc_ref):
                    hopper.wgmma(acc_ref, p, v_smem.at[slot])
                    return acc_ref[...]

                fresh = pl.run_scoped(weighted, plgpu.WGMMAAccumulatorRef((ROWS, H), jnp.float32))
                plgpu.barrier_arrive(v_free.at[slot])
                acc = acc * lax.broadcast_in_dim(shrink, acc.shape, [0]) + fresh
                return acc, new_peak, total

            def constant(shape, value, how):
                return plgpu.layout_cast(jnp.full(shape, value, jnp.float32), how)

            carry = (
                constant((ROWS, H), 0, plgpu.Layout.WGMMA),
                constant((ROWS,), LOWEST, per_row),
                constant((ROWS,), 0, per_row),
            )
            pl.when(warpgroup == 1)(take_turn)
            acc, peak, total = lax.fori_loop(first, end, step, carry)
            pl.when(warpgroup == 0)(take_turn)
            total = jnp.maximum(total, 1e-37)
            q_rows[...] = (acc / lax.broadcast_in_dim(total, acc.shape, [0])).astype(q.dtype)
            lse_smem[warpgroup] = peak * (1 / LOG2E) + jnp.log(total)
            plgpu.commit_smem()
            plgpu.copy_smem_to_gmem(q_rows, out_ref.at[batch, pl.ds(start, ROWS), head])
            plgpu.copy_smem_to_gmem(lse_smem.at[warpgroup], lse_ref.at[batch, head, pl.ds(start, ROWS)])
            plgpu.wait_smem_to_gmem(0)

        def copy():
            kv_head = lax.div(head, jnp.int32(N // K))

            def load(i, _):
                slot = rem(i - first, stages)
                rows = pl.ds(i * block_kv, block_kv)

                @pl.when(i - first >= stages)
                def _():
                    refill(k_free.at[slot])

                plgpu.copy_gmem_to_smem(k_ref.at[batch, rows, kv_head], k_smem.at[slot], k_ready.at[slot])
                if packed:
                    plgpu.copy_gmem_to_smem(segment_refs[1].at[batch, rows], kv_seg_smem.at[slot], k_ready.at[slot])

                @pl.when(i - first >= stages)
                def _():
                    refill(v_free.at[slot], fence=False)

                plgpu.copy_gmem_to_smem(v_ref.at[batch, rows, kv_head], v_smem.at[slot], v_ready.at[slot])

            lax.fori_loop(first, end, load, None)

        hopper.specialise(compute, copy)

    arrivals = 2 if packed else 1  # segment ids come with the queries and the keys
    run = hopper.kernel(
        kernel,
        [jax.ShapeDtypeStruct(q.shape, q.dtype), jax.ShapeDtypeStruct((B, N, T), jnp.float32)],
        (
            smem((WARPGROUPS, ROWS, H)),
            smem((stages, block_kv, H)),
            smem((stages, block_kv, H)),
            smem((WARPGROUPS, ROWS), jnp.float32),
            smem((WARPGROUPS, ROWS, block_kv)) if p_in_shared_memory else None,
            smem((WARPGROUPS, ROWS), jnp.int32) if packed else None,
            smem((stages, block_kv), jnp.int32) if packed else None,
        ),
        (
            plgpu.Barrier(num_arrivals=arrivals, num_barriers=WARPGROUPS),
            plgpu.Barrier(num_arrivals=arrivals, num_barriers=stages),
            plgpu.Barrier(num_barriers=stages),
            plgpu.Barrier(num_arrivals=WARPGROUPS, num_barriers=stages),
            plgpu.Barrier(num_arrivals=WARPGROUPS, num_barriers=stages),
            plgpu.Barrier(num_arrivals=WARPGROUPS),
        ),
        grid={"heads": N, "q_tiles": num_q, "batch": B},
    )
    return unchecked(run)(q, k, v, bounds, *((q_segments, kv_segments) if packed else ()))
