"""Kernels on each device's part inside shard_map, as the trainer runs them: axes are checked, gradients summed over them."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P
from opencoder_kernels import attention, linear_cross_entropy, rms_norm, swiglu

from tests.opencoder_kernels.compare import errors, run_on_eight_devices

TOKENS, HIDDEN = P(("data", "fsdp")), P(("data", "fsdp"), None, None)
AXES = ("data", "fsdp", "tensor", "context")


def operations(implementation: str):
    """Name -> (function of arrays inside shard_map, specs of its arguments, spec of its result)."""

    def loss(hidden, w, targets, weights):
        sums = linear_cross_entropy(
            hidden, w, targets, weights, z_loss=1e-3, vocab_axis="tensor", implementation=implementation
        )
        return jax.lax.psum(sums[0], ("data", "fsdp"))

    def attend(q, k, v, ids):
        return attention(q, k, v, q_segment_ids=ids, kv_segment_ids=ids, implementation=implementation)

    def norm(x, residual, weight):
        return rms_norm(x, weight, eps=1e-5, residual=residual, implementation=implementation)[0]

    heads, columns = P(("data", "fsdp"), None, "tensor", None), P(None, "tensor")
    return {
        "attention": (attend, (heads, heads, heads, TOKENS), heads),
        "swiglu": (partial(swiglu, implementation=implementation), (HIDDEN, columns, columns), P(("data", "fsdp"), None, "tensor")),
        "rms_norm": (norm, (HIDDEN, HIDDEN, P()), HIDDEN),
        "linear_cross_entropy": (loss, (HIDDEN, columns, TOKENS, TOKENS), P()),
    }  # fmt: skip


def arguments(name: str, dtype):
    """Shapes of each operation's arguments."""
    B, T, N, H, D, F, V = 4, 256, 2, 64, 128, 256, 640
    x = jax.ShapeDtypeStruct((B, T, D), dtype)
    ids, weights = jax.ShapeDtypeStruct((B, T), jnp.int32), jax.ShapeDtypeStruct((B, T), jnp.float32)

    def matrix(columns):
        return jax.ShapeDtypeStruct((D, columns), dtype)

    return {
        "attention": (*[jax.ShapeDtypeStruct((B, T, N, H), dtype)] * 3, ids),
        "swiglu": (x, matrix(F), matrix(F)),
        "rms_norm": (x, x, jax.ShapeDtypeStruct((D,), dtype)),
        "linear_cross_entropy": (x, matrix(V), ids, weights),
    }[name]


def gradients(name: str, implementation: str):
    """Function that gives the gradients of sum(f^2) with respect to every float matrix or activation."""
    f, in_specs, out_specs = operations(implementation)[name]
    f = jax.shard_map(f, in_specs=in_specs, out_specs=out_specs)
    floats = (0, 1) if name == "linear_cross_entropy" else (0, 1, 2)
    return jax.grad(lambda *args: jnp.square(f(*args).astype(jnp.float32)).sum(), floats)


@pytest.mark.parametrize("name", operations(""))
def test_hopper_kernels_lower(name):
    device = AbstractDevice(device_kind="NVIDIA H200", num_cores=132, platform="gpu")
    mesh = AbstractMesh((2, 2, 2, 1), AXES, axis_types=(AxisType.Auto,) * 4, abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        jaxpr = str(jax.make_jaxpr(gradients(name, "mosaic_gpu"))(*arguments(name, jnp.bfloat16)))
    assert "mpmd_map" in jaxpr
    assert "psum" in jaxpr or name == "attention"


def check() -> None:
    """On eight devices, fp32: TPU kernels in the interpreter, and XLA's, against XLA on one; a loss in several chunks."""
    import numpy as np
    from jax.sharding import NamedSharding
    from opencoder_kernels import interpret
    from opencoder_kernels.linear_cross_entropy import tiles, xla

    tiles.GRADIENT_BYTES = xla.SOFTMAX_GRADIENT_BYTES = 4 * 320 * 128
    xla.LOGIT_BYTES = xla.SOFTMAX_GRADIENT_BYTES // 2
    rng = np.random.default_rng()

    def random(s):
        if s.dtype == jnp.int32:  # segment ids and targets alike
            return np.sort(rng.integers(1, 500, s.shape), axis=1).astype(np.int32)
        return (rng.standard_normal(s.shape) / (s.shape[0] ** 0.5 if len(s.shape) == 2 else 1)).astype(np.float32)

    mesh = jax.make_mesh((2, 2, 2, 1), AXES, axis_types=(AxisType.Auto,) * 4)
    one = jax.make_mesh((1, 1, 1, 1), AXES, axis_types=(AxisType.Auto,) * 4, devices=jax.devices()[:1])
    for name in operations(""):
        args = [random(s) for s in arguments(name, jnp.float32)]
        if name == "linear_cross_entropy":
            args[3] = np.abs(args[3])  # with weights of either sign the loss may be next to 0, and all rounding
        with jax.set_mesh(one):
            want = jax.jit(gradients(name, "xla"))(*args)
        specs = operations("")[name][1]
        for implementation in ("tpu", "xla"):
            with jax.set_mesh(mesh), interpret.tpu():
                placed = [jax.device_put(a, NamedSharding(mesh, s)) for a, s in zip(args, specs, strict=True)]
                got = jax.jit(gradients(name, implementation))(*placed)
            print(name, implementation, errors(got, want), flush=True)
            assert max(errors(got, want)) < 1e-5, name
    print("DONE")


def test_tpu_kernels_on_eight_devices_equal_xla_on_one():
    run_on_eight_devices("from tests.opencoder_kernels.test_sharded import check; check()")
