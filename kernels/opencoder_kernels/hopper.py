"""What the kernels for Hopper GPUs share: the device check, matrices in shared memory, warpgroups, a pair of matmuls.

What the interpreter leaves unproven of all of them:
- It runs wgmma at once: that `wgmma_wait` comes before a stage is freed is not checked. (That operands have arrived, and
  are not written over before the stage is freed, is: see `wgmma`.)
- Tiling and swizzle of shared memory, register layouts and `set_max_registers` mean nothing to it.
- Exponentials are exact, not those of `approx_math`; sums are not taken in the order of threads.
- Blocks of the grid run one after another, and so do the devices of a mesh (`interpret.on_each_device`).
- It takes shapes that lowering rejects (a copy of part of a swizzled column).
That the compiler accepts them, and with which registers and spills, is checked ahead of time (tests, `aot`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from opencoder_kernels.dispatch import device_kind, platform
from opencoder_kernels.interpret import is_interpreted

HOPPER = ("H100", "H200", "H800", "H20", "GH200")
ROWS = 64  # rows of a warpgroup's matmul
WARPGROUPS = 2  # computing ones, beside one that copies


def unsupported_device() -> str | None:
    """Why this device cannot run a Mosaic GPU kernel of this project, or None."""
    if platform() != "gpu" or not any(name in device_kind() for name in HOPPER):
        return f"it needs a Hopper GPU (H100, H200, H800, H20, GH200); the device is {device_kind()!r}; use 'xla'"
    return None


def layout(width: int) -> tuple[plgpu.TilingTransform, plgpu.SwizzleTransform]:
    """Tiling and swizzle of bf16 rows of `width` values in shared memory: the widest swizzle that divides a row."""
    swizzle = next(s for s in (128, 64, 32) if (2 * width) % s == 0)
    # Both classes leave an abstract method to their base; JAX itself makes them so.
    tiling = plgpu.TilingTransform((8, swizzle // 2))  # pyright: ignore[reportAbstractUsage]
    return tiling, plgpu.SwizzleTransform(swizzle)  # pyright: ignore[reportAbstractUsage]


def smem(shape: tuple[int, ...], dtype: Any = jnp.bfloat16) -> Any:
    """Shared memory; matrices of bf16 are tiled and swizzled for wgmma, fp32 and int32 vectors are plain."""
    return plgpu.SMEM(shape, dtype, transforms=layout(shape[-1]) if dtype == jnp.bfloat16 else ())


def rem(x: jax.Array, n: int) -> jax.Array:
    """x mod n of an int32 x >= 0, as Mosaic has it."""
    return lax.rem(x, jnp.int32(n))


def kernel(
    body: Callable[..., Any],
    out_type: Sequence[jax.ShapeDtypeStruct],
    buffers: Any,
    barriers: Any,
    grid: dict[str, int],
    **compiler_params: Any,
) -> Callable[..., Any]:
    """body(inputs, outputs, buffers, barriers) on two computing warpgroups and a copying one per block of the grid.

    Args:
      buffers, barriers: what the warpgroups share, as for `pl.run_scoped`.
      grid: name -> size of each axis, the slowest first.
    """

    def entry(*refs):
        inputs, outputs = refs[: -len(out_type)], refs[-len(out_type) :]
        pl.run_scoped(lambda *scoped: body(inputs, outputs, *scoped), buffers, barriers, collective_axes="wg")

    return plgpu.kernel(
        entry,
        out_type=out_type,
        grid=tuple(grid.values()),
        grid_names=tuple(grid),
        num_threads=WARPGROUPS + 1,
        thread_name="wg",
        compiler_params=plgpu.CompilerParams(approx_math=True, **compiler_params),
    )


def specialise(compute: Callable[[jax.Array], None], copy: Callable[[], None]) -> None:
    """compute(warpgroup) on the computing warpgroups, copy() on the last one, which leaves its registers to them."""
    warpgroup = lax.axis_index("wg")

    @pl.when(warpgroup < WARPGROUPS)
    def _():
        plgpu.set_max_registers(232, action="increase")
        compute(warpgroup)

    @pl.when(warpgroup == WARPGROUPS)
    def _():
        plgpu.set_max_registers(40, action="decrease")
        copy()


def refill(free: Any, fence: bool = True) -> None:
    """Waits until the stage of buffers behind the barrier `free` is read, and lets TMA write over it.

    Small vectors (segment ids, log-sum-exps) are read by ordinary loads. Those are ordered before a TMA copy to the same
    place by a barrier and a fence between the two proxies, not by the barrier alone (PTX ISA, "Causality order"). The
    copying warpgroup, which has the time, issues the fence. A stage that wgmma alone has read needs none.
    """
    plgpu.barrier_wait(free)
    if fence or is_interpreted("gpu"):  # whose `wgmma` reads by ordinary loads
        plgpu.commit_smem()


def wgmma(acc: Any, a: Any, b: Any) -> None:
    """acc += a @ b, not awaited; a and b in shared memory, or a in registers.

    The interpreter runs wgmma without race detection. For it the operands are read by ordinary loads first, so that their
    copies and barriers are checked all the same.
    """
    if is_interpreted("gpu"):
        for operand in (a, b):
            plgpu.load(operand)
    plgpu.wgmma(acc, a, b)


@dataclass(frozen=True)
class PairOfMatmuls:
    """x @ w for two matrices w at once: a block of BLOCK_M rows of x, BLOCK_N columns of each w, BLOCK_K of the inner dim a step.

    Attributes:
      dim: the inner dim, a multiple of BLOCK_K.
      stages: blocks of x and both w in flight, 48 KB each.
    """

    dim: int
    stages: int

    BLOCK_M, BLOCK_N, BLOCK_K = ROWS * WARPGROUPS, 128, 64

    def buffers(self) -> tuple[Any, Any]:
        """Shared memory of the blocks of x, and of both w."""
        return smem((self.stages, self.BLOCK_M, self.BLOCK_K)), smem((self.stages, 2, self.BLOCK_K, self.BLOCK_N))

    def barriers(self) -> tuple[Any, Any]:
        """(ready, free) of each stage."""
        return (
            plgpu.Barrier(num_arrivals=3, num_barriers=self.stages),
            plgpu.Barrier(num_arrivals=WARPGROUPS, num_barriers=self.stages),
        )

    def copy(self, rows: Callable[..., Any], columns: Callable[..., Any], buffers: Any, barriers: Any) -> None:
        """The copying warpgroup: each stage, once it is free, gets rows(inner) of x and columns(inner, side) of both w."""
        (x_smem, w_smem), (ready, free) = buffers, barriers

        def load(i, _):
            slot, inner = rem(i, self.stages), pl.ds(i * self.BLOCK_K, self.BLOCK_K)
            pl.when(i >= self.stages)(lambda: refill(free.at[slot], fence=False))
            plgpu.copy_gmem_to_smem(rows(inner), x_smem.at[slot], ready.at[slot])
            for side in range(2):
                plgpu.copy_gmem_to_smem(columns(inner, side), w_smem.at[slot, side], ready.at[slot])

        lax.fori_loop(0, self.dim // self.BLOCK_K, load, None)

    def compute(self, warpgroup: jax.Array, buffers: Any, barriers: Any) -> tuple[jax.Array, jax.Array]:
        """A computing warpgroup: its 64 rows of both matmuls, fp32."""
        (x_smem, w_smem), (ready, free) = buffers, barriers

        def run(*accumulators):
            def step(i, _):
                slot = rem(i, self.stages)
                plgpu.barrier_wait(ready.at[slot])
                for side, acc in enumerate(accumulators):
                    wgmma(acc, x_smem.at[slot, pl.ds(warpgroup * ROWS, ROWS)], w_smem.at[slot, side])
                plgpu.wgmma_wait(2)  # the step before is done, this one goes on

                @pl.when(i > 0)
                def _():
                    plgpu.barrier_arrive(free.at[rem(i - 1, self.stages)])

            lax.fori_loop(0, self.dim // self.BLOCK_K, step, None)
            return tuple(acc[...] for acc in accumulators)

        acc = plgpu.WGMMAAccumulatorRef((ROWS, self.BLOCK_N), jnp.float32)
        return pl.run_scoped(run, acc, acc)
