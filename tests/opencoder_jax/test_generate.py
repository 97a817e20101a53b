"""Generation: greedy as Hugging Face, ragged batches, sampling, stops."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from opencoder_data.tokenizer import Tokenizer
from opencoder_data.tokenizer.train import train
from oracle import client, golden

from opencoder_jax import generate as gen
from opencoder_jax import hf
from opencoder_jax import model as lm
from opencoder_jax.checkpoint import Checkpoints, run_record
from opencoder_jax.config import replace
from opencoder_jax.generate import Sampling, generate_text, generate_tokens

CFG = golden.FAMILIES["gqa"]


def ragged(arrays) -> list[list[int]]:
    return [row[mask > 0].tolist() for row, mask in zip(arrays["tokens"], arrays["mask"], strict=True)]


@pytest.fixture(scope="module")
def params():
    return hf.from_hf(CFG, golden.weights(CFG, 0))


@pytest.fixture(scope="module")
def prompts():
    return ragged(golden.prompts(CFG, 0))


@pytest.mark.parametrize("family", list(golden.FAMILIES))
def test_greedy_equals_the_golden_tokens(family):
    """Hugging Face's `generate` on a batch of three prompts of different lengths."""
    cfg = golden.FAMILIES[family]
    with np.load(golden.GOLDEN) as stored:
        expected = stored[f"{family}/greedy"]
    weights = hf.from_hf(cfg, golden.weights(cfg, 0))
    rows = generate_tokens(cfg, weights, ragged(golden.prompts(cfg, 0)), Sampling(golden.NEW))
    assert expected.shape == (3, golden.NEW)
    np.testing.assert_array_equal(rows, expected)


@pytest.mark.oracle
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("family", list(golden.FAMILIES))
def test_greedy_equals_the_oracle(family, seed, tmp_path):
    cfg = golden.FAMILIES[family]
    golden.save_model(tmp_path, cfg, golden.weights(cfg, seed))
    theirs = client.call("generate", tmp_path, **golden.prompts(cfg, seed), steps=golden.NEW)["greedy"]
    weights = hf.from_hf(cfg, golden.weights(cfg, seed))
    np.testing.assert_array_equal(
        generate_tokens(cfg, weights, ragged(golden.prompts(cfg, seed)), Sampling(golden.NEW)), theirs
    )


def test_the_cache_changes_nothing(params, prompts):
    """Each greedy token is the argmax of a full pass over everything before it."""
    new = generate_tokens(CFG, params, prompts[:1], Sampling(20))[0]
    whole = jnp.asarray([prompts[0] + new])
    model = lm.bind(CFG, params)
    logits = model.logits(model(whole, jnp.arange(whole.shape[1])[None], jnp.ones_like(whole)))
    start = len(prompts[0]) - 1
    np.testing.assert_array_equal(np.argmax(logits[0, start:-1], -1), new)


def test_a_row_does_not_depend_on_its_neighbours(params, prompts):
    sampling = Sampling(20, temperature=1.0, top_p=0.9, seed=5)
    together = generate_tokens(CFG, params, prompts, sampling)
    assert generate_tokens(CFG, params, prompts[:1], sampling)[0] == together[0]
    assert generate_tokens(CFG, params, [*prompts[:2], [1, 2]], sampling)[:2] == together[:2]


def test_seeds(params, prompts):
    draw = lambda seed: generate_tokens(CFG, params, prompts, Sampling(20, temperature=1.0, seed=seed))  # noqa: E731
    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert len({tuple(row) for row in generate_tokens(CFG, params, prompts[:1] * 4, Sampling(20, 1.0))}) == 4


def test_every_token_of_a_row_is_drawn_with_a_key_of_its_own(params):
    """A model of zeros likes all 160 tokens equally: 60 draws by one key would be one token 60 times, by a key that comes
    again with every block of 16 they would repeat."""
    flat = jax.tree.map(jnp.zeros_like, params)
    for row in generate_tokens(CFG, flat, [[1, 2, 3], [4]], Sampling(60, temperature=1.0)):
        assert len(set(row)) > 30
        assert row[:16] != row[16:32]
        assert row[:30] != row[30:]


