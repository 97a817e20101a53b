"""What the kernels for Hopper GPUs share: the device check, matrices in shared memory, the loops of a matrix product.

What the interpreter leaves unproven of all of them: it runs wgmma at once and without race detection, so that a
`wgmma_wait` in the right place (before a stage is freed, before an accumulator is read) is not checked; register layouts
and `set_max_registers` mean nothing to it. That the compiler accepts them is checked ahead of time (tests, `aot`).
"""

from __future__ import annotations

from jax import lax
from jax import numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from opencoder_kernels.dispatch import device_kind, platform

HOPPER = ("H100", "H200", "H800", "H20", "GH200")
ROWS = 64  # rows of a warpgroup's matrix product
WARPGROUPS = 2  # computing ones, beside one that copies


def refuses_device() -> str | None:
    """Why this device cannot run a Mosaic GPU kernel of this project, or None."""
    if platform() != "gpu" or not any(name in device_kind() for name in HOPPER):
        return f"it needs a Hopper GPU (H100, H200, H800, H20, GH200); the device is {device_kind()!r}; use 'xla'"
    return None


def layout(width: int):
    """Tiling and swizzle of bf16 rows of `width` values in shared memory: the widest swizzle that divides a row."""
    swizzle = next(s for s in (128, 64, 32) if (2 * width) % s == 0)
    # Both classes leave an abstract method to their base; JAX itself makes them so.
    tiling = plgpu.TilingTransform((8, swizzle // 2))  # pyright: ignore[reportAbstractUsage]
    return tiling, plgpu.SwizzleTransform(swizzle)  # pyright: ignore[reportAbstractUsage]


def smem(shape, dtype=jnp.bfloat16):
    """Shared memory; matrices of bf16 are tiled and swizzled for wgmma, fp32 and int32 vectors are plain."""
    return plgpu.SMEM(shape, dtype, transforms=layout(shape[-1]) if dtype == jnp.bfloat16 else ())


def rem(x, n: int):
    return lax.rem(x, jnp.int32(n))


def refill(free):
    """Waits until the stage of buffers behind the barrier `free` is read, and lets TMA write over it.

    Its small vectors (segment ids, log-sum-exps) were read by ordinary loads. Those are ordered before a TMA copy to the
    same place by a barrier and a fence between the two proxies, not by the barrier alone (PTX ISA, "Causality order").
    The copying warpgroup, which has the time, issues the fence.
    """
    plgpu.barrier_wait(free)
    plgpu.commit_smem()


def fill_stages(steps: int, stages: int, free, copy):
    """The copying warpgroup of a matrix product: copy(step, stage) into each stage in turn, once it is free."""

    def load(i, _):
        slot = rem(i, stages)
        pl.when(i >= stages)(lambda: plgpu.barrier_wait(free.at[slot]))
        copy(i, slot)

    lax.fori_loop(0, steps, load, None)


def pair_of_products(shape, steps: int, stages: int, left, right, ready, free):
    """A computing warpgroup: left(stage) @ right(stage, side) summed over the steps, fp32, for sides 0 and 1."""

    def run(*accumulators):
        def step(i, _):
            slot = rem(i, stages)
            plgpu.barrier_wait(ready.at[slot])
            for side, acc in enumerate(accumulators):
                plgpu.wgmma(acc, left(slot), right(slot, side))
            plgpu.wgmma_wait(2)  # the step before is done, this one goes on

            @pl.when(i > 0)
            def _():
                plgpu.barrier_arrive(free.at[rem(i - 1, stages)])

        lax.fori_loop(0, steps, step, None)
        return tuple(acc[...] for acc in accumulators)

    acc = plgpu.WGMMAAccumulatorRef(shape, jnp.float32)
    return pl.run_scoped(run, acc, acc)
