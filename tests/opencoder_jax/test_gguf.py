"""GGUF both ways: layouts, quantizations against the gguf package itself, byte-equal round trips, errors for what is wrong."""

import json
import shutil
from pathlib import Path

import gguf
import jax
import ml_dtypes
import numpy as np
import pytest
from opencoder_data.tokenizer import Tokenizer, load_tokenizer
from opencoder_data.tokenizer.train import train
from oracle import golden

from opencoder_jax import model as lm
from opencoder_jax.checkpoint import load_params, plain, run_record
from opencoder_jax.config import RopeScaling, replace
from opencoder_jax.hf import export as ex
from opencoder_jax.hf import gguf_names, importer
from opencoder_jax.hf import mapping as hf
from opencoder_jax.hf.gguf_export import add_field, export_gguf
from opencoder_jax.hf.gguf_source import GgufFile
from opencoder_jax.hf.importer import import_model

CFG = replace(golden.FAMILIES["gqa"], vocab_size=512)
TIED = replace(golden.FAMILIES["tied"], vocab_size=512)
_Type = gguf.GGMLQuantizationType


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = [Path(__file__).read_text(), Path(ex.__file__).read_text(), Path(lm.__file__).read_text()]
    return Tokenizer(train(texts, 512, tmp_path_factory.mktemp("tokenizer"), num_threads=1, progress=False))


def make_run(directory, cfg, tokenizer, seed=0):
    config = importer.imported_config(cfg, "small")
    importer.save(
        directory / "checkpoints" / "0",
        {"params": plain(hf.from_hf(cfg, golden.weights(cfg, seed)))},
        run_record(config, 0, {"tokenizer": tokenizer.hash}),
        1.0,
    )
    shutil.copyfile(tokenizer.path, directory / "tokenizer.model")
    return directory


@pytest.fixture(scope="module", params=["gqa", "tied"])
def run(request, tmp_path_factory, tokenizer):
    cfg = {"gqa": CFG, "tied": TIED}[request.param]
    return make_run(tmp_path_factory.mktemp("runs") / request.param, cfg, tokenizer)


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    file = tmp_path_factory.mktemp("gguf") / "model.gguf"
    print(export_gguf(run, file, dtype="f32"))
    return file


@pytest.fixture(scope="module")
def plain_file(tokenizer, tmp_path_factory):
    """Untied, without scaling: for what does not depend on either."""
    run = make_run(tmp_path_factory.mktemp("runs") / "plain", CFG, tokenizer)
    export_gguf(run, run / "model.gguf", dtype="f32")
    return run / "model.gguf"


def tensors(path):
    return {t.name: t for t in gguf.GGUFReader(path).tensors}


def test_what_turns_together_is_neighbours_in_llama_cpp():
    """Row i of a head and row i + H/2, which rotary embedding turns as a pair."""
    rows = np.arange(12)[:, None] * np.ones((1, 3))
    assert gguf_names.interleave(rows, 2)[:, 0].tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]
    np.testing.assert_array_equal(gguf_names.separate(gguf_names.interleave(rows, 2), 2), rows)


def test_names_are_those_of_the_gguf_package():
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, CFG.num_layers)
    for row in hf.table(CFG):
        assert gguf_names.to_gguf(row.name) == names.get_name(row.name, (".weight",))
        assert gguf_names.to_hf(gguf_names.to_gguf(row.name)) == row.name


def test_f32_round_trip_is_byte_equal(run, exported, tmp_path):
    """ours -> GGUF -> ours -> GGUF."""
    back = import_model(exported, tmp_path / "back")
    params, config, record = load_params(back)
    jax.tree.map(np.testing.assert_array_equal, params, load_params(run)[0])
    assert replace(config.model, compute_dtype="float32", remat="none") == load_params(run)[1].model
    assert record["imported_from"] == "small"
    export_gguf(back, tmp_path / "again.gguf", dtype="f32")
    first, again = tensors(exported), tensors(tmp_path / "again.gguf")
    assert first.keys() == again.keys()
    assert all(first[n].data.tobytes() == again[n].data.tobytes() for n in first)


def test_f16_round_trip_is_byte_equal(run, tmp_path):
    export_gguf(run, tmp_path / "a.gguf", dtype="f16")
    export_gguf(import_model(tmp_path / "a.gguf", tmp_path / "run"), tmp_path / "b.gguf", dtype="f16")
    a, b = tensors(tmp_path / "a.gguf"), tensors(tmp_path / "b.gguf")
    assert {t.tensor_type for t in a.values()} == {_Type.F32, _Type.F16}
    assert all(a[n].data.tobytes() == b[n].data.tobytes() for n in a)


