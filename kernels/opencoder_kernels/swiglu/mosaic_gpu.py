"""SwiGLU on Hopper: gate and up projections in one kernel, the activation (or its gradient) in its epilogue.

A block of 128 rows of x is multiplied with 128 columns of both matrices; the two fp32 results stay in registers, and only
what `fused.epilogue` makes of them leaves. The interpreter runs wgmma and copies at once: that `wgmma_wait` stands before
a stage is freed is what it leaves unproven.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from opencoder_kernels import hopper, partition
from opencoder_kernels.hopper import ROWS, WARPGROUPS, fill_stages, pair_of_products, smem
from opencoder_kernels.swiglu import fused

BLOCK_M = ROWS * WARPGROUPS
BLOCK_F = 128
BLOCK_D = 64


def refuses(x, w_gate, w_up) -> str | None:
    del w_up
    D, F = w_gate.shape
    parts = partition.automatic().get(partition.HEADS, 1)
    if x.dtype != jnp.bfloat16:
        return f"x is {x.dtype}; it takes bfloat16; cast, or use 'xla'"
    if D % BLOCK_D or F % (BLOCK_F * parts):
        return (
            f"w_gate {w_gate.shape} over mesh tensor={parts}: D must be a multiple of {BLOCK_D}, F of "
            f"{BLOCK_F} x {parts}; use 'xla'"
        )
    return partition.refuses_activation("swiglu", x) or hopper.refuses_device()


def swiglu(x, w_gate, w_up):
    """See `opencoder_kernels.swiglu`."""
    return fused.swiglu(fused.Kernel(_kernel, rows=BLOCK_M), x, w_gate, w_up)


def _kernel(x, w_gate, w_up, d_out):
    """See `fused.Kernel.run`."""
    (M, D), F = x.shape, w_gate.shape[1]
    steps, gradient = D // BLOCK_D, d_out is not None
    num_out = 1 + gradient
    stages = 3 if gradient else 4  # 48 KB each, beside 32 KB for each output

    def kernel(x_ref, gate_ref, up_ref, d_out_ref, out_refs, buffers, barriers):
        x_smem, gate_smem, up_smem, out_smem = buffers
        ready, free, d_out_ready = barriers
        row, col, warpgroup = lax.axis_index("rows"), lax.axis_index("cols"), lax.axis_index("wg")
        cols = pl.ds(col * BLOCK_F, BLOCK_F)

        @pl.when(warpgroup < WARPGROUPS)
        def _compute():
            plgpu.set_max_registers(232, action="increase")
            own = pl.ds(warpgroup * ROWS, ROWS)
            rows = pl.ds(row * BLOCK_M + warpgroup * ROWS, ROWS)
            if gradient:
                plgpu.copy_gmem_to_smem(d_out_ref.at[rows, cols], out_smem.at[warpgroup, 0], d_out_ready.at[warpgroup])

            gate, up = pair_of_products(
                (ROWS, BLOCK_F), steps, stages, lambda slot: x_smem.at[slot, own],
                lambda slot, side: (gate_smem, up_smem)[side].at[slot], ready, free,
            )  # fmt: skip
            d_out_tile = None
            if gradient:
                plgpu.barrier_wait(d_out_ready.at[warpgroup])
                d_out_tile = plgpu.load(out_smem.at[warpgroup, 0], layout=plgpu.Layout.WGMMA).astype(jnp.float32)
            results = fused.epilogue(gate, up, d_out_tile)
            for i, result in enumerate(results):
                out_smem[warpgroup, i] = result.astype(x.dtype)
            plgpu.commit_smem()
            for i in range(num_out):
                plgpu.copy_smem_to_gmem(out_smem.at[warpgroup, i], out_refs[i].at[rows, cols])
            plgpu.wait_smem_to_gmem(0)

        @pl.when(warpgroup == WARPGROUPS)
        def _copy():
            plgpu.set_max_registers(40, action="decrease")

            def copy(i, slot):
                inner = pl.ds(i * BLOCK_D, BLOCK_D)
                plgpu.copy_gmem_to_smem(x_ref.at[pl.ds(row * BLOCK_M, BLOCK_M), inner], x_smem.at[slot], ready.at[slot])
                plgpu.copy_gmem_to_smem(gate_ref.at[inner, cols], gate_smem.at[slot], ready.at[slot])
                plgpu.copy_gmem_to_smem(up_ref.at[inner, cols], up_smem.at[slot], ready.at[slot])

            fill_stages(steps, stages, free, copy)

    def entry(x_ref, gate_ref, up_ref, *refs):
        d_out_ref, out_refs = (refs[0], refs[1:]) if gradient else (None, refs)
        pl.run_scoped(
            lambda *scoped: kernel(x_ref, gate_ref, up_ref, d_out_ref, out_refs, *scoped),
            (
                smem((stages, BLOCK_M, BLOCK_D)),
                smem((stages, BLOCK_D, BLOCK_F)),
                smem((stages, BLOCK_D, BLOCK_F)),
                plgpu.SMEM((WARPGROUPS, num_out, ROWS, BLOCK_F), x.dtype, transforms=hopper.layout(BLOCK_F)),
            ),
            (
                plgpu.Barrier(num_arrivals=3, num_barriers=stages),
                plgpu.Barrier(num_arrivals=WARPGROUPS, num_barriers=stages),
                plgpu.Barrier(num_barriers=WARPGROUPS),
            ),
            collective_axes="wg",
        )

    run = plgpu.kernel(
        entry,
        out_type=[jax.ShapeDtypeStruct((M, F), x.dtype)] * num_out,
        # Blocks of rows vary fastest: those in flight share columns of the matrices, which x then passes in L2.
        grid=(F // BLOCK_F, M // BLOCK_M),
        grid_names=("cols", "rows"),
        num_threads=WARPGROUPS + 1,
        thread_name="wg",
        compiler_params=plgpu.CompilerParams(approx_math=True),
    )
    return run(x, w_gate, w_up, *((d_out,) if gradient else ()))
