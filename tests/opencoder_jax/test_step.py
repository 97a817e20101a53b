"""The train step on one device: sums and divisors, accumulation, decay, clip, what happens to non-finite updates."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from opencoder_jax import model as lm
from opencoder_jax.checkpoint import plain
from opencoder_jax.input import TrainingData
from opencoder_jax.optimizer import decayed, learning_rate
from opencoder_jax.sharding import make_mesh
from opencoder_jax.step import _wide, all_finite, make_train_step
from tests.opencoder_jax.training import VOCAB, micro_config, write_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("step") / "shards")


# The tests compile much and compute little.
QUICK = {"xla_backend_optimization_level": 0}


@functools.cache
def _built(shards, changes):
    config = micro_config(shards, **dict(changes))
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    with jax.set_mesh(mesh):
        train = make_train_step(config, mesh)
        step = train.step.lower(train.abstract_state, train.abstract_batch).compile(QUICK)
    data = TrainingData(config.data, vocab_size=VOCAB, seed=0).steps(grad_accum=config.grad_accum)
    return config, dataclasses.replace(train, step=step), jax.device_put(data[0])


def one_device(shards, **changes):
    """(config, TrainStep with the step compiled, batch of step 0)."""
    return _built(shards, tuple(changes.items()))


@functools.cache
def initial(shards):
    _, train, _ = one_device(shards)
    return jax.device_get(train.init(jax.random.key(0)))


def run(shards, train, batch, steps=1):
    """State and metrics after some steps on one batch, from the same start in all tests."""
    state, metrics = jax.device_put(initial(shards)), {}
    for _ in range(steps):
        state, metrics = train.step(state, batch)
    return jax.device_get(state), jax.device_get(metrics)


def test_first_step_is_adamw_by_hand(shards):
    """AdamW's first update in closed form, from gradients of the mean loss that JAX takes of the plain model.

    Inside the warm-up, so that the rate is that of step 0 and of no other.
    """
    config, train, batch = one_device(shards, **{"optimizer.clip_norm": 0.5, "schedule.warmup_steps": 4})
    params = initial(shards)["params"]
    micro = jax.tree.map(lambda x: x[0], batch)

    def mean_loss(p):
        return lm.bind(config.model, p).loss(micro)[0] / micro["loss_mask"].sum()

    loss, grads = jax.jit(jax.value_and_grad(mean_loss), compiler_options=QUICK)(params)
    state, metrics = run(shards, train, batch)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)
    norm = np.sqrt(sum(float((np.asarray(g, np.float64) ** 2).sum()) for g in jax.tree.leaves(grads)))
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-5)
    assert norm > 0.5, "the clip must act in this test"
    lr, o = config.schedule.peak / 4, config.optimizer
    assert float(metrics["learning_rate"]) == pytest.approx(lr)

    def check(path, p, g, new):
        g = np.asarray(g, np.float64) * 0.5 / norm
        update = g / (np.abs(g) + o.eps)  # m / (1 - b1) over the root of v / (1 - b2)
        if not jax.tree_util.keystr(path).endswith("norm']"):
            update = update + o.weight_decay * p
        # Gradients near eps are where float32 rounding shows.
        solid = np.abs(g) > 1e-6
        np.testing.assert_allclose(new[solid], (p - lr * update)[solid], rtol=1e-4, atol=1e-6)

    jax.tree_util.tree_map_with_path(check, plain(params), plain(grads), plain(state["params"]))


def test_every_step_takes_the_rate_of_its_own_index(shards):
    """Step s of a warm-up over four takes (s + 1) / 4 of the peak: reported, and applied to the parameters."""
    config, train, batch = one_device(shards, **{"optimizer.clip_norm": 0.5, "schedule.warmup_steps": 4})
    reported, moved = [], []
    for step in range(6):
        # Always from the same parameters and moments: only the rate differs.
        start = initial(shards) | {"step": np.int32(step)}
        state, metrics = train.step(jax.device_put(start), batch)
        assert int(state["step"]) == step + 1
        reported.append(float(metrics["learning_rate"]))
        moved.append(float(np.linalg.norm(state["params"]["output"][...] - start["params"]["output"][...])))
    np.testing.assert_allclose(reported, config.schedule.peak * np.array([0.25, 0.5, 0.75, 1, 1, 1]), rtol=1e-6)
    np.testing.assert_allclose(np.array(moved) / moved[0], [1, 2, 3, 4, 4, 4], rtol=1e-4)


def test_only_matrices_decay():
    shapes = lm.abstract(micro_config().model)[1]
    flat = {".".join(map(str, path)): value for path, value in nnx.to_flat_state(decayed(shapes))}
    assert {name for name, value in flat.items() if not value} == {
        "final_norm", "layers.attention_norm", "layers.ffn_norm",
    }  # fmt: skip
    assert len(flat) == 12


@pytest.mark.parametrize("accum", [2, 8])
def test_accumulation_gives_the_same_gradients(shards, accum):
    """Micro-batches hold different numbers of targets: a mean of means would differ."""
    _, whole, batch = one_device(shards, z_loss=1e-3)
    state, metrics = run(shards, whole, batch, steps=3)
    _, parts, split = one_device(shards, z_loss=1e-3, grad_accum=accum)
    np.testing.assert_array_equal(split["tokens"].reshape(1, 8, -1), batch["tokens"])
    counts = np.asarray(split["loss_mask"]).sum(axis=(1, 2))
    assert len(set(counts.tolist())) > 1
    state_parts, metrics_parts = run(shards, parts, split, steps=3)
    for name in ("loss", "z_loss", "grad_norm", "tokens"):
        np.testing.assert_allclose(metrics_parts[name], metrics[name], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(state["params"]), jax.tree.leaves(state_parts["params"]), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_batch_split_over_rows_does_not_change_the_mean(shards):
    """A row without any target weighs nothing."""
    _, train, batch = one_device(shards)
    mask, tokens = np.array(batch["loss_mask"]), np.array(batch["tokens"])
    mask[0, 3], tokens[0, 3] = False, 7
    mask, tokens = jax.device_put((mask, tokens))
    _, metrics = run(shards, train, batch | {"loss_mask": mask})
    _, other = run(shards, train, batch | {"loss_mask": mask, "tokens": tokens})
    assert metrics["tokens"] == int(np.asarray(mask).sum())
    np.testing.assert_allclose(metrics["loss"], other["loss"], rtol=1e-6)


def test_z_loss_is_reported_apart(shards):
    _, plain, batch = one_device(shards)
    _, metrics = run(shards, plain, batch)
    _, with_z, _ = one_device(shards, z_loss=1e-2)
    _, metrics_z = run(shards, with_z, batch)
    np.testing.assert_allclose(metrics_z["loss"], metrics["loss"], rtol=1e-6)
    # logsumexp of nearly equal logits is ln V.
    np.testing.assert_allclose(metrics_z["z_loss"], 1e-2 * np.log(VOCAB) ** 2, rtol=0.05)
    assert metrics["z_loss"] == 0
    assert metrics_z["grad_norm"] != metrics["grad_norm"]


def test_non_finite_updates_are_skipped_and_counted(shards):
    _, train, batch = one_device(shards)
    good, _ = run(shards, train, batch)
    before = jax.tree.map(np.copy, good)
    before["params"]["embed"].get_value()[int(batch["tokens"][0, 0, 0]), 0] = np.inf
    nan_filled = jax.device_put(before)
    for count in (1, 2):
        nan_filled, metrics = train.step(nan_filled, batch)
        assert [int(metrics["nonfinite"]), int(metrics["skipped"])] == [count, count]
    after = jax.device_get(nan_filled)
    assert int(after["step"]) == int(before["step"]) + 2
    for name in ("params", "opt_state"):
        for a, b in zip(jax.tree.leaves(before[name]), jax.tree.leaves(after[name]), strict=True):
            np.testing.assert_array_equal(a, b)
    healed = jax.device_put(after | {"params": good["params"]})
    healed, metrics = train.step(healed, batch)
    assert [int(metrics["nonfinite"]), int(metrics["skipped"])] == [0, 2]
    assert np.isfinite(metrics["loss"])


def test_an_update_whose_gradient_alone_overflows_is_skipped(shards):
    """Minute embeddings under a huge last norm scale: an ordinary loss, and gradients whose squares are not finite."""
    _, train, batch = one_device(shards)
    start = jax.tree.map(np.copy, initial(shards))
    for name, factor in (("embed", 1e-19), ("final_norm", 1e19)):
        start["params"][name].set_value(start["params"][name].get_value() * np.float32(factor))
    state, metrics = jax.device_get(train.step(jax.device_put(start), batch))
    assert metrics["loss"] < 100
    assert not np.isfinite(metrics["grad_norm"])
    assert [int(metrics["nonfinite"]), int(metrics["skipped"])] == [1, 1]
    jax.tree.map(np.testing.assert_array_equal, state["params"], start["params"])


def test_sums_are_kept_in_fp32_at_least_and_counts_as_integers(shards):
    """Of micro-batches with weights in bf16: the gradient is that of one batch to far less than bf16's 2^-9."""
    wide = {dtype: _wide(jnp.dtype(dtype)) for dtype in ("bfloat16", "float16", "float32", "int32")}
    assert wide == {"bfloat16": "float32", "float16": "float32", "float32": "float32", "int32": "int32"}
    norms = []
    for accum in (1, 8):
        _, train, batch = one_device(shards, grad_accum=accum, **{"model.param_dtype": "bfloat16"})
        _, metrics = train.step(jax.jit(train.init)(jax.random.key(0)), batch)
        assert metrics["tokens"].dtype == jnp.int32
        norms.append(float(metrics["grad_norm"]))
    assert norms[1] == pytest.approx(norms[0], rel=5e-4)


