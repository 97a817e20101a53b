"""SwiGLU on TPU: gate and up projections in one kernel, the activation (or its gradient) in its epilogue.

A block of rows is multiplied with a block of columns of both matrices over the whole model dim at once; both fp32 results
stay in VMEM. Rows vary fastest over the grid, so that columns of the matrices are fetched once. A last block may reach
beyond the arrays: what it computes there is not written. What the interpreter leaves unproven is said in `tpu_device.py`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from opencoder_kernels import tpu_device
from opencoder_kernels.swiglu import fused

# Rows and columns of a block take this many bytes of a row each: 512 in bf16.
BLOCK_BYTES = 1024
# The block of x and those of both matrices, twice each, have to fit the VMEM.
MAX_DIM = 5120


def unsupported(x: jax.Array, w_gate: jax.Array, w_up: jax.Array) -> str | None:
    del w_up
    D = w_gate.shape[0]
    if x.dtype not in (jnp.bfloat16, jnp.float32):
        return f"x is {x.dtype}; it takes bfloat16 and float32; cast, or use 'xla'"
    if D > MAX_DIM:
        return f"w_gate {w_gate.shape}: D is at most {MAX_DIM}, or a block of it does not fit the memory; use 'xla'"
    return tpu_device.unsupported()


def swiglu(x: jax.Array, w_gate: jax.Array, w_up: jax.Array) -> jax.Array:
    """See `opencoder_kernels.swiglu`."""
    return fused.swiglu(fused.Kernel(_kernel, rows=16), x, w_gate, w_up)


def _kernel(x, w_gate, w_up, d_out):
    """See `fused.Kernel.run`."""
    (M, D), F = x.shape, w_gate.shape[1]
    block = BLOCK_BYTES // x.dtype.itemsize
    rows = min(block, M)
    num_out = 1 if d_out is None else 2

    def kernel(x_ref, gate_ref, up_ref, *refs):
        d_out_refs, out_refs = refs[:-num_out], refs[-num_out:]
        gate, up = (
            jnp.dot(x_ref[...], w_ref[...], preferred_element_type=jnp.float32, precision=tpu_device.precision(x))
            for w_ref in (gate_ref, up_ref)
        )
        d_out_tile = d_out_refs[0][...].astype(jnp.float32) if d_out_refs else None
        for ref, value in zip(out_refs, fused.epilogue(gate, up, d_out_tile), strict=True):
            ref[...] = value.astype(x.dtype)

    tile, weight = pl.BlockSpec((rows, block), lambda j, i: (i, j)), pl.BlockSpec((D, block), lambda j, i: (0, j))
    return pl.pallas_call(
        kernel,
        grid=(-(-F // block), -(-M // rows)),
        in_specs=[pl.BlockSpec((rows, D), lambda j, i: (i, 0)), weight, weight, *([tile] if d_out is not None else [])],
        out_specs=[tile] * num_out,
        out_shape=[jax.ShapeDtypeStruct((M, F), x.dtype)] * num_out,
        compiler_params=tpu_device.params(2),
    )(x, w_gate, w_up, *(() if d_out is None else (d_out,)))
