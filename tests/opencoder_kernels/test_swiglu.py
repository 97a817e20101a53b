"""SwiGLU against the written form in fp64, and what its gradient keeps."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opencoder_kernels import swiglu

from tests.opencoder_kernels.compare import SEEDS, errors, normal, property_test, value_and_grads


def problem(seed, rows, D, F):
    x, w_gate, w_up, dy = normal(seed, (*rows, D), (D, F), (D, F), (*rows, F))
    return (x, w_gate / D**0.5, w_up / D**0.5), dy


def run(implementation, args, cotangents, wide=False):
    return value_and_grads(partial(swiglu, implementation=implementation), args, cotangents, wide)


@property_test(8)
@given(SEEDS, st.sampled_from([(1,), (7,), (2, 9), (130,)]), st.integers(1, 70), st.integers(1, 70))
def test_xla_equals_fp64_reference(seed, rows, D, F):
    args, dy = problem(seed, rows, D, F)
    assert max(errors(run("xla", args, dy), run("reference", args, dy, wide=True))) < 1e-5


def test_bf16_no_worse_than_the_written_form():
    args, dy = jax.tree.map(lambda x: x.astype(jnp.bfloat16), problem(2, (128,), 96, 160))
    want = run("reference", args, dy, wide=True)
    plain, ours = errors(run("reference", args, dy), want), errors(run("xla", args, dy), want)
    assert all(o <= 1.5 * p for o, p in zip(ours, plain, strict=True)), (ours, plain)


def saved_bytes_per_token(implementation: str) -> float:
    """Bytes of what the gradient keeps for one token at the 8B shape in bf16, weights not counted."""
    rows, D, F = 64, 4096, 14_336
    args = [jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in ((rows, D), (D, F), (D, F))]
    _, pull = jax.eval_shape(lambda *a: jax.vjp(partial(swiglu, implementation=implementation), *a), *args)
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(pull) if x.shape != (D, F)) / rows


def test_saves_the_input_alone():
    assert saved_bytes_per_token("xla") == 2 * 4096
    assert saved_bytes_per_token("reference") >= 2 * (4096 + 3 * 14_336)


def test_bad_arguments_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"needs w_gate and w_up \[8, F\]"):
        swiglu(jnp.zeros((2, 8)), jnp.zeros((4, 3)), jnp.zeros((4, 3)))
    w = jnp.zeros((64, 96), jnp.bfloat16)
    with pytest.raises(ValueError, match="F of 128"):
        swiglu(jnp.zeros((2, 64), jnp.bfloat16), w, w, implementation="mosaic_gpu")
    with pytest.raises(ValueError, match="share a dtype"):
        swiglu(jnp.zeros((2, 8)), jnp.zeros((8, 3)), jnp.zeros((8, 3), jnp.bfloat16))