def rates(steps, **changes) -> np.ndarray:
    config = micro_config(**{f"schedule.{k}": v for k, v in changes.items()}).schedule
    schedule = learning_rate(config, steps)
    return np.asarray(jax.jit(jax.vmap(schedule))(jnp.arange(steps)))


def test_wsd_is_the_paper_s():
    """Warm-up over 2,000 steps to 3e-4 and constant; annealing: a run of its own from 3e-4 towards 1e-5."""
    got = rates(3000, peak=3e-4, final=1e-5, warmup_steps=2000)
    expected = 3e-4 * np.minimum((np.arange(3000) + 1) / 2000, 1)
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    got = rates(500, peak=3e-4, final=1e-5, warmup_steps=0, decay_steps=500)
    np.testing.assert_allclose(got, 3e-4 * (1e-5 / 3e-4) ** (np.arange(500) / 500), rtol=1e-4)


def test_wsd_in_one_run():
    got = rates(100, peak=1.0, final=0.1, warmup_steps=10, decay_steps=20)
    np.testing.assert_allclose(got[:10], np.arange(1, 11) / 10, rtol=1e-5)
    np.testing.assert_allclose(got[10:80], 1.0)
    np.testing.assert_allclose(got[80:], 0.1 ** (np.arange(20) / 20), rtol=1e-4)


