"""RMSNorm against the written form in fp64."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P
from opencoder_kernels import interpret, rms_norm

from tests.opencoder_kernels.compare import SEEDS, errors, normal, property_test, value_and_grads


def problem(seed, shape):
    x, w, dy = normal(seed, shape, shape[-1:], shape)
    return (x, w), dy


def run(implementation, args, cotangents, wide=False):
    def f(x, w):
        return rms_norm(x, w, eps=1e-5, implementation=implementation)

    return value_and_grads(f, args, cotangents, wide)


@property_test(8)
@given(SEEDS, st.sampled_from([(1, 3), (3, 5, 7), (2, 130), (4, 2240)]))
def test_xla_equals_fp64_reference(seed, shape):
    args, cotangents = problem(seed, shape)
    want = run("reference", args, cotangents, wide=True)
    assert max(errors(run("xla", args, cotangents), want)) < 1e-5


def test_bf16_no_worse_than_the_written_form():
    args, cotangents = jax.tree.map(lambda x: x.astype(jnp.bfloat16), problem(5, (64, 320)))
    want = run("reference", args, cotangents, wide=True)
    plain = errors(run("reference", args, cotangents), want)
    ours = errors(run("xla", args, cotangents), want)
    assert all(o <= 1.5 * p for o, p in zip(ours, plain, strict=True)), (ours, plain)


# One row to a group at D 256, and more groups than blocks of the backward kernel; two rows at D 2240, the last one padding.
@pytest.mark.parametrize("shape", [(3, 90, 256), (1, 7, 2240)])
def test_hopper_kernel_in_the_interpreter_no_worse_than_xla(shape):
    seed = np.random.default_rng().integers(2**32)
    args, cotangents = jax.tree.map(lambda x: x.astype(jnp.bfloat16), problem(seed, shape))
    want = run("reference", args, cotangents, wide=True)
    # XLA may keep excess precision that a training step with its many layers between does not have: the written form is
    # the bound where it is worse.
    plain, xla = (errors(run(name, args, cotangents), want) for name in ("reference", "xla"))
    with interpret.gpu():
        ours = errors(run("mosaic_gpu", args, cotangents), want)
    assert all(o <= 1.5 * max(x, p) for o, x, p in zip(ours, xla, plain, strict=True)), (seed, ours, xla, plain)


def test_gradient_of_a_replicated_weight_is_summed_inside_shard_map():
    x, w = jnp.zeros((4, 8, 16)), jnp.zeros(16)
    mesh = AbstractMesh((2,), ("data",), axis_types=(AxisType.Auto,))
    norm = jax.shard_map(
        partial(rms_norm, eps=1e-5, implementation="xla"), mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data")
    )
    with jax.sharding.use_abstract_mesh(mesh):
        jaxpr = jax.make_jaxpr(jax.grad(lambda x, w: norm(x, w).sum(), 1))(x, w)
    assert "psum" in str(jaxpr)


def test_bad_arguments_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"needs weight \(8,\)"):
        rms_norm(jnp.zeros((2, 8)), jnp.zeros(4), eps=1e-5)
