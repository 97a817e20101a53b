"""Export and import: byte-equal round trip, what users load, rejections that leave nothing behind."""

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from opencoder_data.tokenizer import Tokenizer
from opencoder_data.tokenizer.train import train
from oracle import client, golden
from safetensors import safe_open

from opencoder_jax import model as lm
from opencoder_jax import sharding
from opencoder_jax.checkpoint import Checkpoints, load_params, plain, resolve, run_record
from opencoder_jax.config import replace
from opencoder_jax.hf import export as ex
from opencoder_jax.hf import mapping as hf
from opencoder_jax.inference.generate import Sampling, generate_text
from opencoder_jax.overrides import load
from opencoder_jax.step import make_train_step

CFG = replace(golden.FAMILIES["gqa"], vocab_size=512)
CONFIG = replace(golden.run_config(CFG), name="parity")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = [Path(__file__).read_text(), Path(ex.__file__).read_text(), Path(lm.__file__).read_text()]
    return Tokenizer(train(texts, 512, tmp_path_factory.mktemp("tokenizer"), num_threads=1, progress=False))


@pytest.fixture(scope="module")
def run(tmp_path_factory, tokenizer):
    """A run directory with a checkpoint at step 7 and logs beside it."""
    directory = tmp_path_factory.mktemp("runs") / "parity"
    mesh = sharding.make_mesh(CONFIG.mesh, jax.devices()[:1])
    with jax.set_mesh(mesh):
        ts = make_train_step(CONFIG, mesh)
        state = jax.tree.map(lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding), ts.abstract_state)
        state["params"] = jax.device_put(hf.from_hf(CFG, golden.weights(CFG, 0)))
        checkpoints = Checkpoints(directory, CONFIG.checkpoint)
        checkpoints.save(7, state, run_record(CONFIG, 7, {"tokenizer": tokenizer.hash, "shards": "abc"}))
        checkpoints.close()
    (directory / "metrics.jsonl").write_text('{"step": 6, "loss": 2.5}\n{"step": 9, "loss": 1.0}\n{"st')
    (directory / "eval.jsonl").write_text('{"step": 7, "source": "python", "bits_per_byte": 1.25}\n')
    return directory


@pytest.fixture(scope="module")
def released(run, tokenizer, tmp_path_factory):
    """Several small files, so that there is an index."""
    to = tmp_path_factory.mktemp("export") / "model"
    return ex.export(run, to, dtype="fp32", tokenizer=tokenizer.path, max_shard_gb=2e-4)


def read_all(directory):
    tensors = {}
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, "numpy") as file:
            tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return tensors


def nothing_left(parent):
    return not list(parent.iterdir())


