"""What the interpreters are trusted for: memory that a kernel has not written is NaN, and a race raises."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jax.experimental.pallas import tpu as pltpu
from opencoder_kernels import hopper, interpret
from opencoder_kernels.hopper import smem

ROWS, D = 128, 128
raises = pytest.mark.skipif(jax.__version_info__ < (0, 12), reason="jax 0.11 prints races and goes on")
ordered_or_not = pytest.mark.parametrize("ordered", [True, pytest.param(False, marks=raises)])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", ["gpu", "tpu"])
def test_an_unwritten_element_of_an_output_is_nan(name, dtype):
    def kernel(x_ref, part_ref, none_ref):
        part_ref[: ROWS // 2] = x_ref[: ROWS // 2]

    out = [jax.ShapeDtypeStruct((ROWS, D), dtype)] * 2
    x = np.ones((ROWS, D), dtype)
    with getattr(interpret, name)():
        if name == "gpu":
            run = plgpu.kernel(kernel, out_type=out, grid=(1,), grid_names=("blocks",))
        else:
            run = pl.pallas_call(kernel, out_shape=out)
        part, none = (np.asarray(x, np.float32) for x in jax.jit(run)(x))
    np.testing.assert_array_equal(part[: ROWS // 2], 1)
    assert np.isnan(part[ROWS // 2 :]).all()
    assert np.isnan(none).all()


def test_an_unwritten_block_of_a_grid_holds_the_one_before_it():
    """So NaN is proof for the first block of a TPU kernel, and for the others the comparison with fp64 on random inputs is."""

    def kernel(x_ref, out_ref):
        @pl.when(pl.program_id(0) % 2 == 1)
        def _():
            out_ref[...] = x_ref[...]

    block = pl.BlockSpec((ROWS, D), lambda i: (i, 0))
    x = np.random.default_rng().standard_normal((3, ROWS, D)).astype(np.float32)
    with interpret.tpu():
        out = jax.ShapeDtypeStruct((3 * ROWS, D), x.dtype)
        run = pl.pallas_call(kernel, out_shape=out, grid=(3,), in_specs=[block], out_specs=block)
        first, second, third = np.asarray(jax.jit(run)(x.reshape(-1, D))).reshape(x.shape)
    assert np.isnan(first).all()
    np.testing.assert_array_equal(second, x[1])
    np.testing.assert_array_equal(third, x[1])


def test_scratch_memory_of_a_hopper_kernel_starts_as_nan():
    def kernel(out_ref):
        def scoped(scratch):
            plgpu.copy_smem_to_gmem(scratch, out_ref)
            plgpu.wait_smem_to_gmem(0)

        pl.run_scoped(scoped, smem((ROWS, D)))

    with interpret.gpu():
        run = plgpu.kernel(
            kernel, out_type=jax.ShapeDtypeStruct((ROWS, D), jnp.bfloat16), grid=(1,), grid_names=("blocks",)
        )
        assert np.isnan(np.asarray(jax.jit(run)(), np.float32)).all()


@ordered_or_not
def test_a_race_of_two_warpgroups_raises(ordered):
    """The second one reads what the first wrote, with or without a barrier between."""

    def kernel(x_ref, out_ref):
        def scoped(scratch, written):
            @pl.when(jax.lax.axis_index("wg") == 0)
            def _():
                scratch[...] = x_ref[...]
                if ordered:
                    plgpu.barrier_arrive(written)

            @pl.when(jax.lax.axis_index("wg") == 1)
            def _():
                if ordered:
                    plgpu.barrier_wait(written)
                out_ref[...] = scratch[...]

        pl.run_scoped(scoped, smem((ROWS,), jnp.float32), plgpu.Barrier(), collective_axes="wg")

    def run(x):
        out = jax.ShapeDtypeStruct((ROWS,), jnp.float32)
        kernel_of_two = plgpu.kernel(
            kernel, out_type=out, grid=(1,), grid_names=("blocks",), num_threads=2, thread_name="wg"
        )
        return jax.jit(kernel_of_two)(x)

    x = np.arange(ROWS, dtype=np.float32)
    with interpret.gpu():
        if ordered:
            np.testing.assert_array_equal(run(x), x)
        else:
            with pytest.raises(Exception, match=r"(?i)race"):
                jax.block_until_ready(run(x))
    with interpret.gpu():  # a failure leaves nothing behind
        np.testing.assert_array_equal(jax.jit(lambda x: x + 1)(x), x + 1)


@ordered_or_not
def test_a_product_of_what_has_not_arrived_raises(ordered):
    """JAX's interpreter does not see what wgmma reads; `hopper.wgmma` makes it."""

    def kernel(x_ref, out_ref):
        def scoped(x_smem, out_smem, arrived):
            plgpu.copy_gmem_to_smem(x_ref, x_smem, arrived)
            if ordered:
                plgpu.barrier_wait(arrived)

            def product(acc):
                hopper.wgmma(acc, x_smem, x_smem)
                return acc[...]

            acc = plgpu.WGMMAAccumulatorRef((hopper.ROWS, hopper.ROWS), jnp.float32)
            out_smem[...] = pl.run_scoped(product, acc).astype(jnp.bfloat16)
            plgpu.commit_smem()
            plgpu.copy_smem_to_gmem(out_smem, out_ref)
            plgpu.wait_smem_to_gmem(0)
            if not ordered:
                plgpu.barrier_wait(arrived)

        square = smem((hopper.ROWS, hopper.ROWS))
        pl.run_scoped(scoped, square, square, plgpu.Barrier())

    x = np.eye(hopper.ROWS, dtype=jnp.bfloat16)
    with interpret.gpu():
        run = plgpu.kernel(kernel, out_type=jax.ShapeDtypeStruct(x.shape, x.dtype), grid=(1,), grid_names=("blocks",))
        if ordered:
            np.testing.assert_array_equal(jax.jit(run)(x), x)
        else:
            with pytest.raises(Exception, match=r"(?i)race"):
                jax.block_until_ready(jax.jit(run)(x))


@ordered_or_not
def test_a_race_with_a_copy_raises_on_tpu(ordered):
    def kernel(x_ref, out_ref):
        def scoped(scratch, done):
            copy = pltpu.make_async_copy(x_ref, scratch, done)
            copy.start()
            if ordered:
                copy.wait()
            out_ref[...] = scratch[...]
            if not ordered:
                copy.wait()

        pl.run_scoped(scoped, pltpu.VMEM((8, D), jnp.float32), pltpu.SemaphoreType.DMA)

    x = np.ones((8, D), np.float32)

    def run():
        with interpret.tpu():
            call = pl.pallas_call(
                kernel,
                in_specs=[pl.BlockSpec(memory_space=pl.ANY)],
                out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
            )
            return np.asarray(jax.jit(call)(x))

    if ordered:
        np.testing.assert_array_equal(run(), x)
    else:
        with pytest.raises(Exception, match=r"(?i)race"):
            run()
        with interpret.tpu():  # a failure leaves nothing behind
            call = pl.pallas_call(
                lambda x_ref, out_ref: out_ref.__setitem__(..., x_ref[...] + 1),
                out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
            )
            np.testing.assert_array_equal(jax.jit(call)(x), x + 1)
