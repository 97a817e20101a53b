"""Linear cross-entropy against dense logits in fp64."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opencoder_kernels import interpret, linear_cross_entropy
from opencoder_kernels.linear_cross_entropy import chunked, tiles, xla

from tests.opencoder_kernels.compare import SEEDS, errors, normal, property_test, relative_error, value_and_grads


def problem(seed, B, T, D, V):
    hidden, w_out = normal(seed, (B, T, D), (D, V))
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, V, (B, T)).astype(np.int32)
    weights = rng.random((B, T)).astype(np.float32) * (rng.random((B, T)) < 0.8)
    return hidden, w_out / D**0.5, targets, weights


def run(implementation, inputs, z_loss, wide=False):
    hidden, w_out, targets, weights = inputs

    def f(hidden, w_out, weights=weights):
        weights = weights.astype(np.float64) if wide else weights
        return linear_cross_entropy(hidden, w_out, targets, weights, z_loss=z_loss, implementation=implementation)

    one = np.float32(3)  # a cotangent other than 1, and one for z_sum, which must not reach any gradient
    return value_and_grads(f, (hidden, w_out), (one, one), wide)


def assert_equal(got, want, inputs):
    """Loss and gradients of two runs; all are differences of larger numbers, next to 0 where a probability is next to 1."""
    (total, z_sum), grads = got
    hidden, w_out, _, weights = inputs
    norm = np.linalg.norm
    floors = norm(weights) * norm(w_out) / w_out.shape[1] ** 0.5, norm(weights[..., None] * hidden)
    for g, w, floor in zip(grads, want[1], floors, strict=True):
        assert relative_error(g, w, 0.1 * float(floor)) < 1e-5
    assert abs(total - want[0][0]) <= 1e-5 * max(abs(want[0][0]), weights.sum())
    assert abs(z_sum - want[0][1]) <= 1e-5 * max(abs(want[0][1]), 1e-3 * weights.sum())


@property_test(10)
@given(
    SEEDS, st.integers(1, 3), st.one_of(st.integers(1, 30), st.just(129)), st.integers(1, 20), st.integers(1, 90),
    st.sampled_from([0.0, 1e-3]), st.sampled_from([4, 32, 1024]), st.sampled_from([1, 7, 2000]),
)  # fmt: skip
def test_xla_equals_fp64_reference(seed, B, T, D, V, z_loss, chunk, rows):
    inputs = problem(seed, B, T, D, V)
    want = run("reference", inputs, z_loss, wide=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked, "ROWS", 1)
        patch.setattr(xla, "SOFTMAX_GRADIENT_BYTES", 4 * V * chunk)
        patch.setattr(xla, "LOGIT_BYTES", 4 * V * rows)
        got = run("xla", inputs, z_loss)
    assert_equal(got, want, inputs)


# 384 ends with a whole tile of its own, the others within the left or the right half of a block, one column before or after
# a multiple of 64, which is what columns are brought to; D 300 is brought to 320.
@pytest.mark.parametrize(
    ("D", "V", "chunk"), [(320, 577, 128), (300, 1000, 4096), (320, 384, 4096), (64, 255, 4096), (64, 7, 128)]
)
def test_hopper_kernel_in_the_interpreter_no_worse_than_xla(D, V, chunk, monkeypatch):
    seed = np.random.default_rng().integers(2**32)
    hidden, w_out, targets, weights = problem(seed, 1, 250, D, V)
    inputs = (hidden.astype(jnp.bfloat16), w_out.astype(jnp.bfloat16), targets, weights)
    want = run("reference", inputs, 1e-3, wide=True)
    monkeypatch.setattr(tiles, "GRADIENT_BYTES", 2 * V * chunk)
    monkeypatch.setattr(xla, "SOFTMAX_GRADIENT_BYTES", 2 * V * chunk)
    plain = run("xla", inputs, 1e-3)
    with interpret.gpu():
        ours = run("mosaic_gpu", inputs, 1e-3)
    for o, x in zip(errors(ours, want), errors(plain, want), strict=True):
        assert o <= max(1.5 * x, 1e-5), (seed, errors(ours, want), errors(plain, want))


@pytest.mark.parametrize(("implementation", "interpreter"), [("mosaic_gpu", interpret.gpu), ("tpu", interpret.tpu)])
def test_loss_alone_is_the_loss_with_gradients(implementation, interpreter):
    hidden, w_out, targets, weights = problem(np.random.default_rng().integers(2**32), 1, 128, 64, 320)
    args = (hidden.astype(jnp.bfloat16), w_out.astype(jnp.bfloat16), targets, weights)
    f = partial(linear_cross_entropy, z_loss=1e-3, implementation=implementation)
    with interpreter():
        alone = jax.jit(f)(*args)
        (total, z_sum), _ = jax.jit(jax.value_and_grad(f, has_aux=True))(*args)
    np.testing.assert_allclose(alone, (total, z_sum), rtol=1e-6)


def test_bf16_no_worse_than_the_dense_form():
    hidden, w_out, targets, weights = problem(4, 2, 60, 64, 500)
    inputs = (hidden.astype(jnp.bfloat16), w_out.astype(jnp.bfloat16), targets, weights)
    want = run("reference", inputs, 1e-4, wide=True)
    dense, ours = errors(run("reference", inputs, 1e-4), want), errors(run("xla", inputs, 1e-4), want)
    # The dense form multiplies fp32 gradients of its logits; rounding them to bf16 first is what makes it one pass.
    assert all(o <= 2 * max(d, 1e-3) for o, d in zip(ours, dense, strict=True)), (ours, dense)


def test_gradient_of_an_fp32_matrix_stays_fp32():
    hidden, w_out, targets, weights = problem(4, 1, 40, 16, 50)
    grad = jax.grad(lambda w: linear_cross_entropy(hidden.astype(jnp.bfloat16), w, targets, weights)[0])(w_out)
    assert grad.dtype == jnp.float32
    assert len(np.unique(np.asarray(grad.astype(jnp.bfloat16)))) < len(np.unique(np.asarray(grad)))


def test_a_token_of_weight_0_has_no_influence():
    hidden, w_out, targets, weights = problem(np.random.default_rng().integers(2**32), 1, 20, 8, 30)
    weights[0, 7] = 0
    before = run("xla", (hidden, w_out, targets, weights), 1e-3)
    hidden, targets = hidden.copy(), targets.copy()
    hidden[0, 7] += 3
    targets[0, 7] = (targets[0, 7] + 1) % 30
    after = run("xla", (hidden, w_out, targets, weights), 1e-3)
    np.testing.assert_array_equal(before[0][0], after[0][0])
    np.testing.assert_array_equal(before[1][1], after[1][1])
    assert not after[1][0][0, 7].any()


def test_logits_of_all_tokens_are_never_in_memory():
    """At the full vocabulary, where they would be 3.2 GB, temporaries stay under 1 GB; see test_ahead_of_time.py for GPU and TPU."""
    B, T, D, V = 1, 8192, 64, 96_640
    args = [jax.ShapeDtypeStruct(s, d) for s, d in
            (((B, T, D), jnp.float32), ((D, V), jnp.float32), ((B, T), jnp.int32), ((B, T), jnp.float32))]  # fmt: skip
    f = jax.grad(lambda *a: partial(linear_cross_entropy, implementation="xla")(*a)[0], (0, 1))
    temp = jax.jit(f).lower(*args).compile().memory_analysis().temp_size_in_bytes
    assert temp < 1e9, temp


@pytest.mark.parametrize(("chunks", "accumulator"), [(4, "bfloat16"), (5, "float32")])
def test_many_chunks_are_summed_in_fp32(chunks, accumulator, monkeypatch):
    V = 64
    hidden, w_out, targets, weights = problem(3, 1, 128 * chunks, 16, V)
    monkeypatch.setattr(xla, "SOFTMAX_GRADIENT_BYTES", 2 * V * 128)
    args = (hidden.astype(jnp.bfloat16), w_out.astype(jnp.bfloat16), targets, weights)
    f = jax.grad(lambda *a: linear_cross_entropy(*a, implementation="xla")[0], 1)
    loops = [e for e in jax.make_jaxpr(f)(*args).eqns if e.primitive.name == "scan"]
    assert [str(v.aval.dtype) for e in loops for v in e.outvars if v.aval.shape == w_out.shape] == [accumulator]


def test_bad_arguments_name_what_is_wrong():
    h, w, t = jnp.zeros((1, 4, 8)), jnp.zeros((8, 9)), jnp.zeros((1, 4), jnp.int32)
    with pytest.raises(ValueError, match="got"):
        linear_cross_entropy(h, w, t[:, :2], t[:, :2])
    with pytest.raises(ValueError, match="integers"):
        linear_cross_entropy(h, w, t.astype(jnp.float32), t)
    with pytest.raises(ValueError, match="takes bfloat16; cast, or use 'xla'"):
        linear_cross_entropy(h, w, t, t, implementation="mosaic_gpu")
    with pytest.raises(ValueError, match="needs a TPU"):
        linear_cross_entropy(h, w, t, t, implementation="tpu")