def test_export_holds_every_tensor_once(released):
    """Read by the safetensors library; the index says in which file."""
    expected = golden.weights(CFG, 0)
    index = json.loads((released / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == expected.keys()
    assert len(set(index["weight_map"].values())) > 2
    assert index["metadata"]["total_size"] == 4 * lm.num_params(CFG)
    for name, file in index["weight_map"].items():
        with safe_open(released / file, "numpy") as tensors:
            assert tensors.get_tensor(name).tobytes() == expected[name].tobytes(), name


def test_export_writes_what_transformers_reads(released, tokenizer):
    fields = json.loads((released / "config.json").read_text())
    im_end, endoftext = tokenizer.special_ids["<|im_end|>"], tokenizer.endoftext_id
    assert fields == hf.hf_config(CFG, dtype="float32", bos_token_id=endoftext, eos_token_id=im_end)
    generation = json.loads((released / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [im_end, endoftext]
    assert generation["bos_token_id"] == endoftext
    settings = json.loads((released / "tokenizer_config.json").read_text())
    wanted = {"padding_side": "left", "add_bos_token": False, "add_eos_token": False, "add_prefix_space": False}
    assert settings.items() >= wanted.items()
    assert settings["bos_token"] == "<|endoftext|>"
    assert json.loads((released / "tokenizer.json").read_text())["padding"] is None
    for name in ("tokenizer.model", "tokenizer.json", "tokenizer_config.json", "README.md"):
        assert (released / name).stat().st_size > 0
    assert "chat_template" in (released / "tokenizer_config.json").read_text()


def test_model_card_holds_the_training_record(released):
    card = (released / "README.md").read_text()
    for text in (f"{lm.num_params(CFG):,}", "| steps of this run | 7 |", "bits_per_byte 1.25", "| last loss | 2.5 |"):
        assert text in card
    assert f"| tokens of this run | {7 * golden.B * golden.T} |" in card
    assert "optimizer.weight_decay=0.1" in card
    assert "llama.cpp: its converter reads `tokenizer.model` as plain SentencePiece" in card
    assert "lm-eval takes it as its\nprefix token" in card


def test_round_trip_is_byte_equal(released, run, tmp_path):
    """export -> import -> the run's parameters; and again -> the same files."""
    imported = ex.import_hf(released, tmp_path / "imported")
    params, config, record = load_params(imported)
    jax.tree.map(np.testing.assert_array_equal, params, load_params(run)[0])
    assert record["step"] == 0
    assert config.model == replace(CFG, compute_dtype="bfloat16", remat="minimal")
    again = ex.export(imported, tmp_path / "again", dtype="fp32", max_shard_gb=2e-4)
    for path in released.glob("*.safetensors*"):
        assert (again / path.name).read_bytes() == path.read_bytes()
    assert (again / "tokenizer.json").read_bytes() == (released / "tokenizer.json").read_bytes()


def test_bfloat16_round_trip_is_byte_equal(run, tmp_path):
    first = ex.export(run, tmp_path / "first")
    again = ex.export(ex.import_hf(first, tmp_path / "run"), tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()
    assert json.loads((first / "config.json").read_text())["torch_dtype"] == "bfloat16"
    tensors = {name: t.astype(np.float32) for name, t in read_all(first).items()}
    for name, exact in golden.weights(CFG, 0).items():
        np.testing.assert_allclose(tensors[name], exact, rtol=2**-8, err_msg=name)


def test_training_starts_from_an_import(released, tmp_path):
    """What the trainer restores for init_from: whole state, moments zero."""
    from opencoder_jax.checkpoint import load_state

    imported = ex.import_hf(released, tmp_path / "imported")
    mesh = sharding.make_mesh(CONFIG.mesh, jax.devices()[:1])
    with jax.set_mesh(mesh):
        abstract = make_train_step(CONFIG, mesh).abstract_state
        state, _ = load_state(resolve(imported), abstract)
    assert jax.tree.structure(state) == jax.tree.structure(abstract)
    assert all(not np.asarray(x).any() for x in jax.tree.leaves(state["opt_state"]))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("tie_word_embeddings", True, "tie_word_embeddings"),
        ("architectures", ["Qwen2ForCausalLM"], "Qwen2ForCausalLM"),
        ("intermediate_size", 176, "mlp.down_proj"),
        ("num_hidden_layers", 3, "missing, first model.layers.2"),
    ],
)
def test_import_rejects_other_models(released, tmp_path, field, value, message):
    source = tmp_path / "source"
    shutil.copytree(released, source)
    fields = json.loads((source / "config.json").read_text()) | {field: value}
    (source / "config.json").write_text(json.dumps(fields))
    (tmp_path / "to").mkdir()
    with pytest.raises(ValueError, match=message):
        ex.import_hf(source, tmp_path / "to" / "run")
    assert nothing_left(tmp_path / "to")


@pytest.mark.parametrize("corruption", ["missing", "short", "header"])
def test_import_rejects_corrupt_files(released, tmp_path, corruption):
    source = tmp_path / "source"
    shutil.copytree(released, source)
    victim = sorted(source.glob("*.safetensors"))[1]
    if corruption == "missing":
        victim.unlink()
    elif corruption == "short":
        victim.write_bytes(victim.read_bytes()[:-100])
    else:
        victim.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match=victim.name):
        ex.import_hf(source, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_export_rejects_another_tokenizer(run, tokenizer, tmp_path):
    texts = ["something else entirely " * 50, Path(ex.__file__).read_text()]
    other = train(texts, 512, tmp_path / "other", num_threads=1, progress=False)
    with pytest.raises(ValueError, match=tokenizer.hash):
        ex.export(run, tmp_path / "to" / "model", tokenizer=other)
    assert not (tmp_path / "to").exists()


def test_an_existing_directory_is_not_touched(run, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists already"):
        ex.export(run, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_what_a_killed_export_left_is_removed_and_a_running_ones_is_not(run, tmp_path):
    """Only under the same name, whatever characters it has."""
    target = tmp_path / "model[1]*"
    names = {n: tmp_path / f".model[1]*.part-{n}" for n in (7, 8, 9)}
    others = [tmp_path / ".model11.part-7", tmp_path / "model[1]*.part-7"]
    for part in [*names.values(), *others]:
        part.mkdir()
        (part / "model.safetensors").write_text("")
    with ex._locked(names[9]), ex.complete_directory(target, 0) as mine:
        assert set(tmp_path.iterdir()) == {names[9], mine, *others}
        (mine / "x").write_text("")
        with ex._locked(mine) as free:
            assert not free  # another export would leave this one alone
    assert (target / "x").exists()
    assert (names[9] / "model.safetensors").exists()


def test_full_disk_leaves_nothing(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "to").mkdir()

    def write(self, name, array):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ex.Writer, "write", write)
    assert ex.main(["--checkpoint", str(run), "--to", str(tmp_path / "to" / "model")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "No space left" in error
    assert nothing_left(tmp_path / "to")
    monkeypatch.setattr(ex.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(ValueError, match="free some space"):
        ex.export(run, tmp_path / "to" / "model")
    assert nothing_left(tmp_path / "to")


def test_command_line(run, tmp_path):
    """In a process of its own: exit code 0 and the directory; exit code 2 and one line."""
    command = [sys.executable, "-m", "opencoder_jax.hf.export"]
    done = subprocess.run(
        [*command, "--checkpoint", run, "--to", tmp_path / "model"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "no tokenizer files" in done.stderr
    assert (tmp_path / "model" / "model.safetensors").exists()
    done = subprocess.run(
        [*command, "import", "--from", tmp_path / "nowhere", "--to", tmp_path / "run"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


# Runs import_hf or export and prints the most anonymous memory used over what the imports took, in bytes.
MEMORY = """
import sys, threading, time
from opencoder_jax.hf import export as ex
import jax
jax.numpy.zeros(3).block_until_ready()
def anonymous():
    return next(int(l.split()[1]) << 10 for l in open("/proc/self/status") if l.startswith("RssAnon"))
base, peak, on = anonymous(), 0, True
def watch():
    global peak
    while on:
        peak = max(peak, anonymous())
        time.sleep(0.002)
thread = threading.Thread(target=watch)
thread.start()
if sys.argv[1] == "import":
    ex.import_hf(sys.argv[2], sys.argv[3], memory_gb=0.1)
else:
    ex.export(sys.argv[2], sys.argv[3])
on = False
thread.join()
print(peak - base)
"""


def memory_of(direction, source, to):
    command = [sys.executable, "-c", MEMORY, direction, source, to]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-2000:]
    used = int(done.stdout.split()[-1])
    print(f"{direction}: {used / 1e6:,.0f} MB over the base")
    return used


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_bounded_by_the_largest_parameter(tmp_path):
    """420 MB of fp32 parameters, the largest 101 MB: both directions stay within two of the largest, and 150 MB."""
    cfg = replace(CFG, num_layers=24, embed_dim=512, head_dim=64, num_kv_heads=8, ffn_dim=2_048, vocab_size=4_096)
    assert lm.num_params(cfg) * 4 > 400e6
    largest = cfg.num_layers * cfg.embed_dim * cfg.ffn_dim * 4
    model, imported = tmp_path / "model", tmp_path / "run"
    model.mkdir()
    golden.save_model(model, cfg, golden.weights(cfg, 0))
    assert memory_of("import", model, imported) < 2 * largest + 150e6
    assert memory_of("export", imported, tmp_path / "again") < 2 * largest + 150e6


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_exporting_the_8b_takes_less_than_20_gb(tmp_path):
    """A checkpoint of the 8B's shapes, all zeros: sparse files on the way in, compressed in the checkpoint."""
    if shutil.disk_usage(tmp_path).free < 40e9:
        pytest.skip("needs 40 GB of disk")
    config = load("8b")
    shapes = plain(lm.abstract(config.model)[1])

    def sparse(path, x):
        name = "-".join(key.key for key in path)
        zeros = np.asarray(np.memmap(tmp_path / name, x.dtype, "w+", shape=x.shape))
        return jax.device_put(zeros, jax.devices()[0], may_alias=True)

    state = {"params": jax.tree_util.tree_map_with_path(sparse, shapes)}
    checkpoint = tmp_path / "run" / "checkpoints" / "0"
    ex._save(checkpoint, state, run_record(config, 0, {}), memory_gb=1.0)
    assert memory_of("export", tmp_path / "run", tmp_path / "model") < 20e9
    files = list((tmp_path / "model").glob("*.safetensors"))
    assert sum(f.stat().st_size for f in files) == pytest.approx(2 * lm.num_params(config.model), rel=1e-4)
    shutil.rmtree(tmp_path)


@pytest.mark.oracle
def test_transformers_loads_the_release(released, tokenizer, tmp_path):
    """AutoModelForCausalLM and AutoTokenizer, no remote code: logits as ours, ids as ours."""
    one = {name: array[0] for name, array in golden.batches(CFG, 0, 1).items()}
    theirs = client.call("gradients", released, **one)
    golden.save_model(tmp_path, CFG, golden.weights(CFG, 0))
    direct = client.call("gradients", tmp_path, **one)
    np.testing.assert_array_equal(theirs["logits"], direct["logits"])
    texts = ["def f(x):\n\treturn x + 1  # déjà vu\r\n", "if (a&&b) {\n        c = 123456;\n}", "中文 \x00 😀", " "]
    result = client.call("tokenize", released, texts=np.array(texts))
    ends = np.cumsum(result["lengths"])
    for text, ids in zip(texts, np.split(result["ids"], ends[:-1]), strict=True):
        assert ids.tolist() == tokenizer.encode(text)
    assert json.loads(str(result["decoded"])) == texts
    assert str(result["chat"]).endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
    assert json.loads(str(result["special"]))[0] == "<|im_end|>"
    assert json.loads(str(result["special"]))[1:] == ["<|pad|>", tokenizer.special_ids["<|im_end|>"]]
    assert result["bos"].tolist() == [tokenizer.endoftext_id]
    longest = max(result["lengths"])
    assert result["padded"].shape == (len(texts), longest)
    for row, mask, ids in zip(result["padded"], result["mask"], np.split(result["ids"], ends[:-1]), strict=True):
        pads = longest - len(ids)
        assert row.tolist() == [tokenizer.pad_id] * pads + ids.tolist()
        assert mask.tolist() == [0] * pads + [1] * len(ids)


@pytest.mark.oracle
def test_lm_eval_scores_and_generates_as_we_do(released, run, tokenizer):
    """lm-eval's own backend on the directory: its prefix token is <|endoftext|>, its padded batches change nothing."""
    contexts = ["", "def f(x):\n", "", "x = [1, 2"]
    texts = ["import os\nimport sys\n", "    return x\n", "# déjà vu 12345", ", 3]\n"]
    prompts = ["def f(x):\n    return", "x", "class Stack:\n    def __init__(self, items=()):\n        self"]
    arrays = {"contexts": np.array(contexts), "texts": np.array(texts), "prompts": np.array(prompts)}
    theirs = client.call("harness", released, **arrays, steps=np.array(12))
    assert theirs["prefix"].tolist() == [tokenizer.endoftext_id]

    params, _, _ = load_params(run)
    model = lm.bind(CFG, jax.tree.map(jax.numpy.asarray, params))

    def score(before: list[int], after: list[int]) -> float:
        ids = jax.numpy.asarray([before + after])
        hidden = model(ids, jax.numpy.arange(ids.shape[1])[None], jax.numpy.ones_like(ids))
        log_p = jax.nn.log_softmax(model.logits(hidden)[0])
        return float(sum(log_p[len(before) - 1 + i, token] for i, token in enumerate(after)))

    prefix = [tokenizer.endoftext_id]
    ours = [score(tokenizer.encode(c) or prefix, tokenizer.encode(t)) for c, t in zip(contexts, texts, strict=True)]
    np.testing.assert_allclose(theirs["likelihoods"], ours, rtol=1e-4)
    np.testing.assert_allclose(theirs["rolling"], [score(prefix, tokenizer.encode(t)) for t in texts], rtol=1e-4)
    rows = generate_text(CFG, params, tokenizer, prompts, Sampling(12))
    assert json.loads(str(theirs["generated"])) == [tokenizer.decode(r.tokens, skip_special=True) for r in rows]
