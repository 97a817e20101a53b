"""A few steps of `tiny` with interpreted kernels, chosen by the one config field, equal the same steps with XLA."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import jax
import numpy as np
import pytest
from opencoder_kernels import chosen, interpret

from configs.tiny import config as tiny
from opencoder_jax.config import MeshConfig
from opencoder_jax.sharding import make_mesh
from opencoder_jax.step import make_train_step

STEPS, T, VOCAB = 3, 128, 512


def batch(rng) -> dict[str, np.ndarray]:
    """Random packed documents, [1, 2, T]."""
    starts = rng.random((1, 2, T)) < 0.03
    starts[..., 0] = True
    place = np.broadcast_to(np.arange(T), starts.shape)
    tokens = rng.integers(VOCAB, size=(1, 2, T + 1)).astype(np.int32)
    return {
        "tokens": tokens[..., :-1],
        "targets": tokens[..., 1:],
        "positions": (place - np.maximum.accumulate(np.where(starts, place, 0), -1)).astype(np.int32),
        "segment_ids": np.cumsum(starts, -1).astype(np.int32),
        "loss_mask": rng.random(starts.shape) < 0.9,
    }


def losses(implementation: str, dtype: str, seed: int, interpreter, mesh_is_set: bool):
    """Loss and gradient norm of each step; tiny with one layer and a smaller vocabulary."""
    config = tiny()
    model = replace(
        config.model, implementation=implementation, compute_dtype=dtype, num_layers=1, scan_unroll=1, vocab_size=VOCAB
    )
    data = replace(config.data, seq_len=T, global_batch_size=2)
    config = replace(config, model=model, data=data, z_loss=1e-4, schedule=replace(config.schedule, warmup_steps=1))
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    rng, out = np.random.default_rng(seed), []
    with jax.set_mesh(mesh):
        train = make_train_step(config, mesh)
        state = train.init(jax.random.key(seed))
    with jax.set_mesh(mesh) if mesh_is_set else contextlib.nullcontext(), interpreter:
        for _ in range(STEPS):
            state, metrics = train.step(state, batch(rng))
            out.append((float(metrics["loss"]), float(metrics["grad_norm"])))
    assert set(chosen().values()) == {implementation}
    return np.array(out)


pytestmark = pytest.mark.slow


def test_tpu_kernels_train_as_xla():
    seed = int(np.random.default_rng().integers(2**31))
    want = losses("xla", "float32", seed, contextlib.nullcontext(), True)
    got = losses("tpu", "float32", seed, interpret.tpu(), True)
    np.testing.assert_allclose(got, want, rtol=2e-4, err_msg=str(seed))


def test_hopper_kernels_train_as_xla():
    """Without a mesh: the interpreter of Mosaic GPU puts one of its own, of an absent GPU, in its place."""
    seed = int(np.random.default_rng().integers(2**31))
    want = losses("xla", "bfloat16", seed, contextlib.nullcontext(), False)
    got = losses("mosaic_gpu", "bfloat16", seed, interpret.gpu(), False)
    np.testing.assert_allclose(got, want, rtol=1e-2, err_msg=str(seed))
    assert want[-1, 0] < want[0, 0] + 1  # no run that diverges
