"""RMSNorm on TPU: a block of whole rows at a time, one pass over each array.

What the interpreter leaves unproven is said in `tpu_device.py`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from opencoder_kernels import tpu_device
from opencoder_kernels.rms_norm import fused

ROWS = 128
# A block of so wide rows, of each array and twice each, fits the VMEM of a v5p.
MAX_DIM = 16_384


def unsupported(x: jax.Array, weight: jax.Array, eps: float) -> str | None:
    del weight, eps
    if x.dtype not in (jnp.bfloat16, jnp.float32):
        return f"x is {x.dtype}; it takes bfloat16 and float32; cast, or use 'xla'"
    if x.shape[-1] > MAX_DIM:
        return f"x {x.shape}: D is at most {MAX_DIM}, or a block of it does not fit the memory; use 'xla'"
    return tpu_device.unsupported()


def rms_norm(x: jax.Array, weight: jax.Array, eps: float) -> jax.Array:
    """See `opencoder_kernels.rms_norm`."""
    return fused.rms_norm(fused.Kernels(_forward, _backward, lambda D: ROWS), x, weight, eps)


def _specs(D: int):
    return pl.BlockSpec((ROWS, D), lambda i: (i, 0)), pl.BlockSpec((1, D), lambda i: (0, 0))


def _forward(x, weight, eps: float):
    """See `fused.Kernels`."""
    M, D = x.shape
    rows, row = _specs(D)

    def kernel(x_ref, weight_ref, y_ref):
        x = x_ref[...]
        wide = x.astype(jnp.float32)
        normed = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
        y_ref[...] = normed.astype(x.dtype) * weight_ref[...]

    return pl.pallas_call(
        kernel,
        grid=(M // ROWS,),
        in_specs=[rows, row],
        out_specs=rows,
        out_shape=jax.ShapeDtypeStruct((M, D), x.dtype),
        compiler_params=tpu_device.params(1),
    )(x, weight.astype(x.dtype)[None])


def _backward(x, weight, dy, eps: float):
    """See `fused.Kernels`."""
    M, D = x.shape
    rows, row = _specs(D)

    def kernel(x_ref, weight_ref, dy_ref, dx_ref, dw_ref):
        wide, d_out = x_ref[...].astype(jnp.float32), dy_ref[...].astype(jnp.float32)
        scale = jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
        normed, d_normed = wide * scale, d_out * weight_ref[...].astype(jnp.float32)
        dx = scale * (d_normed - normed * jnp.mean(d_normed * normed, axis=-1, keepdims=True))
        dx_ref[...] = dx.astype(x.dtype)
        dw_ref[0] = (d_out * normed).sum(axis=0, keepdims=True)

    dx, dw = pl.pallas_call(
        kernel,
        grid=(M // ROWS,),
        in_specs=[rows, row, rows],
        out_specs=[rows, pl.BlockSpec((1, 1, D), lambda i: (i, 0, 0))],
        out_shape=[
            jax.ShapeDtypeStruct((M, D), x.dtype),
            jax.ShapeDtypeStruct((M // ROWS, 1, D), jnp.float32),
        ],
        compiler_params=tpu_device.params(1),
    )(x, weight.astype(x.dtype)[None], dy)
    return dx, dw[:, 0]