def test_cosine():
    got = rates(110, kind="cosine", peak=2.0, final=0.2, warmup_steps=10)
    np.testing.assert_allclose(got[:10], np.arange(1, 11) / 5, rtol=1e-5)
    np.testing.assert_allclose(got[10:], 0.2 + 0.9 * (1 + np.cos(np.pi * np.arange(100) / 100)), rtol=1e-5)


def test_schedule_errors():
    with pytest.raises(ValueError, match="choose wsd or cosine"):
        rates(10, kind="linear")
    with pytest.raises(ValueError, match="exceed num_steps=10"):
        rates(10, warmup_steps=8, decay_steps=3)


def test_optimizer_state_holds_no_schedule(shards):
    """Annealing inherits the moments of another run; a step count of the schedule in them would move its start."""
    _, train, _ = one_device(shards)
    state = train.abstract_state["opt_state"]
    assert [type(s) for s in state] == [optax.EmptyState, optax.ScaleByAdamState, optax.MaskedState]


def test_an_update_that_makes_weights_infinite_is_skipped_whole(shards):
    """Loss and gradients are finite, the new weights or moments are not: nothing of the update is kept."""
    _, train, batch = one_device(
        shards, **{"schedule.peak": 3e38, "schedule.warmup_steps": 0, "optimizer.weight_decay": 1e3}
    )
    state, metrics = run(shards, train, batch, steps=2)
    assert np.isfinite([metrics["loss"], metrics["grad_norm"]]).all()
    assert (metrics["nonfinite"], metrics["skipped"], state["step"]) == (2, 2, 2)
    before = initial(shards)
    jax.tree.map(np.testing.assert_array_equal, state["params"], before["params"])
    jax.tree.map(np.testing.assert_array_equal, state["opt_state"], before["opt_state"])


def test_all_finite_sees_one_number():
    good = {"a": jnp.zeros((3, 4)), "b": (jnp.ones(2, jnp.int32), jnp.zeros((), jnp.bfloat16))}
    assert all_finite(good)
    for value in (jnp.nan, jnp.inf, -jnp.inf):
        assert not all_finite(good | {"a": good["a"].at[2, 3].set(value)})
        assert not all_finite(good | {"b": (good["b"][0], jnp.asarray(value, jnp.bfloat16))})
