"""What every operation rejects alike: dtypes, arrays without elements, devices; other bad arguments are in each operation's tests."""

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
def test_numbers_that_are_not_floats(operation):
    with pytest.raises(ValueError, match=rf"{operation}: (q|x|hidden) must be floats; got int32; cast it"):
        run(operation, "auto", dtype=jnp.int32)


def test_ids_that_are_not_integers():
    x, w, ids = jnp.zeros((2, 4, 8)), jnp.zeros((8, 16)), jnp.zeros((2, 4))
    q = jnp.zeros((2, 4, 2, 8))
    with pytest.raises(ValueError, match="attention: q_segment_ids must be integers; got float32; cast it"):
        attention(q, q, q, q_segment_ids=ids, kv_segment_ids=ids)
    with pytest.raises(ValueError, match="attention: kv_positions must be integers; got float32; cast it"):
        attention(q, q, q, kv_positions=jnp.zeros(4))
    with pytest.raises(ValueError, match="linear_cross_entropy: targets must be integers; got float32; cast it"):
        linear_cross_entropy(x, w, ids, ids)


def test_arrays_without_elements_or_dims():
    x, w, ids = jnp.zeros((2, 0, 8)), jnp.zeros((8, 16)), jnp.zeros((2, 0), jnp.int32)
    for name, call in (
        (r"attention: k \(2, 4, 0, 8\)", lambda: attention(*[jnp.zeros((2, 4, n, 8)) for n in (2, 0, 0)])),
        (r"swiglu: x \(2, 0, 8\)", lambda: swiglu(x, w, w)),
        (r"rms_norm: x \(2, 0, 8\)", lambda: rms_norm(x, w[:, 0], eps=1e-5)),
        (r"linear_cross_entropy: hidden \(2, 0, 8\)", lambda: linear_cross_entropy(x, w, ids, ids)),
        (r"linear_cross_entropy: w_out \(8, 0\)", lambda: run_loss(jnp.zeros((8, 0)))),
    ):
        with pytest.raises(ValueError, match=name + " has no elements; every dim must be at least 1"):
            call()
    with pytest.raises(ValueError, match=r"swiglu: x \(\) needs w_gate and w_up \[D, F\]"):
        swiglu(jnp.zeros(()), w, w)
    with pytest.raises(ValueError, match=r"rms_norm: x \(\) needs weight \[D\]"):
        rms_norm(jnp.zeros(()), jnp.zeros(()), eps=1e-5)


def run_loss(w_out, **kwargs):
    ids = jnp.zeros((2, 4), jnp.int32)
    return linear_cross_entropy(jnp.zeros((2, 4, 8)), w_out, ids, ids, **kwargs)


def test_mesh_axes_that_are_not_there():
    q = jnp.zeros((2, 4, 2, 8))
    with pytest.raises(
        ValueError, match="attention: ring_axis='context' is not a manual mesh axis here; call it inside"
    ):
        attention(q, q, q, ring_axis="context")
    with pytest.raises(
        ValueError, match="vocab_axis='tensor' is not a manual mesh axis here; call it inside shard_map over a mesh"
    ):
        run_loss(jnp.zeros((8, 16)), vocab_axis="tensor")


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
        with pytest.raises(ValueError, match=r"w_gate \(72, 256\): D must be a multiple of 64"):
            run("swiglu", "mosaic_gpu", D=72)


def test_rows_that_do_not_fit_the_memory_of_a_tpu():
    ids = jax.ShapeDtypeStruct((2, 4), jnp.int32)

    def shapes(D, dtype):
        return tuple(jax.ShapeDtypeStruct(s, dtype) for s in ((2, 4, D), (D, 256)))

    def loss(x, w, ids):
        return linear_cross_entropy(x, w, ids, ids, implementation="tpu")

    with interpret.tpu():
        for D, dtype in ((8192, jnp.bfloat16), (2240, jnp.float32)):
            jax.eval_shape(loss, *shapes(D, dtype), ids)
            with pytest.raises(ValueError, match=rf"w_out \({D + 1}, 256\): D is at most {D} in {dtype.__name__}"):
                jax.eval_shape(loss, *shapes(D + 1, dtype), ids)
        with pytest.raises(ValueError, match=r"rms_norm: .*x \(1, 16385\): D is at most 16384"):
            rms_norm(jnp.zeros((1, 16385)), jnp.zeros(16385), eps=1e-5, implementation="tpu")
        with pytest.raises(ValueError, match=r"swiglu: .*w_gate \(5121, 8\): D is at most 5120"):
            swiglu(jnp.zeros((1, 5121)), *[jnp.zeros((5121, 8))] * 2, implementation="tpu")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_mesh_that_no_shard_map_has_made_manual(operation):
    device = AbstractDevice(device_kind="NVIDIA H200", num_cores=132, platform="gpu")
    with jax.sharding.use_abstract_mesh(
        AbstractMesh((4,), ("data",), axis_types=(AxisType.Auto,), abstract_device=device)
    ):
        with pytest.raises(
            ValueError, match=r"the mesh axes \{'data': 4\} are not manual here; call it inside shard_map"
        ):
            run(operation, "mosaic_gpu")
        jax.eval_shape(lambda: run(operation, "auto"))
        assert chosen()[operation] == "xla"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_auto_takes_the_kernel_where_it_can_and_says_so(operation):
    with interpret.gpu():
        jax.eval_shape(lambda: run(operation, "auto"))
        assert chosen()[operation] == "mosaic_gpu"
        jax.eval_shape(lambda: run(operation, "auto", dtype=jnp.float32))
        assert chosen()[operation] == "xla"
