"""The table of names and layouts, and parity with Hugging Face's LlamaForCausalLM in fp32."""

import json
from dataclasses import asdict, replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracle import client, golden

from opencoder_jax import model as lm
from opencoder_jax import sharding
from opencoder_jax.hf import mapping as hf
from opencoder_jax.overrides import load
from opencoder_jax.step import make_train_step

TOLERANCE = 1e-4  # of the largest entry (arrays) or of the norm
FAMILIES = list(golden.FAMILIES)


def relative(a, b) -> float:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.abs(a - b).max() / np.abs(b).max())


@cache
def ours(family: str, seed: int):
    """logits, loss and gradients under Hugging Face's names, as the oracle gives them."""
    cfg = golden.FAMILIES[family]
    params = hf.from_hf(cfg, golden.weights(cfg, seed))
    one = {name: array[0] for name, array in golden.batches(cfg, seed, 1).items()}
    batch = {
        "tokens": jnp.asarray(one["tokens"], jnp.int32),
        "targets": jnp.asarray(one["targets"], jnp.int32),
        "positions": jnp.broadcast_to(jnp.arange(golden.T), one["tokens"].shape),
        "segment_ids": jnp.ones(one["tokens"].shape, jnp.int32),
        "loss_mask": jnp.asarray(one["mask"] > 0),
    }

    @jax.jit
    def run(params):
        model = lm.bind(cfg, params)
        logits = model.logits(model(batch["tokens"], batch["positions"], batch["segment_ids"]))
        return logits, jax.value_and_grad(lambda p: lm.bind(cfg, p).loss(batch)[0])(params)

    logits, (loss, grads) = run(params)
    return {"logits": np.asarray(logits), "loss": float(loss)} | {
        f"grad.{name}": g for name, g in hf.to_hf(cfg, jax.device_get(grads)).items()
    }


@cache
def trajectory(family: str, seed: int) -> np.ndarray:
    """Losses of the trainer's own step over the oracle's batches."""
    cfg = golden.FAMILIES[family]
    config = golden.run_config(cfg)
    mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
    with jax.set_mesh(mesh):
        ts = make_train_step(config, mesh)
        state = ts.init(jax.random.key(0))
        params = hf.from_hf(cfg, golden.weights(cfg, seed))
        state["params"] = jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), params, state["params"])
        losses = []
        batches = golden.batches(cfg, seed, golden.STEPS)
        for tokens, targets, mask in zip(*batches.values(), strict=True):
            batch = {
                "tokens": tokens.astype(np.int32),
                "targets": targets.astype(np.int32),
                "positions": np.broadcast_to(np.arange(golden.T, dtype=np.int32), tokens.shape),
                "segment_ids": np.ones(tokens.shape, np.int32),
                "loss_mask": mask > 0,
            }
            batch = {name: jax.device_put(x[None], ts.abstract_batch[name].sharding) for name, x in batch.items()}
            state, metrics = ts.step(state, batch)
            losses.append(float(metrics["loss"]))
    return np.array(losses)


@pytest.fixture(scope="module")
def stored():
    with np.load(golden.GOLDEN) as file:
        arrays = {name: file[name] for name in file.files}
    known = json.loads(str(arrays["config"]))
    assert known == {k: json.loads(json.dumps(asdict(v))) for k, v in golden.FAMILIES.items()}, (
        "the golden arrays are of other models: run python -m oracle.golden"
    )
    return arrays


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_equal_the_golden_ones(family, stored):
    mine = ours(family, 0)
    assert mine["loss"] == pytest.approx(float(stored[f"{family}/loss"]), rel=1e-5)
    names = [name.split("/", 1)[1] for name in stored if name.startswith(f"{family}/grad.")]
    assert len(names) == len(hf.table(golden.FAMILIES[family]))
    for name in ["logits", *names]:
        assert relative(golden.sample(name, mine[name]), stored[f"{family}/{name}"]) < TOLERANCE, name


@pytest.mark.parametrize("family", FAMILIES)
def test_training_trajectory_equals_the_golden_one(family, stored):
    losses, expected = trajectory(family, 0), stored[f"{family}/losses"]
    assert len(expected) == 50
    assert expected[-1] < 0.8 * expected[0]  # it learns, so that equality says something
    np.testing.assert_allclose(losses, expected, rtol=1e-3)


@pytest.mark.oracle
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_parity_with_the_oracle(family, seed, tmp_path):
    theirs = golden.oracle_results(golden.FAMILIES[family], seed, tmp_path)
    mine = ours(family, seed)
    assert mine["loss"] == pytest.approx(float(theirs["loss"]), rel=1e-5)
    for name in [n for n in theirs if n == "logits" or n.startswith("grad.")]:
        assert relative(mine[name], theirs[name]) < TOLERANCE, name
    np.testing.assert_allclose(trajectory(family, seed), theirs["losses"], rtol=1e-3)


