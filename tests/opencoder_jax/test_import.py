"""Hugging Face directories of other makers: tied embeddings, dtypes, shards, foreign tokenizers; errors for what is wrong."""

import json
import struct
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
import tokenizers
from opencoder_data.tokenizer import load_tokenizer
from oracle import golden
from safetensors.numpy import save_file
from tokenizers import decoders, models, pre_tokenizers

from opencoder_jax import model as lm
from opencoder_jax.checkpoint import load_params
from opencoder_jax.config import replace
from opencoder_jax.hf import export as ex
from opencoder_jax.hf import importer
from opencoder_jax.hf import mapping as hf
from opencoder_jax.hf.fields import hf_config
from opencoder_jax.hf.importer import import_model

CFG = replace(golden.FAMILIES["tied"], num_layers=1)
DTYPES = {"fp32": np.float32, "fp16": np.float16, "bf16": ml_dtypes.bfloat16}


def write(directory, tensors, cfg=CFG, files=1, **changes):
    """config.json and the tensors, in one file or several."""
    directory.mkdir(exist_ok=True)
    fields = hf_config(cfg, dtype="float32", bos_token_id=None, eos_token_id=None) | changes
    (directory / "config.json").write_text(json.dumps(fields))
    names = sorted(tensors)
    parts = [names[i::files] for i in range(files)]
    if files == 1:
        save_file(tensors, directory / "model.safetensors", {"format": "pt"})
        return directory
    place = {}
    for i, part in enumerate(parts):
        file = f"model-{i + 1:05d}-of-{files:05d}.safetensors"
        save_file({n: tensors[n] for n in part}, directory / file)
        place |= dict.fromkeys(part, file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": place}))
    return directory


def weights(dtype=np.float32, cfg=CFG):
    return {name: np.ascontiguousarray(x.astype(dtype)) for name, x in golden.weights(cfg, 0).items()}


def byte_level():
    """A tokenizer.json that knows bytes and two special tokens."""
    names = ["<|endoftext|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())[:150]]
    engine = tokenizers.Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, []))
    engine.pre_tokenizer, engine.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    engine.add_special_tokens(names[:2])
    return engine


@pytest.mark.parametrize(("dtype", "files"), [("fp32", 1), ("fp16", 3), ("bf16", 3)])
def test_round_trip_of_each_dtype_is_byte_equal(tmp_path, dtype, files):
    """Theirs -> ours -> theirs; a tied model has no output matrix on either side."""
    source = write(tmp_path / "hf", weights(DTYPES[dtype]), files=files)
    run = import_model(source, tmp_path / "run")
    params, config, _ = load_params(run)
    assert "output" not in params
    assert config.model.tie_word_embeddings
    assert config.model.rope_scaling == CFG.rope_scaling
    again = ex.export(run, tmp_path / "again", dtype=dtype)
    assert json.loads((again / "config.json").read_text())["tie_word_embeddings"] is True
    back = importer.HfDirectory(again)
    assert back.shapes.keys() == weights().keys()
    for name, array in weights(DTYPES[dtype]).items():
        assert back.read(name).dtype == DTYPES[dtype]
        assert back.read(name).tobytes() == array.tobytes(), name


def test_a_copy_of_the_tied_embedding_must_be_one(tmp_path):
    tensors = weights()
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    assert import_model(write(tmp_path / "a", tensors), tmp_path / "run").is_dir()
    tensors["lm_head.weight"][0, 0] += 1
    with pytest.raises(ValueError, match=r"lm_head.weight differs"):
        import_model(write(tmp_path / "b", tensors), tmp_path / "run2")


def test_an_untied_model_without_output_matrix_is_told_of_tying(tmp_path):
    source = write(tmp_path / "hf", weights(), tie_word_embeddings=False)
    with pytest.raises(ValueError, match=r"lm_head\.weight.*tie_word_embeddings"):
        import_model(source, tmp_path / "run")


def test_tied_logits_and_gradient_are_of_one_matrix():
    """The gradient of the embedding is the sum of what the two uses give."""
    cfg = replace(CFG, rope_scaling=golden.FAMILIES["gqa"].rope_scaling)
    untied = replace(cfg, tie_word_embeddings=False)
    tensors = weights(cfg=cfg)
    tied = hf.from_hf(cfg, tensors)
    apart = hf.from_hf(untied, tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]})
    draw = np.random.RandomState(0)
    tokens, targets = (draw.randint(0, cfg.vocab_size, (2, 8)).astype(np.int32) for _ in range(2))
    batch = {
        "tokens": tokens, "targets": targets, "positions": np.arange(8, dtype=np.int32) + np.zeros((2, 1), np.int32),
        "segment_ids": np.ones((2, 8), np.int32), "loss_mask": np.ones((2, 8), bool),
    }  # fmt: skip

    def loss_and_gradient(cfg, params):
        return jax.value_and_grad(lambda p: lm.bind(cfg, p).loss(jax.tree.map(jax.numpy.asarray, batch))[0])(params)

    (a, grads), (b, both) = loss_and_gradient(cfg, tied), loss_and_gradient(untied, apart)
    assert float(a) == pytest.approx(float(b), rel=1e-6)
    together = np.asarray(both["embed"][...]) + np.asarray(both["output"][...]).T
    np.testing.assert_allclose(np.asarray(grads["embed"][...]), together, rtol=1e-4, atol=1e-5)
    assert lm.num_params(untied) - lm.num_params(cfg) == cfg.vocab_size * cfg.embed_dim


