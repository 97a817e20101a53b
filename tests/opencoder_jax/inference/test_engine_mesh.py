"""The engine on meshes of eight fake devices gives the tokens of one device, and shards weights and cache."""

from __future__ import annotations

import json

import pytest

from tests.opencoder_jax.training import FAST_COMPILE, fake_devices, run_python

MESHES = ["data=8", "tensor=8", "fsdp=8", "data=2,fsdp=2,tensor=2"]


def child() -> None:
    """In a process with eight fake devices: tokens, scores and bytes per device without a mesh and on each."""
    import jax
    import numpy as np

    from opencoder_jax import model as lm
    from opencoder_jax.config import ModelConfig
    from opencoder_jax.inference.engine import Engine, Request
    from opencoder_jax.inference.load import mesh_of
    from opencoder_jax.inference.sampling import Sampling

    cfg = ModelConfig(
        num_layers=2, embed_dim=64, num_query_heads=8, num_kv_heads=8, head_dim=8, ffn_dim=128, vocab_size=256,
        max_seq_len=256, init_std=0.3, compute_dtype="float32",
    )  # fmt: skip
    params = lm.init(cfg, jax.random.key(0))
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, 256, n).tolist() for n in (3, 20, 50, 150, 7, 8, 9, 30, 31, 32, 40)]
    results = []
    for text in ["", *MESHES]:
        engine = Engine(cfg, params, slots=5, mesh=mesh_of(text))
        rows = [engine.add(Request(p, Sampling(20, 0.8 * (i % 2), seed=i))) for i, p in enumerate(prompts)]
        list(engine.run())
        leaves = jax.tree.leaves((engine.weights, engine._cache))
        scores = engine.score(prompts[:3])
        results.append(
            {
                "tokens": [r.drawn for r in rows],
                "scores": [s.log_probs[1:].tolist() for s in scores],
                "bytes": max(
                    sum(s.data.nbytes for x in leaves for s in x.addressable_shards if s.device == d)
                    for d in jax.devices()
                ),
                "slots": engine.slots,
                "listed": engine.used <= set(engine.shapes.programs()),
            }
        )
    print(json.dumps(results))


@pytest.fixture(scope="module")
def results():
    code = "from tests.opencoder_jax.inference.test_engine_mesh import child; child()"
    return run_python(code, variables=fake_devices(8, FAST_COMPILE))


@pytest.mark.parametrize("index", range(len(MESHES)), ids=MESHES)
def test_tokens_are_those_of_one_device(results, index):
    one, many = results[0], results[1 + index]
    assert many["tokens"] == one["tokens"]
    assert len({tuple(t) for t in one["tokens"]}) == 11
    for a, b in zip(one["scores"], many["scores"], strict=True):
        assert a == pytest.approx(b, abs=1e-4)
    assert many["listed"] and many["slots"] % 2 == (1 if MESHES[index] == "tensor=8" else 0)


def test_weights_and_cache_are_sharded(results):
    """Over all axes; data shards the cache alone."""
    whole = results[0]["bytes"]
    for mesh, result in zip(MESHES, results[1:], strict=True):
        cache_and_weights = whole * result["slots"] / 5  # at most: slots are rounded up
        assert result["bytes"] < cache_and_weights * (0.7 if mesh == "data=8" else 0.3), mesh
