"""A named back end on a device that cannot run it, in every operation; the other bad arguments stand with each operation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType
from opencoder_kernels import attention, chosen, interpret, linear_cross_entropy, rms_norm, swiglu


def run(operation: str, implementation: str, D: int = 128, dtype=jnp.bfloat16):
    x, w, ids = jnp.zeros((2, 4, D), dtype), jnp.zeros((D, 256), dtype), jnp.zeros((2, 4), jnp.int32)
    q = jnp.zeros((2, 4, 2, 64), dtype)
    return {
        "attention": lambda: attention(q, q, q, q_segment_ids=ids, kv_segment_ids=ids, implementation=implementation),
        "swiglu": lambda: swiglu(x, w, w, implementation=implementation),
        "rms_norm": lambda: rms_norm(x, w[:, 0], eps=1e-5, implementation=implementation),
        "linear_cross_entropy": lambda: linear_cross_entropy(x, w, ids, ids, implementation=implementation),
    }[operation]()


OPERATIONS = ("attention", "swiglu", "rms_norm", "linear_cross_entropy")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_device_that_cannot(operation):
    with pytest.raises(
        ValueError, match=rf"{operation}: .*mosaic_gpu.*needs a Hopper GPU .*device is 'cpu'; use 'xla'"
    ):
        run(operation, "mosaic_gpu")
    with pytest.raises(ValueError, match=rf"{operation}: .*tpu.*needs a TPU; the device is 'cpu'; use 'xla'"):
        run(operation, "tpu")
    with pytest.raises(
        ValueError, match=rf"{operation}: implementation='fast' does not exist; choose auto, reference, xla"
    ):
        run(operation, "fast")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_dtype_that_the_kernel_does_not_take(operation):
    with interpret.gpu(), pytest.raises(ValueError, match="float32; it takes bfloat16; cast"):
        run(operation, "mosaic_gpu", dtype=jnp.float32)
    with interpret.tpu(), pytest.raises(ValueError, match="float16; it takes bfloat16 and float32; cast"):
        run(operation, "tpu", dtype=jnp.float16)


def test_shapes_that_the_kernels_do_not_take():
    with interpret.gpu():
        with pytest.raises(ValueError, match=r"x \(2, 4, 72\): D must be a multiple of 16"):
            run("rms_norm", "mosaic_gpu", D=72)
        with pytest.raises(ValueError, match=r"w_gate \(72, 256\) .* D must be a multiple of 64"):
            run("swiglu", "mosaic_gpu", D=72)


def test_mesh_that_the_kernels_are_not_cut_over():
    device = AbstractDevice(device_kind="NVIDIA H200", num_cores=132, platform="gpu")
    with jax.sharding.use_abstract_mesh(
        AbstractMesh((4,), ("data",), axis_types=(AxisType.Auto,), abstract_device=device)
    ):
        with pytest.raises(ValueError, match="swiglu: batch of 2 is not divisible by mesh data=4; use 'xla'"):
            run("swiglu", "mosaic_gpu")
        with pytest.raises(ValueError, match="batch of 2 is not divisible"):
            run("rms_norm", "mosaic_gpu")
        with pytest.raises(ValueError, match=r"mesh \{'data': 4\} is not manual here; call it inside shard_map"):
            run("linear_cross_entropy", "mosaic_gpu")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_auto_takes_the_kernel_where_it_can_and_says_so(operation):
    with interpret.gpu():
        jax.eval_shape(lambda: run(operation, "auto"))
        assert chosen()[operation] == "mosaic_gpu"
        jax.eval_shape(lambda: run(operation, "auto", dtype=jnp.float32))
        assert chosen()[operation] == "xla"
