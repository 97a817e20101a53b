"""Attention backward on Hopper, in two kernels without atomic additions: the same gradient on every run.

`d_keys_values`: a block of 128 keys, 64 to a computing warpgroup, walks over the blocks of queries that see it, for all
query heads of its group; dk and dv stay in accumulators from the first block to the last, so grouped heads need neither
a larger buffer nor a second pass. Everything is transposed there ([keys, queries]), so that the probabilities are the
left operand of their matmuls. `d_queries`: a block of 128 queries walks over the blocks of keys that it sees.
Scores and d probabilities are computed in both: 7 matmuls of T x S x H instead of 5, the price of no atomics.

    copying warpgroup                          each computing warpgroup (d_keys_values; in d_queries k, v and q, d_out change places)
                                               copy its 64 rows of k and v, wait kv_ready[warpgroup]
    for each block of queries:                 for each block of queries:
      wait free[slot] (both have read it)        wait ready[slot]
      copy q, d_out, lse, delta, ids             s = k q^T, mask; p = exp2(s - lse)
        -> ready[slot]                           dv += p d_out  (not awaited)
                                                 dp = v d_out^T; ds = p (dp - delta)
                                                 dk += ds q; wait for all wgmma; arrive free[slot]

`ready`: one per slot, completed by TMA, once per array copied. `free`: one per slot, an arrival of each computing warpgroup.
There is no `turn` as in the forward kernel: dk and dv (H/2 registers each a thread) leave no space for a second block in flight.

Constants: BLOCK = 128, two warpgroups of wgmma's 64 rows. STEP = 64: s, p, dp and ds take 32 registers each beside dk and dv;
at 128, 64 each, more than there are. STAGES = 2: 2 x (q + d_out) of 64 x H bf16 beside k and v of 128 x H are 128 KB at H 128, 160 KB at
H 160, of 227 KB; a third stage would fit, which nobody has timed.

As in the forward kernel, the interpreter takes the left operands (probabilities, their gradients) through shared
memory, the compiled kernel from registers. That is what it leaves unproven, besides what `hopper.py` lists.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from opencoder_kernels import hopper
from opencoder_kernels.attention import blocks
from opencoder_kernels.attention.mosaic_gpu_forward import LOG2E, MASKED
from opencoder_kernels.hopper import ROWS, WARPGROUPS, refill, rem, smem
from opencoder_kernels.interpret import is_interpreted
from opencoder_kernels.varying import unchecked

BLOCK = ROWS * WARPGROUPS  # keys of a block in d_keys_values, queries of a block in d_queries
STEP = 64  # queries, and keys, of the blocks that they walk over
STAGES = 2
FIXED, MOVING = (WARPGROUPS, ROWS), (STAGES, STEP)  # shapes of the blocks that stay, and of those that are walked over


def masked_scores(
    s: jax.Array, below: jax.Array | None, q_seg: jax.Array | None, kv_seg: jax.Array | None, q_dim: int
) -> jax.Array:
    """Scores with MASKED outside `below` (None: no such limit) and where segments differ; queries are along q_dim."""
    if below is not None:
        s = jnp.where(below, s, MASKED)
    if q_seg is not None and kv_seg is not None:
        same = lax.broadcast_in_dim(q_seg, s.shape, [q_dim]) == lax.broadcast_in_dim(kv_seg, s.shape, [1 - q_dim])
        s = jnp.where(same, s, MASKED)
    return s


def iotas(shape: tuple[int, ...]) -> tuple[jax.Array, ...]:
    return tuple(plgpu.broadcasted_iota(jnp.int32, shape, d, layout=plgpu.Layout.WGMMA) for d in (0, 1))


def matmul(shape: tuple[int, int], a: Any, b: Any) -> jax.Array:
    """a @ b in a fresh fp32 accumulator, awaited."""

    def run(acc_ref):
        hopper.wgmma(acc_ref, a, b)
        return acc_ref[...]

    return pl.run_scoped(run, plgpu.WGMMAAccumulatorRef(shape, jnp.float32))


def left_operand(x: jax.Array, scratch: Any) -> Any:
    """x as the left operand of a matmul: itself, or through shared memory where the interpreter needs that.

    No `commit_smem`, which the compiled kernel does not have here either: it would also order this warpgroup's loads
    before later copies and so hide from race detection what the copying warpgroup has to order.
    """
    if scratch is None:
        return x
    scratch[...] = x
    return scratch


def d_keys_values(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    d_out: jax.Array,
    lse2: jax.Array,
    delta: jax.Array,
    q_segments: jax.Array | None,
    kv_segments: jax.Array | None,
    *,
    causal: bool,
    scale: float,
) -> tuple[jax.Array, jax.Array]:
    """(dk, dv) like k and v. lse2 (log-sum-exp, base 2) and delta (out . d out - d lse): fp32 [B, N, T]."""
    B, T, N, H = q.shape
    S, K = k.shape[1], k.shape[2]
    group, packed, through_smem = N // K, q_segments is not None, is_interpreted("gpu")
    some, every = blocks.visibility(q_segments, kv_segments, T, S, STEP, BLOCK, causal)
    bounds = blocks.ranges(some.swapaxes(1, 2), every.swapaxes(1, 2), B)
    shape = (ROWS, STEP)

    def kernel(refs, outputs, buffers, barriers):
        q_ref, k_ref, v_ref, do_ref, lse_ref, delta_ref, bounds_ref, *segment_refs = refs
        k_smem, v_smem, q_smem, do_smem, lse_smem, delta_smem, scratch, kv_seg_smem, q_seg_smem = buffers
        kv_ready, ready, free = barriers
        kv_head, tile, batch = (lax.axis_index(name) for name in ("kv_heads", "kv_tiles", "batch"))
        first, full_first, full_end, end = (bounds_ref[batch, tile, i] for i in range(4))

        def compute(warpgroup):
            start = tile * BLOCK + warpgroup * ROWS
            rows = (batch, pl.ds(start, ROWS), kv_head)
            k_rows, v_rows, loaded = k_smem.at[warpgroup], v_smem.at[warpgroup], kv_ready.at[warpgroup]
            plgpu.copy_gmem_to_smem(k_ref.at[rows], k_rows, loaded)
            plgpu.copy_gmem_to_smem(v_ref.at[rows], v_rows, loaded)
            if packed:
                plgpu.copy_gmem_to_smem(segment_refs[1].at[rows[:2]], kv_seg_smem.at[warpgroup], loaded)
            plgpu.barrier_wait(loaded)
            kv_seg = plgpu.load(kv_seg_smem.at[warpgroup], layout=plgpu.Layout.WGMMA.reduce(1)) if packed else None
            per_query = plgpu.Layout.WGMMA.reduce(0)
            p_smem = scratch.at[warpgroup] if through_smem else None

            def accumulate(dk_acc, dv_acc):
                def step(head, i, _):
                    slot = rem(head * (end - first) + i - first, STAGES)
                    plgpu.barrier_wait(ready.at[slot])
                    s = matmul(shape, k_rows, q_smem.at[slot].transpose((1, 0))) * (scale * LOG2E)

                    def mask(s):
                        kv_index, q_index = iotas(shape)
                        below = q_index + i * STEP >= kv_index + start
                        q_seg = plgpu.load(q_seg_smem.at[slot], layout=per_query) if packed else None
                        return masked_scores(s, below if causal else None, q_seg, kv_seg, 1)

                    s = lax.cond((i < full_first) | (i >= full_end), mask, lambda s: s, s)
                    lse_row = plgpu.load(lse_smem.at[slot], layout=per_query)
                    p = jnp.exp2(s - lax.broadcast_in_dim(lse_row, shape, [1]))
                    hopper.wgmma(dv_acc, left_operand(p.astype(k.dtype), p_smem), do_smem.at[slot])
                    dp = matmul(shape, v_rows, do_smem.at[slot].transpose((1, 0)))
                    delta_row = plgpu.load(delta_smem.at[slot], layout=per_query)
                    ds = p * (dp - lax.broadcast_in_dim(delta_row, shape, [1]))
                    hopper.wgmma(dk_acc, left_operand(ds.astype(k.dtype), p_smem), q_smem.at[slot])
                    plgpu.wgmma_wait(0)
                    plgpu.barrier_arrive(free.at[slot])

                def per_head(head, _):
                    lax.fori_loop(first, end, lambda i, c: step(head, i, c), None)

                lax.fori_loop(0, group, per_head, None)
                return dk_acc[...], dv_acc[...]

            acc = plgpu.WGMMAAccumulatorRef((ROWS, H), jnp.float32)
            dk, dv = pl.run_scoped(accumulate, acc, acc)
            k_rows[...] = (dk * scale).astype(k.dtype)
            v_rows[...] = dv.astype(k.dtype)
            plgpu.commit_smem()
            plgpu.copy_smem_to_gmem(k_rows, outputs[0].at[rows])
            plgpu.copy_smem_to_gmem(v_rows, outputs[1].at[rows])
            plgpu.wait_smem_to_gmem(0)

        def copy():

            def load(head, i, _):
                step = head * (end - first) + i - first
                slot = rem(step, STAGES)
                pl.when(step >= STAGES)(lambda: refill(free.at[slot]))
                rows, q_head = pl.ds(i * STEP, STEP), kv_head * group + head
                plgpu.copy_gmem_to_smem(q_ref.at[batch, rows, q_head], q_smem.at[slot], ready.at[slot])
                plgpu.copy_gmem_to_smem(do_ref.at[batch, rows, q_head], do_smem.at[slot], ready.at[slot])
                plgpu.copy_gmem_to_smem(lse_ref.at[batch, q_head, rows], lse_smem.at[slot], ready.at[slot])
                plgpu.copy_gmem_to_smem(delta_ref.at[batch, q_head, rows], delta_smem.at[slot], ready.at[slot])
                if packed:
                    plgpu.copy_gmem_to_smem(segment_refs[0].at[batch, rows], q_seg_smem.at[slot], ready.at[slot])

            def per_head(head, _):
                lax.fori_loop(first, end, lambda i, c: load(head, i, c), None)

            lax.fori_loop(0, group, per_head, None)

        hopper.specialise(compute, copy)

    buffers = _buffers(H, MOVING, packed)
    barriers = (
        plgpu.Barrier(num_arrivals=2 + packed, num_barriers=WARPGROUPS),
        plgpu.Barrier(num_arrivals=4 + packed, num_barriers=STAGES),
        plgpu.Barrier(num_arrivals=WARPGROUPS, num_barriers=STAGES),
    )
    out = jax.ShapeDtypeStruct(k.shape, k.dtype)
    grid = {"kv_heads": K, "kv_tiles": S // BLOCK, "batch": B}
    run = hopper.kernel(kernel, [out, out], buffers, barriers, grid)
    return unchecked(run)(q, k, v, d_out, lse2, delta, bounds, *((q_segments, kv_segments) if packed else ()))


def d_queries(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    d_out: jax.Array,
    lse2: jax.Array,
    delta: jax.Array,
    q_segments: jax.Array | None,
    kv_segments: jax.Array | None,
    *,
    causal: bool,
    scale: float,
) -> jax.Array:
    """dq like q; arguments as for d_keys_values."""
    B, T, N, H = q.shape
    S, K = k.shape[1], k.shape[2]
    packed, through_smem = q_segments is not None, is_interpreted("gpu")
    bounds = blocks.ranges(*blocks.visibility(q_segments, kv_segments, T, S, BLOCK, STEP, causal), B)
    shape = (ROWS, STEP)
    num_q = T // BLOCK

    def kernel(refs, outputs, buffers, barriers):
        q_ref, k_ref, v_ref, do_ref, lse_ref, delta_ref, bounds_ref, *segment_refs = refs
        q_smem, do_smem, k_smem, v_smem, lse_smem, delta_smem, scratch, q_seg_smem, kv_seg_smem = buffers
        q_ready, ready, free = barriers
        head, batch = lax.axis_index("heads"), lax.axis_index("batch")
        tile = num_q - 1 - lax.axis_index("q_tiles")
        first, full_first, full_end, end = (bounds_ref[batch, tile, i] for i in range(4))

        def compute(warpgroup):
            start = tile * BLOCK + warpgroup * ROWS
            rows, loaded = pl.ds(start, ROWS), q_ready.at[warpgroup]
            q_rows, do_rows = q_smem.at[warpgroup], do_smem.at[warpgroup]
            plgpu.copy_gmem_to_smem(q_ref.at[batch, rows, head], q_rows, loaded)
            plgpu.copy_gmem_to_smem(do_ref.at[batch, rows, head], do_rows, loaded)
            plgpu.copy_gmem_to_smem(lse_ref.at[batch, head, rows], lse_smem.at[warpgroup], loaded)
            plgpu.copy_gmem_to_smem(delta_ref.at[batch, head, rows], delta_smem.at[warpgroup], loaded)
            if packed:
                plgpu.copy_gmem_to_smem(segment_refs[0].at[batch, rows], q_seg_smem.at[warpgroup], loaded)
            plgpu.barrier_wait(loaded)
            per_row = plgpu.Layout.WGMMA.reduce(1)
            lse_row = plgpu.load(lse_smem.at[warpgroup], layout=per_row)
            delta_row = plgpu.load(delta_smem.at[warpgroup], layout=per_row)
            q_seg = plgpu.load(q_seg_smem.at[warpgroup], layout=per_row) if packed else None
            ds_smem = scratch.at[warpgroup] if through_smem else None

            def accumulate(dq_acc):
                def step(i, _):
                    slot = rem(i - first, STAGES)
                    plgpu.barrier_wait(ready.at[slot])
                    s = matmul(shape, q_rows, k_smem.at[slot].transpose((1, 0))) * (scale * LOG2E)

                    def mask(s):
                        q_index, kv_index = iotas(shape)
                        below = q_index + start >= kv_index + i * STEP
                        per_key = plgpu.Layout.WGMMA.reduce(0)
                        kv_seg = plgpu.load(kv_seg_smem.at[slot], layout=per_key) if packed else None
                        return masked_scores(s, below if causal else None, q_seg, kv_seg, 0)

                    s = lax.cond((i < full_first) | (i >= full_end), mask, lambda s: s, s)
                    p = jnp.exp2(s - lax.broadcast_in_dim(lse_row, shape, [0]))
                    dp = matmul(shape, do_rows, v_smem.at[slot].transpose((1, 0)))
                    ds = p * (dp - lax.broadcast_in_dim(delta_row, shape, [0]))
                    hopper.wgmma(dq_acc, left_operand(ds.astype(q.dtype), ds_smem), k_smem.at[slot])
                    plgpu.wgmma_wait(0)
                    plgpu.barrier_arrive(free.at[slot])

                lax.fori_loop(first, end, step, None)
                return dq_acc[...]

            dq = pl.run_scoped(accumulate, plgpu.WGMMAAccumulatorRef((ROWS, H), jnp.float32))
            q_rows[...] = (dq * scale).astype(q.dtype)
            plgpu.commit_smem()
            plgpu.copy_smem_to_gmem(q_rows, outputs[0].at[batch, rows, head])
            plgpu.wait_smem_to_gmem(0)

        def copy():
            kv_head = lax.div(head, jnp.int32(N // K))

            def load(i, _):
                slot = rem(i - first, STAGES)
                pl.when(i - first >= STAGES)(lambda: refill(free.at[slot]))
                rows = pl.ds(i * STEP, STEP)
                plgpu.copy_gmem_to_smem(k_ref.at[batch, rows, kv_head], k_smem.at[slot], ready.at[slot])
                plgpu.copy_gmem_to_smem(v_ref.at[batch, rows, kv_head], v_smem.at[slot], ready.at[slot])
                if packed:
                    plgpu.copy_gmem_to_smem(segment_refs[1].at[batch, rows], kv_seg_smem.at[slot], ready.at[slot])

            lax.fori_loop(first, end, load, None)

        hopper.specialise(compute, copy)

    buffers = _buffers(H, FIXED, packed)
    barriers = (
        plgpu.Barrier(num_arrivals=4 + packed, num_barriers=WARPGROUPS),
        plgpu.Barrier(num_arrivals=2 + packed, num_barriers=STAGES),
        plgpu.Barrier(num_arrivals=WARPGROUPS, num_barriers=STAGES),
    )
    out = jax.ShapeDtypeStruct(q.shape, q.dtype)
    run = hopper.kernel(kernel, [out], buffers, barriers, {"heads": N, "q_tiles": num_q, "batch": B})
    return unchecked(run)(q, k, v, d_out, lse2, delta, bounds, *((q_segments, kv_segments) if packed else ()))[0]


def _buffers(H: int, statistics: tuple[int, int], packed: bool):
    """Shared memory: two matrices that stay and two that move, two vectors of statistics, a left operand, segment ids."""
    return (
        *[smem((*FIXED, H))] * 2,
        *[smem((*MOVING, H))] * 2,
        *[smem(statistics, jnp.float32)] * 2,
        smem((WARPGROUPS, ROWS, STEP)) if is_interpreted("gpu") else None,
        smem(FIXED, jnp.int32) if packed else None,
        smem(MOVING, jnp.int32) if packed else None,
    )