@pytest.mark.parametrize("name", ["1p5b", "8b", "tiny"])
def test_table_covers_both_sides_exactly_once(name):
    cfg = load(name).model
    rows = hf.table(cfg)
    assert len({row.name for row in rows}) == len(rows) == 3 + 9 * cfg.num_layers
    assert sum(np.prod(row.shape) for row in rows) == lm.num_params(cfg)
    slices = {(row.path, row.layer) for row in rows}
    assert slices == {
        (path, layer)
        for path, _ in nnx.to_flat_state(lm.abstract(cfg)[1])
        for layer in (range(cfg.num_layers) if path[0] == "layers" else [None])
    }


def test_names_and_shapes_of_the_published_model():
    shapes = {row.name: row.shape for row in hf.table(load("8b").model)}
    assert shapes["model.embed_tokens.weight"] == (96_640, 4_096)
    assert shapes["model.layers.31.self_attn.q_proj.weight"] == (4_096, 4_096)
    assert shapes["model.layers.0.self_attn.k_proj.weight"] == (1_024, 4_096)
    assert shapes["model.layers.0.self_attn.o_proj.weight"] == (4_096, 4_096)
    assert shapes["model.layers.7.mlp.down_proj.weight"] == (4_096, 14_336)
    assert shapes["model.layers.7.post_attention_layernorm.weight"] == (4_096,)
    assert shapes["lm_head.weight"] == (96_640, 4_096)


@pytest.mark.parametrize("family", FAMILIES)
def test_round_trip_is_byte_equal(family):
    cfg = golden.FAMILIES[family]
    tensors = golden.weights(cfg, 5)
    back = hf.to_hf(cfg, hf.from_hf(cfg, tensors))
    assert back.keys() == tensors.keys()
    assert all(back[name].tobytes() == tensors[name].tobytes() for name in tensors)


@pytest.mark.parametrize("name", ["1p5b", "8b", "small"])
def test_config_round_trip(name):
    cfg = load(name).model
    fields = json.loads(json.dumps(hf.hf_config(cfg, dtype="bfloat16", bos_token_id=1, eos_token_id=96_539)))
    # What is not a part of the architecture has no place in their file.
    assert replace(hf.model_config(fields, "x"), remat=cfg.remat) == cfg


def test_published_config_fields():
    """infly/OpenCoder-1.5B-Base config.json as published; ours adds head_dim and, when saved, the version."""
    published = {
        "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1,
        "eos_token_id": 96539, "hidden_act": "silu", "hidden_size": 2240, "initializer_range": 0.02,
        "intermediate_size": 6144, "max_position_embeddings": 4096, "mlp_bias": False, "model_type": "llama",
        "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 14, "pretraining_tp": 1,
        "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 10000.0, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16", "use_cache": True, "vocab_size": 96640,
    }  # fmt: skip
    cfg = load("1p5b").model
    assert replace(hf.model_config(published, "x"), remat=cfg.remat) == cfg
    written = hf.hf_config(cfg, dtype="bfloat16", bos_token_id=1, eos_token_id=96_539)
    assert written == published | {"head_dim": 160}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["Qwen2ForCausalLM"]}, "Qwen2ForCausalLM"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings=True"),
        ({"attention_bias": True}, "attention_bias=True"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "rope_scaling"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type='yarn'"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"num_key_value_heads": 3}, "num_kv_heads=3"),
        ({"intermediate_size": None}, "intermediate_size"),
    ],
)
def test_other_architectures_are_rejected(change, message):
    fields = hf.hf_config(load("tiny").model, dtype="float32", bos_token_id=1, eos_token_id=2) | change
    fields = {k: v for k, v in fields.items() if not (k in change and v is None)}
    with pytest.raises(ValueError, match=message):
        hf.model_config(fields, "config.json")


def test_wrong_tensors_are_rejected():
    cfg = golden.FAMILIES["gqa"]
    tensors = golden.weights(cfg, 0)
    name = "model.layers.1.mlp.up_proj.weight"
    without = {k: v for k, v in tensors.items() if k != name}
    with pytest.raises(ValueError, match=name):
        hf.from_hf(cfg, without)
    with pytest.raises(ValueError, match=r"score\.weight"):
        hf.from_hf(cfg, tensors | {"score.weight": np.zeros((2, 2), np.float32)})
    with pytest.raises(ValueError, match=r"\(64, 160\)"):
        hf.from_hf(replace(cfg, ffn_dim=176), tensors)


def test_the_oracle_environment_is_asked_for_by_name(monkeypatch, tmp_path):
    monkeypatch.setattr(client, "PYTHON", tmp_path / "python")
    with pytest.raises(ValueError, match="make"):
        client.call("train", tmp_path)
