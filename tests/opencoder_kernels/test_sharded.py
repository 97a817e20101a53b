"""Kernels on each device's part inside shard_map, as the trainer runs them: axes are checked, gradients summed over them."""

from __future__ import annotations

import contextlib
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from opencoder_kernels import attention, interpret, linear_cross_entropy, rms_norm, swiglu
from opencoder_kernels.linear_cross_entropy import tiles, xla

from tests.opencoder_kernels.compare import HOPPER_INTERPRETER, errors, run_on_eight_devices

TOKENS, HIDDEN = P(("data", "fsdp")), P(("data", "fsdp"), None, None)
AXES = ("data", "fsdp", "tensor", "context")
V = 642  # words; half of them, 321, is a multiple of no kernel's tile


def operations(implementation: str):
    """Name -> (function of arrays inside shard_map, specs of its arguments, spec of its result)."""

    def loss(hidden, w, targets, weights):
        sums = linear_cross_entropy(
            hidden, w, targets, weights, z_loss=1e-3, vocab_axis="tensor", implementation=implementation
        )
        return jax.lax.psum(sums[0], ("data", "fsdp"))

    def attend(q, k, v, ids):
        return attention(q, k, v, q_segment_ids=ids, kv_segment_ids=ids, implementation=implementation)

    def norm(x, weight):
        return rms_norm(x, weight, eps=1e-5, implementation=implementation)

    heads, columns = P(("data", "fsdp"), None, "tensor", None), P(None, "tensor")
    return {
        "attention": (attend, (heads, heads, heads, TOKENS), heads),
        "swiglu": (partial(swiglu, implementation=implementation), (HIDDEN, columns, columns), P(("data", "fsdp"), None, "tensor")),
        "rms_norm": (norm, (HIDDEN, P()), HIDDEN),
        "linear_cross_entropy": (loss, (HIDDEN, columns, TOKENS, TOKENS), P()),
    }  # fmt: skip


def arguments(name: str, dtype):
    """Shapes of each operation's arguments."""
    B, T, N, H, D, F = 4, 256, 2, 64, 128, 256
    x = jax.ShapeDtypeStruct((B, T, D), dtype)
    ids, weights = jax.ShapeDtypeStruct((B, T), jnp.int32), jax.ShapeDtypeStruct((B, T), jnp.float32)

    def matrix(columns):
        return jax.ShapeDtypeStruct((D, columns), dtype)

    return {
        "attention": (*[jax.ShapeDtypeStruct((B, T, N, H), dtype)] * 3, ids),
        "swiglu": (x, matrix(F), matrix(F)),
        "rms_norm": (x, jax.ShapeDtypeStruct((D,), dtype)),
        "linear_cross_entropy": (x, matrix(V), ids, weights),
    }[name]


def gradients(name: str, implementation: str):
    """Function that gives the gradients of sum(f^2) with respect to every float matrix or activation."""
    f, in_specs, out_specs = operations(implementation)[name]
    f = jax.shard_map(f, in_specs=in_specs, out_specs=out_specs)
    floats = (0, 1) if name in ("linear_cross_entropy", "rms_norm") else (0, 1, 2)
    return jax.grad(lambda *args: jnp.square(f(*args).astype(jnp.float32)).sum(), floats)


@pytest.mark.parametrize("name", operations(""))
def test_hopper_kernels_lower(name):
    device = AbstractDevice(device_kind="NVIDIA H200", num_cores=132, platform="gpu")
    mesh = AbstractMesh((2, 2, 2, 1), AXES, axis_types=(AxisType.Auto,) * 4, abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        jaxpr = str(jax.make_jaxpr(gradients(name, "mosaic_gpu"))(*arguments(name, jnp.bfloat16)))
    assert "mpmd_map" in jaxpr
    assert "psum" in jaxpr or name == "attention"


def on_mesh(shape: tuple[int, ...], name: str, implementation: str, args):
    """Gradients of an operation on the first devices."""
    mesh = jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 4, devices=jax.devices()[: math.prod(shape)])
    interpreter = {"tpu": interpret.tpu, "mosaic_gpu": interpret.gpu}.get(implementation, contextlib.nullcontext)
    specs = operations("")[name][1]
    with jax.set_mesh(mesh), interpreter():
        placed = [jax.device_put(a, NamedSharding(mesh, s)) for a, s in zip(args, specs, strict=True)]
        return jax.tree.map(np.asarray, jax.jit(gradients(name, implementation))(*placed))


def drawn(name: str, dtype) -> list[np.ndarray]:
    """Random arguments of an operation; and a loss in several chunks."""
    tiles.GRADIENT_BYTES = xla.SOFTMAX_GRADIENT_BYTES = jnp.dtype(dtype).itemsize * (V // 2) * 128
    xla.LOGIT_BYTES = xla.SOFTMAX_GRADIENT_BYTES // 2
    rng = np.random.default_rng()

    def random(s):
        if s.dtype == jnp.int32:  # segment ids and targets alike
            return np.sort(rng.integers(1, 500, s.shape), axis=1).astype(np.int32)
        return (rng.standard_normal(s.shape) / (s.shape[0] ** 0.5 if len(s.shape) == 2 else 1)).astype(np.float32)

    args = [random(s).astype(s.dtype) for s in arguments(name, dtype)]
    if name == "linear_cross_entropy":
        args[3] = np.abs(args[3])  # with weights of either sign the loss may be next to 0, and all rounding
    return args


def check() -> None:
    """On eight devices, fp32: TPU kernels in the interpreter, and XLA's, against XLA on one."""
    for name in operations(""):
        args = drawn(name, jnp.float32)
        want = on_mesh((1, 1, 1, 1), name, "xla", args)
        for implementation in ("tpu", "xla"):
            found = errors(on_mesh((2, 2, 2, 1), name, implementation, args), want)
            print(name, implementation, found, flush=True)
            assert max(found) < 1e-5, name
    print("DONE")


def check_hopper(shape: tuple[int, ...], *names: str) -> None:
    """Hopper kernels in the interpreter over a mesh, bf16: within 1.5 times the error of XLA on one device against XLA in fp32."""
    for name in names:
        args = drawn(name, jnp.bfloat16)
        wide = [x if x.dtype == np.int32 else x.astype(np.float32) for x in args]
        want = on_mesh((1, 1, 1, 1), name, "xla", wide)
        plain, found = (
            errors(on_mesh(mesh, name, implementation, args), want)
            for mesh, implementation in (((1, 1, 1, 1), "xla"), (shape, "mosaic_gpu"))
        )
        print(name, found, plain, flush=True)
        assert all(f <= 1.5 * p for f, p in zip(found, plain, strict=True)), name
    print("DONE")


def test_tpu_kernels_on_eight_devices_equal_xla_on_one():
    run_on_eight_devices("from tests.opencoder_kernels.test_sharded import check; check()")


@HOPPER_INTERPRETER
@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ((1, 1, 2, 1), ("linear_cross_entropy",)),
        pytest.param((2, 1, 2, 1), tuple(operations("")), marks=pytest.mark.slow),
    ],
)
def test_hopper_kernels_on_devices_no_worse_than_xla_on_one(shape, names):
    run_on_eight_devices(
        f"from tests.opencoder_kernels.test_sharded import check_hopper; check_hopper({shape}, *{names})"
    )
