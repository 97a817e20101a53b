"""RMSNorm + residual on TPU: a block of whole rows at a time, one pass over each array.

What the interpreter leaves unproven stands in `tpu_device.py`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from opencoder_kernels import partition, tpu_device
from opencoder_kernels.rms_norm import fused

ROWS = 128
# A block of so wide rows, of each array and twice each, fits the VMEM of a v5p.
MAX_DIM = 16_384


def refuses(x, weight, eps, residual) -> str | None:
    del weight, eps, residual
    if x.dtype not in (jnp.bfloat16, jnp.float32):
        return f"x is {x.dtype}; it takes bfloat16 and float32; cast, or use 'xla'"
    if x.shape[-1] > MAX_DIM:
        return f"x {x.shape}: D is at most {MAX_DIM}, or a block of it does not fit the memory; use 'xla'"
    return partition.refuses_activation("rms_norm", x) or tpu_device.refuses()


def rms_norm(x, weight, eps, residual):
    """See `opencoder_kernels.rms_norm`."""
    return fused.rms_norm(fused.Kernels(_forward, _backward, lambda D: ROWS), x, weight, eps, residual)


def _specs(D: int):
    return pl.BlockSpec((ROWS, D), lambda i: (i, 0)), pl.BlockSpec((1, D), lambda i: (0, 0))


def _forward(x, weight, residual, eps: float):
    """See `fused.Kernels`."""
    M, D = x.shape
    rows, row = _specs(D)

    def kernel(x_ref, weight_ref, *refs):
        s = x_ref[...]
        if residual is not None:
            residual_ref, y_ref, s_ref = refs
            s = s + residual_ref[...]
            s_ref[...] = s
        else:
            (y_ref,) = refs
        wide = s.astype(jnp.float32)
        normed = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
        y_ref[...] = normed.astype(s.dtype) * weight_ref[...]

    num = 1 + (residual is not None)
    out = pl.pallas_call(
        kernel,
        grid=(M // ROWS,),
        in_specs=[rows, row, rows][: 1 + num],
        out_specs=[rows] * num,
        out_shape=[jax.ShapeDtypeStruct((M, D), x.dtype)] * num,
        compiler_params=tpu_device.params(1),
    )(x, weight.astype(x.dtype)[None], *(() if residual is None else (residual,)))
    return out if residual is not None else out[0]


def _backward(s, weight, dy, ds, eps: float):
    """See `fused.Kernels`."""
    M, D = s.shape
    rows, row = _specs(D)

    def kernel(s_ref, weight_ref, dy_ref, *refs):
        *ds_refs, dx_ref, dw_ref = refs
        wide, d_out = s_ref[...].astype(jnp.float32), dy_ref[...].astype(jnp.float32)
        scale = jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
        normed, d_normed = wide * scale, d_out * weight_ref[...].astype(jnp.float32)
        dx = (scale * (d_normed - normed * jnp.mean(d_normed * normed, axis=-1, keepdims=True))).astype(s.dtype)
        for ref in ds_refs:
            dx = dx + ref[...]
        dx_ref[...] = dx
        dw_ref[0] = (d_out * normed).sum(axis=0, keepdims=True)

    more = () if ds is None else (ds,)
    dx, dw = pl.pallas_call(
        kernel,
        grid=(M // ROWS,),
        in_specs=[rows, row, rows, *(rows for _ in more)],
        out_specs=[rows, pl.BlockSpec((1, 1, D), lambda i: (i, 0, 0))],
        out_shape=[
            jax.ShapeDtypeStruct((M, D), s.dtype),
            jax.ShapeDtypeStruct((M // ROWS, 1, D), jnp.float32),
        ],
        compiler_params=tpu_device.params(1),
    )(s, weight.astype(s.dtype)[None], dy, *more)
    return dx, dw[:, 0]
