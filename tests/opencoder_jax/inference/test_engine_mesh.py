"""The engine on meshes of eight fake devices gives the tokens of one device, and shards weights and cache."""

from __future__ import annotations

import json
import sys

import pytest

from tests.opencoder_jax.training import FAST_COMPILE, fake_devices, run_python

MIXED = "data=2,fsdp=2,tensor=2"
MESHES = [MIXED, "data=8", "tensor=8", "fsdp=8"]


def child() -> None:
    """In a process with eight fake devices: tokens, scores and bytes per device without a mesh and on that of the argument."""
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
    prompts = [rng.integers(0, 256, n).tolist() for n in (3, 20, 9, 150, 7, 31)]
    results = []
    for text in ("", sys.argv[1]):
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


@pytest.mark.parametrize("mesh", [MIXED, *(pytest.param(m, marks=pytest.mark.slow) for m in MESHES[1:])])
def test_tokens_are_those_of_one_device_and_weights_and_cache_are_sharded(mesh):
    code = "from tests.opencoder_jax.inference.test_engine_mesh import child; child()"
    one, many = run_python(code, mesh, variables=fake_devices(8, FAST_COMPILE))
    assert many["tokens"] == one["tokens"]
    assert len({tuple(t) for t in one["tokens"]}) == len(one["tokens"])
    for a, b in zip(one["scores"], many["scores"], strict=True):
        assert a == pytest.approx(b, abs=1e-4)
    assert many["listed"]
    assert many["slots"] == (5 if mesh == "tensor=8" else 8)  # rounded up to a multiple of data x fsdp
    whole = one["bytes"] * many["slots"] / 5
    assert many["bytes"] < whole * (0.7 if mesh == "data=8" else 0.3)  # data shards the cache alone