def test_sampling_follows_the_distribution():
    """20,000 draws: frequencies at temperature 2 within 3 %; top-p keeps the smallest set that reaches it."""
    p = np.array([0.5, 0.25, 0.15, 0.1])
    logits = jnp.tile(jnp.log(p), (20_000, 1))
    keys = jax.random.split(jax.random.key(0), 20_000)
    draw = jax.jit(gen.sample, static_argnames="nucleus")
    count = lambda ids: np.bincount(np.asarray(ids), minlength=4) / 20_000  # noqa: E731
    flat = np.sqrt(p) / np.sqrt(p).sum()
    np.testing.assert_allclose(count(draw(logits, keys, 2.0, 1.0, nucleus=False)), flat, atol=0.015)
    np.testing.assert_allclose(count(draw(logits, keys, 1.0, 0.7, nucleus=True)), [2 / 3, 1 / 3, 0, 0], atol=0.015)
    np.testing.assert_allclose(count(draw(logits, keys, 1.0, 0.8, nucleus=True)), p * [1, 1, 1, 0] / 0.9, atol=0.015)
    np.testing.assert_allclose(count(draw(logits, keys, 1.0, 0.01, nucleus=True)), [1, 0, 0, 0])


def test_end_tokens_and_length(params, prompts):
    """A row ends with the first end token; others go on; 20 is no multiple of the block."""
    free = generate_tokens(CFG, params, prompts, Sampling(20))
    assert [len(row) for row in free] == [20, 20, 20]
    end = free[0][7]
    ended = generate_tokens(CFG, params, prompts, Sampling(20), end_ids=[end])
    for row, whole in zip(ended, free, strict=True):
        assert row == (whole[: whole.index(end) + 1] if end in whole else whole)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = [Path(__file__).read_text(), Path(gen.__file__).read_text()]
    return Tokenizer(train(texts, 512, tmp_path_factory.mktemp("tokenizer"), num_threads=1, progress=False))


@pytest.fixture(scope="module")
def texts_model(tokenizer):
    cfg = replace(CFG, vocab_size=tokenizer.vocab_size)
    return cfg, hf.from_hf(cfg, golden.weights(cfg, 3))


def test_stop_strings_cut_the_text(texts_model, tokenizer):
    cfg, weights = texts_model
    prompts = ["def f(x):", "import os\nx"]
    free = generate_text(cfg, weights, tokenizer, prompts, Sampling(40))
    stop = free[0].text[6:9]
    assert len(stop) == 3
    cut = generate_text(cfg, weights, tokenizer, prompts, Sampling(40), stop=[stop, "never to be found"])
    for row, whole in zip(cut, free, strict=True):
        place = whole.text.find(stop)
        assert row.text == (whole.text if place < 0 else whole.text[:place])
        assert row.reason == (whole.reason if place < 0 else "stop")
    assert cut[0].reason == "stop"


def test_the_first_of_several_stop_strings_ends_the_text(texts_model, tokenizer):
    """In the text, not in the list; both orders of the list, and the same when one stop holds the other."""
    cfg, weights = texts_model
    prompt = ["def f(x):"]
    text = generate_text(cfg, weights, tokenizer, prompt, Sampling(40))[0].text
    early, late = text[3:6], text[20:24]
    assert 0 <= text.find(early) < text.find(late)
    for stop in ([early, late], [late, early], [late, early, text[2:9]]):
        row = generate_text(cfg, weights, tokenizer, prompt, Sampling(40), stop=stop)[0]
        assert (row.text, row.reason) == (text[: min(text.find(s) for s in stop)], "stop")


def test_command_line(texts_model, tokenizer, tmp_path, capsys):
    cfg, weights = texts_model
    config = replace(golden.run_config(cfg), name="x")
    checkpoints = Checkpoints(tmp_path / "run", config.checkpoint)
    state = {"params": jax.device_put(weights)}
    checkpoints.save(3, state, run_record(config, 3, {"tokenizer": tokenizer.hash}))
    checkpoints.close()
    common = [f"--checkpoint={tmp_path / 'run'}", "--prompt=def f(", "--prompt=x = 1", "--max_new_tokens=5"]
    assert gen.main([*common, f"--tokenizer={tokenizer.path}", f"--json={tmp_path / 'out.json'}"]) == 0
    rows = json.loads((tmp_path / "out.json").read_text())
    expected = generate_text(cfg, weights, tokenizer, ["def f(", "x = 1"], Sampling(5))
    assert [row["completion"] for row in rows] == [row.text for row in expected]
    assert "def f(" in capsys.readouterr().out
    for extra, message in (
        ([], "tokenizer.model"),
        ([f"--tokenizer={tokenizer.path}", "--top_p=0"], "top_p=0"),
        ([f"--tokenizer={tokenizer.path}", "--max_new_tokens=200"], "model.max_seq_len=128"),
        ([f"--tokenizer={tokenizer.path}", "--prompt="], "prompt 2 is empty"),
    ):
        assert gen.main([*common, *extra]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_ids_outside_the_vocabulary_are_refused(params):
    with pytest.raises(ValueError, match="vocab_size=160"):
        generate_tokens(CFG, params, [[1, 160]], Sampling(2))