def test_hugging_face_round_trip_through_gguf_is_byte_equal(run, exported, tmp_path):
    """ours -> Hugging Face, and ours -> GGUF -> ours -> Hugging Face."""
    direct = ex.export(run, tmp_path / "direct", dtype="fp32")
    around = ex.export(import_model(exported, tmp_path / "run"), tmp_path / "around", dtype="fp32")
    assert (direct / "model.safetensors").read_bytes() == (around / "model.safetensors").read_bytes()
    fields = [json.loads((d / "config.json").read_text()) for d in (direct, around)]
    # The initial deviation is not of a GGUF file.
    assert fields[0] == fields[1]


def rewrite(path, to, change=lambda fields, tensors: None, kind=None):
    """The file once more, with other fields, tensors (name -> fp32 array) or quantization."""
    reader = gguf.GGUFReader(path)
    fields = {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}
    arrays = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}
    change(fields, arrays)
    writer = gguf.GGUFWriter(to, fields.pop("general.architecture"))
    for name, value in fields.items():
        add_field(writer, name, value)
    for name, array in arrays.items():
        stored = kind if kind is not None and array.ndim > 1 else _Type.F32
        data = gguf.quants.quantize(array, stored)
        writer.add_tensor(name, data, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return to


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"])
def test_each_quantization_is_read_as_the_gguf_package_does(plain_file, tmp_path, kind):
    file = rewrite(plain_file, tmp_path / "q.gguf", kind=_Type[kind])
    mine, theirs = GgufFile(file), tensors(file)
    assert theirs["blk.0.attn_q.weight"].tensor_type == _Type[kind]
    for name, shape in mine.shapes.items():
        tensor = theirs[gguf_names.to_gguf(name)]
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape)
        heads = gguf_names.heads_of(name, mine.config)
        got = mine.read(name)
        assert got.dtype in (np.float32, np.float16, ml_dtypes.bfloat16)
        np.testing.assert_array_equal(got if heads is None else gguf_names.interleave(got, heads), expected)
        exact = golden.weights(replace(mine.config), 0)[name]
        tolerance = {"F32": 0, "F16": 1e-3, "BF16": 8e-3, "Q8_0": 0.03, "Q4_0": 0.5, "Q4_1": 0.5}[kind]
        assert np.abs(got.astype(np.float32) - exact).max() <= tolerance * np.abs(exact).max(), name


def test_q8_0_export_is_the_gguf_packages_quantization(tokenizer, tmp_path):
    run = make_run(tmp_path / "run", replace(CFG, num_layers=1), tokenizer)
    export_gguf(run, tmp_path / "q.gguf", dtype="q8_0")
    tensor = tensors(tmp_path / "q.gguf")["blk.0.ffn_up.weight"]
    exact = golden.weights(replace(CFG, num_layers=1), 0)["model.layers.0.mlp.up_proj.weight"]
    assert tensor.tensor_type == _Type.Q8_0
    np.testing.assert_array_equal(tensor.data, gguf.quants.quantize(np.ascontiguousarray(exact), _Type.Q8_0))


def test_metadata_name_the_tokenizer_the_ends_and_the_infilling_tokens(plain_file, tokenizer):
    reader = gguf.GGUFReader(plain_file)
    field = lambda name: reader.get_field(name).contents()  # noqa: E731
    assert field("tokenizer.ggml.pre") == "llama-bpe"
    assert field("tokenizer.ggml.add_bos_token") is False
    tokens = field("tokenizer.ggml.tokens")
    for name, token in {
        "eos": "<|im_end|>", "eot": "<|im_end|>", "bos": "<|endoftext|>", "padding": "<|pad|>", "fim_pre": "<fim_prefix>",
        "fim_suf": "<fim_suffix>", "fim_mid": "<fim_middle>", "fim_rep": "<repo_name>", "fim_sep": "<file_sep>",
    }.items():  # fmt: skip
        assert field(f"tokenizer.ggml.{name}_token_id") == tokenizer.special_ids[token] == tokens.index(token)
    assert field("tokenizer.chat_template") == tokenizer.chat_template
    assert field("opencoder.tokenizer.hash") == tokenizer.hash
    assert "documents" in field("opencoder.tokenizer.rate")


def test_the_imported_tokenizer_is_ours(plain_file, tokenizer, tmp_path):
    back = load_tokenizer(import_model(plain_file, tmp_path / "run"))
    for text in (
        Path(__file__).read_text(),
        "x = 12345  # déjà\r\n\t<s>",
        "if (a&&b) {\n        c;\n}",
        "<|endoftext|>",
    ):
        assert back.encode(text) == tokenizer.encode(text)
        assert back.decode(tokenizer.encode(text)) == text
    assert back.special_ids == tokenizer.special_ids
    assert set(back.end_ids) == set(tokenizer.end_ids)
    assert (back.pad_id, back.endoftext_id, back.prefix_ids) == (tokenizer.pad_id, tokenizer.endoftext_id, ())


def set_field(name, value):
    def change(fields, arrays):
        fields[name] = value

    return change


def drop(name):
    def change(fields, arrays):
        (fields if name in fields else arrays).pop(name)

    return change


