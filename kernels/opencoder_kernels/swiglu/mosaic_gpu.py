"""SwiGLU on Hopper: gate and up projections in one kernel, the activation (or its gradient) in its epilogue.

A block of 128 rows of x is multiplied with 128 columns of both matrices; the two fp32 results stay in registers, and only
what `fused.epilogue` makes of them leaves. What the interpreter leaves unproven is said in `hopper.py`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from opencoder_kernels import hopper
from opencoder_kernels.hopper import ROWS, WARPGROUPS, PairOfMatmuls, smem
from opencoder_kernels.swiglu import fused

BLOCK_M, BLOCK_F, BLOCK_D = PairOfMatmuls.BLOCK_M, PairOfMatmuls.BLOCK_N, PairOfMatmuls.BLOCK_K


def unsupported(x: jax.Array, w_gate: jax.Array, w_up: jax.Array) -> str | None:
    del w_up
    D, F = w_gate.shape
    if x.dtype != jnp.bfloat16:
        return f"x is {x.dtype}; it takes bfloat16; cast, or use 'xla'"
    if D % BLOCK_D or F % BLOCK_F:
        return f"w_gate {w_gate.shape}: D must be a multiple of {BLOCK_D}, F of {BLOCK_F}; use 'xla'"
    return hopper.unsupported_device()


def swiglu(x: jax.Array, w_gate: jax.Array, w_up: jax.Array) -> jax.Array:
    """See `opencoder_kernels.swiglu`."""
    return fused.swiglu(fused.Kernel(_kernel, rows=BLOCK_M), x, w_gate, w_up)


def _kernel(x, w_gate, w_up, d_out):
    """See `fused.Kernel.run`."""
    (M, D), F = x.shape, w_gate.shape[1]
    gradient = d_out is not None
    num_out = 1 + gradient
    matmuls = PairOfMatmuls(D, stages=3 if gradient else 4)  # beside 32 KB for each output

    def kernel(inputs, out_refs, buffers, barriers):
        x_ref, gate_ref, up_ref, *d_out_refs = inputs
        *blocks, out_smem = buffers
        *stages, d_out_ready = barriers
        row, col = lax.axis_index("rows"), lax.axis_index("cols")
        cols = pl.ds(col * BLOCK_F, BLOCK_F)

        def compute(warpgroup):
            rows = pl.ds(row * BLOCK_M + warpgroup * ROWS, ROWS)
            for ref in d_out_refs:
                plgpu.copy_gmem_to_smem(ref.at[rows, cols], out_smem.at[warpgroup, 0], d_out_ready.at[warpgroup])
            gate, up = matmuls.compute(warpgroup, blocks, stages)
            d_out_tile = None
            if gradient:
                plgpu.barrier_wait(d_out_ready.at[warpgroup])
                d_out_tile = plgpu.load(out_smem.at[warpgroup, 0], layout=plgpu.Layout.WGMMA).astype(jnp.float32)
            for i, result in enumerate(fused.epilogue(gate, up, d_out_tile)):
                out_smem[warpgroup, i] = result.astype(x.dtype)
            plgpu.commit_smem()
            for i, ref in enumerate(out_refs):
                plgpu.copy_smem_to_gmem(out_smem.at[warpgroup, i], ref.at[rows, cols])
            plgpu.wait_smem_to_gmem(0)

        def copy():
            rows = pl.ds(row * BLOCK_M, BLOCK_M)
            matmuls.copy(
                lambda inner: x_ref.at[rows, inner],
                lambda inner, side: (gate_ref, up_ref)[side].at[inner, cols], blocks, stages,
            )  # fmt: skip

        hopper.specialise(compute, copy)

    run = hopper.kernel(
        kernel,
        [jax.ShapeDtypeStruct((M, F), x.dtype)] * num_out,
        (*matmuls.buffers(), smem((WARPGROUPS, num_out, ROWS, BLOCK_F))),
        (*matmuls.barriers(), plgpu.Barrier(num_barriers=WARPGROUPS)),
        # Blocks of rows vary fastest: those in flight share columns of the matrices, which x then passes in L2.
        grid={"cols": F // BLOCK_F, "rows": M // BLOCK_M},
    )
    return run(x, w_gate, w_up, *((d_out,) if gradient else ()))
