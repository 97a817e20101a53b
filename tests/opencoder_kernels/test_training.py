"""`tiny` trained for a few steps with interpreted kernels, chosen by the one config field, equals the same steps with XLA.

The configuration is that of configs/tiny.py: layers, vocabulary, sequence, batch. Added are a z-loss, so that its path is run too,
and a learning rate that is high from the first step on. The Hopper interpreter needs minutes for that, so that a model cut down to
one layer and few words goes before it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from opencoder_kernels import chosen, interpret

from configs.tiny import config as tiny
from opencoder_jax.config import MeshConfig, RunConfig
from opencoder_jax.sharding import make_mesh
from opencoder_jax.step import make_train_step
from tests.opencoder_kernels.compare import HOPPER_INTERPRETER

pytestmark = pytest.mark.slow


def whole(implementation: str, dtype: str) -> RunConfig:
    config = tiny()
    model = replace(config.model, implementation=implementation, compute_dtype=dtype)
    return replace(config, model=model, z_loss=1e-4, schedule=replace(config.schedule, warmup_steps=1))


def cut(config: RunConfig) -> RunConfig:
    model = replace(config.model, num_layers=1, scan_unroll=1, vocab_size=512)
    return replace(config, model=model, data=replace(config.data, seq_len=128, global_batch_size=1))


def batch(rng, config: RunConfig) -> dict[str, np.ndarray]:
    """Random packed documents, [1, B, T]."""
    B, T, V = config.data.global_batch_size, config.data.seq_len, config.model.vocab_size
    starts = rng.random((1, B, T)) < 0.03
    starts[..., 0] = True
    place = np.broadcast_to(np.arange(T), starts.shape)
    tokens = rng.integers(V, size=(1, B, T + 1)).astype(np.int32)
    return {
        "tokens": tokens[..., :-1],
        "targets": tokens[..., 1:],
        "positions": (place - np.maximum.accumulate(np.where(starts, place, 0), -1)).astype(np.int32),
        "segment_ids": np.cumsum(starts, -1).astype(np.int32),
        "loss_mask": rng.random(starts.shape) < 0.9,
    }


def losses(config: RunConfig, seed: int, steps: int, interpreter: Callable[[], Any] = contextlib.nullcontext):
    """Loss and gradient norm of each step."""
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    rng, out = np.random.default_rng(seed), []
    with jax.set_mesh(mesh):
        train = make_train_step(config, mesh)
        state = train.init(jax.random.key(seed))
    with jax.set_mesh(mesh), interpreter():
        for _ in range(steps):
            state, metrics = train.step(state, batch(rng, config))
            out.append((float(metrics["loss"]), float(metrics["grad_norm"])))
    assert set(chosen().values()) == {config.model.implementation}
    return np.array(out)


def check_hopper(steps: int, size=lambda config: config) -> None:
    seed = int(np.random.default_rng().integers(2**31))
    want = losses(size(whole("xla", "bfloat16")), seed, steps)
    got = losses(size(whole("mosaic_gpu", "bfloat16")), seed, steps, interpret.gpu)
    np.testing.assert_allclose(got, want, rtol=1e-2, err_msg=str(seed))


@HOPPER_INTERPRETER
def test_hopper_kernels_train_a_cut_down_tiny_as_xla():
    check_hopper(3, cut)


def test_tpu_kernels_train_tiny_as_xla():
    seed = int(np.random.default_rng().integers(2**31))
    want = losses(whole("xla", "float32"), seed, 3)
    got = losses(whole("tpu", "float32"), seed, 3, interpret.tpu)
    np.testing.assert_allclose(got, want, rtol=2e-4, err_msg=str(seed))


@pytest.mark.timeout(2400)  # 4 minutes a step, nearly all of it in the products over the vocabulary
@HOPPER_INTERPRETER
def test_hopper_kernels_train_tiny_as_xla():
    check_hopper(2)
