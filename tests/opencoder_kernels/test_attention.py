"""Attention for any platform against dense attention in fp64."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AbstractDevice, AbstractMesh
from opencoder_kernels import attention, chosen
from opencoder_kernels.attention import xla

from tests.opencoder_kernels.compare import SEEDS, errors, normal, property_test, relative_error, value_and_grads


def documents(rng, B: int, T: int, kind: str) -> np.ndarray | None:
    """Segment ids [B, T]: one document, one token each, cuts at random places, or one that spans nearly all (T > 64).

    None for no packing.
    """
    if kind == "none":
        return None
    if kind == "one":
        return np.ones((B, T), np.int32)
    if kind == "long":
        cuts = np.zeros((B, T), bool)
        for row in cuts:
            row[[rng.integers(1, 64), rng.integers(T - 63, T)]] = True
        return 1 + np.cumsum(cuts, axis=1).astype(np.int32)
    chance = 1.0 if kind == "one-token" else rng.choice([0.02, 0.3])
    return 1 + np.cumsum(rng.random((B, T)) < chance, axis=1).astype(np.int32)


@st.composite
def problems(draw):
    group = draw(st.sampled_from([1, 2, 4, 8, 14]))
    K = draw(st.integers(1, 2)) if group < 8 else 1
    causal = draw(st.booleans())
    T = draw(st.one_of(st.integers(1, 40), st.sampled_from([127, 128, 129, 300])))
    S = T if causal else draw(st.one_of(st.just(T), st.integers(1, 60)))
    return {
        "seed": draw(SEEDS),
        "B": draw(st.integers(1, 2)),
        "T": T,
        "S": S,
        "N": group * K,
        "K": K,
        "H": draw(st.sampled_from([8, 64, 128, 160])),
        "causal": causal,
        "packing": draw(st.sampled_from(["none", "one", "one-token", "many"])),
    }


def build(p, dtype=np.float32):
    """(q, k, v), (d_out, d_lse), keyword arguments of a drawn problem."""
    B, T, S, N, K, H = (p[n] for n in "BTSNKH")
    q, k, v, d_out, d_lse = normal(p["seed"], (B, T, N, H), (B, S, K, H), (B, S, K, H), (B, T, N, H), (B, T, N))
    rng = np.random.default_rng(p["seed"])
    q_segments = documents(rng, B, T, p["packing"])
    kv_segments = q_segments if T == S else documents(rng, B, S, p["packing"])
    if q_segments is not None:  # rows that see no key have no finite lse to compare, nor a gradient of it
        seen = (q_segments[:, :, None] == kv_segments[:, None]).any(-1)
        d_lse = d_lse * seen[..., None]
    q, k, v, d_out = (x.astype(dtype) for x in (q, k, v, d_out))
    return (q, k, v), (d_out, d_lse), {
        "causal": p["causal"],
        "q_segment_ids": q_segments,
        "kv_segment_ids": kv_segments,
        "return_lse": True,
    }  # fmt: skip


def run(implementation, args, cotangents, kwargs, wide=False):
    """(out, lse, dq, dk, dv), without lse where kwargs do not ask for it."""
    f = partial(attention, implementation=implementation, **kwargs)
    if not kwargs["return_lse"]:
        out, grads = value_and_grads(f, args, cotangents[0], wide)
        return out, *grads
    (out, lse), grads = value_and_grads(f, args, cotangents, wide)
    return out, np.where(lse < -1e20, 0, lse), *grads  # a query that sees no key; NaN stays


def fp32_errors(got, want) -> dict[str, float]:
    """Scores hardly matter to a query that sees one key: its dq and dk are differences, as large as dv before they cancel."""
    names = ("out", "lse", "dq", "dk", "dv")
    floor = {name: 0.1 * float(np.linalg.norm(want[4].ravel())) for name in ("dq", "dk")}
    return {n: relative_error(g, w, floor.get(n, 0.0)) for n, g, w in zip(names, got, want, strict=True)}


@property_test(12)
@given(problems())
def test_xla_equals_fp64_reference(p):
    args, cotangents, kwargs = build(p)
    want = run("reference", args, cotangents, kwargs, wide=True)
    got = run("xla", args, cotangents, kwargs)
    found = fp32_errors(got, want)
    assert max(found.values()) < 1e-5, found


@pytest.mark.parametrize("causal", [True, False])
def test_loop_inside_a_block_equals_reference(causal, monkeypatch):
    monkeypatch.setattr(xla, "MAX_SCORES", 1)
    monkeypatch.setattr(xla, "MIN_BLOCK", 24)
    monkeypatch.setattr(xla, "MAX_BLOCKS", 2)
    p = {"seed": 7, "B": 2, "T": 101, "S": 101, "N": 4, "K": 2, "H": 16, "causal": causal, "packing": "many"}
    args, cotangents, kwargs = build(p)
    want = run("reference", args, cotangents, kwargs, wide=True)
    assert max(errors(run("xla", args, cotangents, kwargs), want)) < 1e-5


def test_bf16_no_worse_than_the_dense_form():
    p = {"seed": 3, "B": 1, "T": 200, "S": 200, "N": 4, "K": 2, "H": 160, "causal": True, "packing": "many"}
    args, cotangents, kwargs = build(p, jnp.bfloat16)
    want = run("reference", args, cotangents, kwargs, wide=True)
    dense = errors(run("reference", args, cotangents, kwargs), want)
    ours = errors(run("xla", args, cotangents, kwargs), want)
    # The dense form keeps fp32 gradients of its scores; every flash form rounds them for the products.
    assert all(o <= 2 * max(d, 1e-4) for o, d in zip(ours, dense, strict=True)), (ours, dense)


@pytest.mark.parametrize("implementation", ["reference", "xla"])
def test_perturbing_one_document_moves_no_other(implementation):
    rng = np.random.default_rng()
    segments = np.repeat([1, 2, 3], [5, 9, 6])[None].astype(np.int32)
    x = normal(rng.integers(2**32), (1, 20, 2, 8), (1, 20, 2, 8), (1, 20, 2, 8))
    f = jax.jit(partial(attention, q_segment_ids=segments, kv_segment_ids=segments, implementation=implementation))
    before = np.asarray(f(*x))
    for a in x:
        a[:, 5:14] += rng.standard_normal(a[:, 5:14].shape).astype(np.float32) * 100
    after = np.asarray(f(*x))
    others = np.r_[0:5, 14:20]
    np.testing.assert_array_equal(before[:, others], after[:, others])
    assert (before[:, 5:14] != after[:, 5:14]).any(axis=(-1, -2)).all()


@pytest.mark.parametrize("implementation", ["reference", "xla"])
def test_positions_shift_the_causal_mask_and_a_blind_row_gives_zeros(implementation):
    q, k, v = normal(1, (1, 6, 2, 8), (1, 6, 2, 8), (1, 6, 2, 8))
    full = attention(q, k, v, implementation="reference")
    tail = attention(q[:, 4:], k, v, q_positions=jnp.arange(4, 6), implementation=implementation)
    np.testing.assert_allclose(tail, full[:, 4:], rtol=1e-5, atol=1e-6)

    def total(q, k, v):
        return attention(q, k, v, kv_positions=jnp.arange(3, 9), implementation=implementation).sum()

    blind = attention(q, k, v, kv_positions=jnp.arange(3, 9), implementation=implementation)
    assert not np.asarray(blind[:, :3]).any()
    assert np.asarray(blind[:, 3:]).any()
    assert all(np.isfinite(g).all() for g in jax.grad(total, (0, 1, 2))(q, k, v))


def test_scores_of_the_whole_sequence_are_never_in_memory():
    x = jax.ShapeDtypeStruct((1, 4096, 8, 16), jnp.float32)

    def temporaries(implementation):
        f = jax.grad(lambda q, k, v: attention(q, k, v, implementation=implementation).sum(), (0, 1, 2))
        return jax.jit(f).lower(x, x, x).compile().memory_analysis().temp_size_in_bytes

    assert temporaries("xla") < temporaries("reference") / 4


def test_bad_arguments_name_what_is_wrong():
    q, k = jnp.zeros((1, 4, 6, 8)), jnp.zeros((1, 4, 4, 8))
    with pytest.raises(ValueError, match="6 query heads are not a multiple of 4"):
        attention(q, k, k)
    with pytest.raises(ValueError, match="share a dtype"):
        attention(q, q, q.astype(jnp.bfloat16))
    with pytest.raises(ValueError, match="segment ids must be"):
        attention(q, q, q, q_segment_ids=jnp.zeros((1, 3)), kv_segment_ids=jnp.zeros((1, 4)))
    with pytest.raises(ValueError, match="or neither"):
        attention(q, q, q, q_segment_ids=jnp.zeros((1, 4)))
    with pytest.raises(ValueError, match="does not exist; choose auto, reference, xla"):
        attention(q, q, q, implementation="fast")
    with pytest.raises(ValueError, match="kv_positions must be"):
        attention(q, q, q, kv_positions=jnp.arange(3))


def test_auto_reports_its_choice():
    q = jnp.zeros((1, 4, 2, 8))
    attention(q, q, q, implementation="reference")
    assert chosen()["attention"] == "reference"
    attention(q, q, q)
    assert chosen()["attention"] == "xla"
    assert relative_error(attention(q, q, q + 1), np.ones_like(q)) < 1e-6


@pytest.mark.parametrize("implementation", ["xla", "mosaic_gpu"])
def test_a_policy_that_saves_attention_does_not_run_it_again(implementation):
    """The log-sum-exp is saved with the result: one forward kernel and the gradient's two, or two and five products."""
    save = jax.checkpoint_policies.save_only_these_names("attention")
    x = jax.ShapeDtypeStruct((1, 128, 2, 64), jnp.bfloat16)

    def count(jaxpr) -> int:
        inner = [x for e in jaxpr.eqns for x in jax.tree.leaves(list(e.params.values()), is_leaf=has_equations)]
        own = sum(e.primitive.name == ("dot_general" if implementation == "xla" else "mpmd_map") for e in jaxpr.eqns)
        return own + sum(count(getattr(x, "jaxpr", x)) for x in inner if has_equations(x))

    def has_equations(x) -> bool:
        return hasattr(getattr(x, "jaxpr", x), "eqns")

    def programs(policy) -> int:
        f = jax.checkpoint(lambda *a: attention(*a, implementation=implementation).sum(), policy=policy)
        return count(jax.make_jaxpr(jax.grad(f, (0, 1, 2)))(x, x, x).jaxpr)

    device = AbstractDevice(device_kind="NVIDIA H200", num_cores=132, platform="gpu")
    with jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=device)):
        once, twice = programs(save), programs(jax.checkpoint_policies.nothing_saveable)
        assert once == programs(jax.checkpoint_policies.everything_saveable)
    assert once < twice
