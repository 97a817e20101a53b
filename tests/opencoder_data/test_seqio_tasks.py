"""seqio delivers the token sequences that Grain delivers. Needs the extra [seqio]: `pytest -m seqio`."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from opencoder_data.pack import PackOptions, pack
from opencoder_data.shard_format import BATCH_FIELDS

from opencoder_jax.config import DataConfig, SourceConfig
from opencoder_jax.input import TrainingData

T = 64


def test_nothing_but_the_tasks_imports_tensorflow():
    code = (
        "import sys, pkgutil, importlib, opencoder_data, opencoder_jax.input\n"
        "for name in ('documents', 'pack', 'shard_format', 'tokenizer', 'tokenizer.fast', 'tokenizer.train'):\n"
        "    importlib.import_module('opencoder_data.' + name)\n"
        "assert not {'tensorflow', 'seqio', 'tensorflow_datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def directories(tmp_path_factory, tokenizer, python_texts):
    root = tmp_path_factory.mktemp("seqio")
    for name, texts in (("code", python_texts[:60]), ("web", python_texts[60:80])):
        (root / name).mkdir()
        for i, text in enumerate(texts):
            (root / name / f"{i:03}.txt").write_bytes(text.encode())
        options = PackOptions(seq_len=T, unit_mb=1)
        pack([root / name], tokenizer.path, root / "shards" / name, options, num_workers=1, progress=False)
    return {name: str(root / "shards" / name) for name in ("code", "web")}


@pytest.fixture(scope="module")
def registered(directories, tokenizer):
    seqio_tasks = pytest.importorskip("opencoder_data.seqio_tasks")
    mixtures = {"pretrain": {"code": 0.9, "web": 0.1}, "anneal": {"code": 0.5, "web": 0.5}}
    names = seqio_tasks.register("test", directories, tokenizer.path, mixtures)
    assert names == ["test_code", "test_web", "test_pretrain", "test_anneal"]
    return seqio_tasks


def examples(name, **options):
    import seqio

    lengths = dict.fromkeys(BATCH_FIELDS, T)
    options = {"shuffle": False, "num_epochs": 1, **options}
    return seqio.get_mixture_or_task(name).get_dataset(lengths, "train", **options).as_numpy_iterator()


def grain_batches(directories, names, num, **changes):
    sources = tuple(SourceConfig(directories[n], w) for n, w in names.items())
    config = DataConfig(sources=sources, seq_len=T, global_batch_size=4, max_epochs=1e9, **changes)
    data = TrainingData(config, vocab_size=2_048, seed=3)
    steps = data.steps()
    rows = ({f: steps[s][f][0, i] for f in BATCH_FIELDS} for s in itertools.count() for i in range(4))
    return data, list(itertools.islice(rows, num))


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in BATCH_FIELDS:
        assert ours[name].dtype == theirs[name].dtype
        np.testing.assert_array_equal(ours[name], theirs[name])


@pytest.mark.seqio
def test_a_task_delivers_the_records_that_grain_delivers(directories, registered):
    for name in directories:
        theirs = list(examples(f"test_{name}"))
        data, ours = grain_batches(directories, {name: 1.0}, len(theirs), shuffle=False)
        assert len(theirs) == len(data._readers[0]) > 100
        for a, b in zip(ours, theirs, strict=True):
            assert_same(a, b)


@pytest.mark.seqio
def test_the_order_of_a_run_is_delivered_exactly(directories, registered, tokenizer):
    """Shuffled, mixed and with a change of weights: the sequence itself, record by record."""
    names = {"code": 0.9, "web": 0.1}
    data, ours = grain_batches(directories, names, 300, mixture_changes="40:0.5,0.5")
    name = registered.register_ordered("test_run", data.records, 300, tokenizer.path)
    theirs = list(examples(name))
    assert len(theirs) == 300
    for a, b in zip(ours, theirs, strict=True):
        assert_same(a, b)


@pytest.mark.seqio
@pytest.mark.parametrize(("mixture", "share"), [("pretrain", 0.9), ("anneal", 0.5)])
def test_a_mixture_draws_each_source_in_order_at_its_rate(directories, registered, mixture, share):
    drawn = [e["tokens"].tobytes() for e in itertools.islice(examples(f"test_{mixture}", num_epochs=None, seed=1), 800)]
    per_source = {name: [e["tokens"].tobytes() for e in examples(f"test_{name}")] for name in directories}
    used = dict.fromkeys(directories, 0)
    for tokens in drawn:
        # The next record of one of the sources, nothing else.
        name = next(n for n in directories if per_source[n][used[n] % len(per_source[n])] == tokens)
        used[name] += 1
    assert used["code"] / len(drawn) == pytest.approx(share, abs=0.06)


@pytest.mark.seqio
def test_vocabulary_is_ours(registered, tokenizer):
    import tensorflow as tf

    vocabulary = registered.OpenCoderVocabulary(tokenizer.path)
    text = "def f(x):\n\treturn x\u2581 中\x00"
    assert vocabulary.vocab_size == tokenizer.vocab_size
    assert vocabulary.eos_id == tokenizer.endoftext_id
    assert vocabulary.encode(text) == tokenizer.encode(text)
    assert vocabulary.encode_tf(text).numpy().tolist() == tokenizer.encode(text)
    assert vocabulary.decode(tokenizer.encode(text)) == text
    assert vocabulary.decode_tf(tf.constant(tokenizer.encode(text))).numpy().decode() == text


@pytest.mark.seqio
def test_wrong_tokenizer_and_unknown_source_are_rejected(directories, registered, tmp_path, python_texts):
    from opencoder_data.tokenizer.train import train

    other = train(python_texts[:5], 640, tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"code: packed with tokenizer"):
        registered.register("other", directories, other)
    with pytest.raises(ValueError, match="unknown sources"):
        registered.register("other", directories, other, {"m": {"x": 1.0}})