def set_tensor(name, shape):
    def change(fields, arrays):
        arrays[name] = np.zeros(shape, np.float32)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_field("general.architecture", "qwen2"), "general.architecture='qwen2'"),
        (set_field("split.count", 3), "split.count=3"),
        (set_field("llama.expert_count", 8), "llama.expert_count=8"),
        (set_field("llama.rope.scaling.type", "yarn"), "llama.rope.scaling.type='yarn'"),
        (set_field("llama.rope.scaling.factor", 4.0), r"llama.rope.scaling.factor=4.0"),
        (set_field("llama.attention.value_length", 8), "llama.attention.value_length=8"),
        (set_field("llama.attention.head_count_kv", 5), "num_kv_heads=5"),
        (set_field("llama.block_count", 1), "no such model has"),
        (set_field("llama.block_count", 3), r"missing, first blk\.2"),
        (drop("llama.feed_forward_length"), r"llama\.feed_forward_length is missing"),
        (drop("blk.1.ffn_up.weight"), r"1 tensor\(s\) missing, first blk\.1\.ffn_up\.weight"),
        (drop("token_embd.weight"), r"token_embd\.weight is missing"),
        (set_tensor("blk.0.attn_q.bias", (4,)), r"no such model has, first blk\.0\.attn_q\.bias"),
        (set_tensor("blk.0.ffn_up.weight", (8, 8)), r"blk\.0\.ffn_up\.weight is \(8, 8\)"),
        (set_field("tokenizer.ggml.model", "t5"), r"tokenizer\.ggml\.model='t5'"),
        (set_field("tokenizer.ggml.pre", "unknown"), r"tokenizer\.ggml\.pre='unknown'"),
        (set_field("tokenizer.ggml.eos_token_id", 99_999), "eos_token_id=99999 is outside"),
    ],
)
def test_what_is_not_a_llama_is_named(plain_file, tmp_path, change, message):
    file = rewrite(plain_file, tmp_path / "x.gguf", change)
    (tmp_path / "to").mkdir()
    with pytest.raises(ValueError, match=message):
        import_model(file, tmp_path / "to" / "run")
    assert not list((tmp_path / "to").iterdir())


@pytest.mark.parametrize(
    "corruption", ["no such file", "another format", "pointer", "header", "metadata", "tensors", "type"]
)
def test_a_corrupt_file_is_one_clear_line(plain_file, tmp_path, corruption, capsys):
    file = tmp_path / "x.gguf"
    data = plain_file.read_bytes()
    if corruption == "another format":
        file.write_bytes(b"PK\3\4" + data)
    elif corruption == "pointer":
        file.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    elif corruption == "header":
        file.write_bytes(data[:20])
    elif corruption == "metadata":
        file.write_bytes(data[:4_000])
    elif corruption == "tensors":
        file.write_bytes(data[:-4_000])
    elif corruption == "type":
        rewrite(plain_file, file, lambda f, a: None, kind=_Type.Q5_0)
    assert importer.main(["--from", str(file), "--to", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {file}")
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_llama3_scaling_of_other_files_is_found_again(plain_file, tmp_path):
    """llama.cpp's converter writes the factors alone."""
    cfg = GgufFile(plain_file).config
    wanted = RopeScaling(32.0, 1.0, 4.0, 8_192)

    def change(fields, arrays):
        for name in [n for n in fields if n.startswith(gguf_names.SCALING)]:
            del fields[name]
        arrays["rope_freqs.weight"] = gguf_names.rope_factors(replace(cfg, rope_scaling=wanted))

    assert GgufFile(rewrite(plain_file, tmp_path / "a.gguf", change)).config.rope_scaling == wanted

    def linear(fields, arrays):
        change(fields, arrays)
        arrays["rope_freqs.weight"] = np.linspace(1, 7, cfg.head_dim // 2).astype(np.float32)

    with pytest.raises(ValueError, match=r"rope_freqs\.weight holds other factors"):
        GgufFile(rewrite(plain_file, tmp_path / "b.gguf", linear))


def test_export_needs_a_tokenizer_and_a_new_file(plain_file, tmp_path):
    run = plain_file.parent
    (tmp_path / "model.gguf").write_text("mine")
    with pytest.raises(ValueError, match="exists already"):
        export_gguf(run, tmp_path / "model.gguf")
    with pytest.raises(ValueError, match="choose f16, q8_0, f32"):
        export_gguf(run, tmp_path / "other.gguf", dtype="q4_0")
    bare = tmp_path / "bare"
    shutil.copytree(run, bare)
    (bare / "tokenizer.model").unlink()
    with pytest.raises(ValueError, match="give --tokenizer"):
        export_gguf(bare, tmp_path / "other.gguf")
    assert [p.name for p in tmp_path.glob("*.gguf*")] == ["model.gguf"]
    assert (tmp_path / "model.gguf").read_text() == "mine"