def test_a_foreign_tokenizer_comes_along(tmp_path):
    source = write(tmp_path / "hf", weights())
    byte_level().save(str(source / "tokenizer.json"))
    (source / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>", "chat_template": "{{ x }}"}')
    (source / "generation_config.json").write_text('{"eos_token_id": [1, 0]}')
    run = import_model(source, tmp_path / "run")
    tokenizer = load_tokenizer(run)
    assert tokenizer.encode("a b") == byte_level().encode("a b").ids
    assert (tokenizer.chat_template, tokenizer.end_ids) == ("{{ x }}", (1, 0))
    again = ex.export(run, tmp_path / "again")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (again / name).read_bytes() == (source / name).read_bytes()
    assert json.loads((again / "generation_config.json").read_text())["eos_token_id"] == [1, 0]
    assert json.loads((again / "config.json").read_text())["eos_token_id"] == 1


def corrupt(kind, source):
    """Returns what the error must name."""
    file = source / "model-00002-of-00003.safetensors"
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    name = next(n for n in header if n != "__metadata__")
    if kind == "short":
        file.write_bytes(data[:-1])
    elif kind == "no header":
        file.write_bytes(b"\xff" * 100)
    elif kind == "entry":
        del header[name]["dtype"]
    elif kind == "dtype":
        header[name]["dtype"] = "I8"
    elif kind == "twice":
        file.write_bytes((source / "model-00001-of-00003.safetensors").read_bytes())
    elif kind == "missing tensor":
        tensors = {n: x for n, x in weights().items() if n != "model.norm.weight"}
        write(source, tensors, files=3)
        return "first model.norm.weight"
    elif kind == "extra tensor":
        write(source, weights() | {"model.layers.0.self_attn.q_proj.bias": np.zeros(4, np.float32)}, files=3)
        return r"q_proj\.bias"
    elif kind == "shape":
        write(source, weights() | {"model.norm.weight": np.zeros(7, np.float32)}, files=3)
        return r"model\.norm\.weight is \(7,\)"
    elif kind == "index":
        (source / "model.safetensors.index.json").write_text('{"weight_map": []}')
        return "index.json"
    elif kind == "pickle":
        for path in source.glob("*.safetensors*"):
            path.unlink()
        (source / "pytorch_model.bin").write_bytes(b"x")
        return "save it as safetensors"
    if kind in ("entry", "dtype"):
        text = json.dumps(header).encode()
        file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
        return name
    return file.name


KINDS = ["short", "no header", "entry", "dtype", "twice", "missing tensor", "extra tensor", "shape", "index", "pickle"]


@pytest.mark.parametrize("kind", KINDS)
def test_corrupt_directories_are_one_clear_line(tmp_path, kind):
    source = write(tmp_path / "hf", weights(), files=3)
    named = corrupt(kind, source)
    (tmp_path / "to").mkdir()
    with pytest.raises(ValueError, match=named) as error:
        import_model(source, tmp_path / "to" / "run")
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "to").iterdir())


def test_a_tokenizer_of_another_maker_without_its_json_is_rejected(tmp_path):
    """Its ids would be taken for OpenCoder's."""
    from opencoder_data.tokenizer.train import train

    source = write(tmp_path / "hf", weights())
    train([Path(__file__).read_text()] * 3, 512, source, num_threads=1, progress=False)
    for extra in source.glob("*"):
        if extra.suffix == ".json" and extra.name.startswith("tokenizer"):
            extra.unlink()
    settings = {"added_tokens_decoder": {"0": {"content": "<unk>"}, "1": {"content": "<s>"}}}
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="not OpenCoder's"):
        import_model(source, tmp_path / "run")


def test_fp16_that_would_overflow_is_an_error(tmp_path):
    tensors = weights()
    tensors["model.norm.weight"][0] = 1e5
    run = import_model(write(tmp_path / "hf", tensors), tmp_path / "run")
    with pytest.raises(ValueError, match=r"model\.norm\.weight has values above"):
        ex.export(run, tmp_path / "out", dtype="fp16")
    assert not (tmp_path / "out").exists()
