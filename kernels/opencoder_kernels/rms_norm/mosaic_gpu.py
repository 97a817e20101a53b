"""RMSNorm on Hopper: bound by traffic, so one pass over each array and many blocks of one warpgroup in flight.

A block holds one group of rows in registers, as one flat vector that all 128 threads share evenly; a group is one row,
or as many as it takes for that (2 at D 2240). Loads and stores go straight between registers and memory, the sum over a
row through a few bytes of shared memory. In the backward kernel a block walks over every n-th group and keeps its
sum of d weight in registers. The interpreter proves everything but the layout of registers and
the sum over threads, and that blocks may run at the same time (they share no output).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import mosaic_gpu as plgpu

from opencoder_kernels import hopper
from opencoder_kernels.rms_norm import fused

THREADS = 128
# Values of a group to a thread; more would spill.
MAX_VALUES = 72
# Blocks of the backward kernel: two for each of an H100's or H200's 132 multiprocessors.
BLOCKS = 264


def group(D: int) -> int:
    """Rows of a group: the fewest whose values divide evenly over the threads."""
    return next(n for n in (1, 2, 4, 8) if n * D % THREADS == 0)


def unsupported(x: jax.Array, weight: jax.Array, eps: float) -> str | None:
    del weight, eps
    D = x.shape[-1]
    if x.dtype != jnp.bfloat16:
        return f"x is {x.dtype}; it takes bfloat16; cast, or use 'xla'"
    if D % 16 or group(D) * D > MAX_VALUES * THREADS:
        most = MAX_VALUES * THREADS
        return f"x {x.shape}: D must be a multiple of 16, at most {most}, and at most a half (quarter, eighth) of that when it is not a multiple of 128 (64, 32); use 'xla'"
    return hopper.unsupported_device()


def rms_norm(x: jax.Array, weight: jax.Array, eps: float) -> jax.Array:
    """See `opencoder_kernels.rms_norm`."""
    return fused.rms_norm(fused.Kernels(_forward, _backward, group), x, weight, eps)


def _layout(size: int):
    """Vectors of up to 8 bytes, as wide as divide the threads' shares."""
    width = next(n for n in (4, 2, 1) if size % (n * THREADS) == 0)
    return plgpu.Layout.WG_STRIDED((size,), vec_size=width)


def _per_row(values, D: int, of):
    """Each row's `of(sum over the row)` at each of its values: values [rows x D] -> like values."""
    size = values.shape[0]
    if size == D:
        return of(values.sum())
    index = plgpu.broadcasted_iota(jnp.int32, (size,), 0, layout=_layout(size))
    out = jnp.zeros_like(values)
    for row in range(size // D):
        own = (index >= row * D) & (index < (row + 1) * D)
        out = jnp.where(own, of(jnp.where(own, values, 0.0).sum()), out)
    return out


def _flat(x, D: int):
    return x.reshape(-1, group(D) * D)


def _kernel(body, out_type, grid: int):
    return plgpu.kernel(body, out_type=out_type, grid=(grid,), grid_names=("blocks",))


def _forward(x, weight, eps: float):
    """See `fused.Kernels`."""
    M, D = x.shape
    size = group(D) * D
    layout = _layout(size)

    def kernel(x_ref, weight_ref, y_ref):
        block = lax.axis_index("blocks")
        x = plgpu.load(x_ref.at[block], layout=layout)
        wide = x.astype(jnp.float32)
        scale = _per_row(wide * wide, D, lambda total: lax.rsqrt(total / D + eps))
        weight = plgpu.load(weight_ref.at[...], layout=layout)
        y_ref[block] = (wide * scale).astype(x.dtype) * weight

    rows = jax.ShapeDtypeStruct((M * D // size, size), x.dtype)
    (y,) = _kernel(kernel, [rows], rows.shape[0])(_flat(x, D), jnp.tile(weight.astype(x.dtype), group(D)))
    return y.reshape(M, D)


def _backward(x, weight, dy, eps: float):
    """See `fused.Kernels`."""
    M, D = x.shape
    size = group(D) * D
    layout, num = _layout(size), M * D // size
    blocks = min(BLOCKS, num)

    def kernel(x_ref, weight_ref, dy_ref, dx_ref, dw_ref):
        block = lax.axis_index("blocks")
        weight = plgpu.load(weight_ref.at[...], layout=layout).astype(jnp.float32)

        def one(i, dw):
            at = i * blocks + block
            wide = plgpu.load(x_ref.at[at], layout=layout).astype(jnp.float32)
            d_out = plgpu.load(dy_ref.at[at], layout=layout).astype(jnp.float32)
            scale = _per_row(wide * wide, D, lambda total: lax.rsqrt(total / D + eps))
            normed, d_normed = wide * scale, d_out * weight
            mean = _per_row(d_normed * normed, D, lambda total: total / D)
            dx_ref[at] = (scale * (d_normed - normed * mean)).astype(x.dtype)
            return dw + d_out * normed

        start = plgpu.layout_cast(jnp.zeros((size,), jnp.float32), layout)
        steps = lax.div(num - block + (blocks - 1), jnp.int32(blocks))
        dw_ref[block] = lax.fori_loop(0, steps, one, start)

    out_type = [jax.ShapeDtypeStruct((num, size), x.dtype), jax.ShapeDtypeStruct((blocks, size), jnp.float32)]
    args = (_flat(x, D), jnp.tile(weight.astype(x.dtype), group(D)), _flat(dy, D))
    dx, dw = _kernel(kernel, out_type, blocks)(*args)
    return dx.reshape(M, D), dw.reshape(-1, D)
