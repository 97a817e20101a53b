"""Generation: greedy as Hugging Face, ragged batches, sampling, stops."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from opencoder_data.tokenizer import Tokenizer
from opencoder_data.tokenizer.train import train
from oracle import client, golden

from opencoder_jax import model as lm
from opencoder_jax.checkpoint import Checkpoints, run_record
from opencoder_jax.config import replace
from opencoder_jax.hf import mapping as hf
from opencoder_jax.inference import generate as gen
from opencoder_jax.inference.generate import Sampling, generate_text, generate_tokens

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


def test_tiny_temperatures_are_greedy(params, prompts):
    greedy = generate_tokens(CFG, params, prompts, Sampling(12))
    for temperature in (1e-300, 1e-45, 1e-38, 1e-20, 9e-6, -0.0):
        assert generate_tokens(CFG, params, prompts, Sampling(12, temperature, top_p=0.5)) == greedy


def with_final_norm(params, value):
    """The weights, with every scale of the last norm set to a value."""
    flat = dict(nnx.to_flat_state(params))
    norm = flat["final_norm",]
    return nnx.from_flat_state(flat | {("final_norm",): norm.replace(np.full_like(norm.get_value(), value))})


def test_logits_that_are_not_finite_are_an_error(params, prompts):
    for value in (np.nan, np.inf):
        broken = with_final_norm(params, value)
        for sampling in (Sampling(4), Sampling(4, 1.0), Sampling(4, 1.0, 0.5)):
            with pytest.raises(ValueError, match="not finite"):
                generate_tokens(CFG, broken, prompts, sampling)


def test_a_draw_depends_on_seed_sample_and_position_alone(params, prompts):
    """Any row, any neighbours, any order; the n-th sample of a prompt is the same wherever it is drawn."""
    sampling = Sampling(20, temperature=1.0, top_p=0.9, seed=5)
    a, b, c = prompts
    alone = generate_tokens(CFG, params, [c], sampling)[0]
    assert generate_tokens(CFG, params, [c, b, a], sampling)[0] == alone
    assert generate_tokens(CFG, params, [a, b, c], sampling)[2] == alone
    assert generate_tokens(CFG, params, [a, a, c], sampling)[2] == alone
    first, _, second = generate_tokens(CFG, params, [c, b, c], sampling)
    assert first == alone != second
    assert generate_tokens(CFG, params, [c, c, a], sampling)[1] == second
    assert generate_tokens(CFG, params, [c], sampling, samples=[1])[0] == second


def test_each_token_of_a_row_has_a_draw_of_its_own(params):
    """Flat logits: with one draw for all positions a row would repeat one token."""
    flat = with_final_norm(params, 0.0)
    (row,) = generate_tokens(CFG, flat, [[1, 2, 3]], Sampling(60, temperature=1.0, top_p=0.999))
    assert len(set(row)) > 30


def test_no_prompts_no_rows(params):
    assert generate_tokens(CFG, params, [], Sampling(5)) == []


def test_end_tokens_and_length(params, prompts):
    """A row ends with the first end token; others go on; 20 is not a multiple of the block."""
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
    windows = (free[0].text[at : at + 3] for at in range(3, len(free[0].text) - 3))
    stop = next(w for w in windows if "\ufffd" not in w)  # half a character, which no stop can match
    cut = generate_text(cfg, weights, tokenizer, prompts, Sampling(40), stop=[stop, "never to be found"])
    for row, whole in zip(cut, free, strict=True):
        place = whole.text.find(stop)
        assert row.text == (whole.text if place < 0 else whole.text[:place])
        assert row.reason == (whole.reason if place < 0 else "stop")
    assert cut[0].reason == "stop"


def test_tokens_spell_the_text_where_no_stop_cuts_it(texts_model, tokenizer):
    cfg, weights = texts_model
    for row in generate_text(cfg, weights, tokenizer, ["def f(x):", "x"], Sampling(30)):
        assert tokenizer.decode(row.tokens) == row.text


def test_an_empty_stop_is_rejected(texts_model, tokenizer):
    cfg, weights = texts_model
    with pytest.raises(ValueError, match="stop=''"):
        generate_text(cfg, weights, tokenizer, ["x"], Sampling(3), stop=["a", ""])


def test_names_of_special_tokens_in_prompts(monkeypatch, tokenizer):
    """Text unless allowed."""
    seen = []
    monkeypatch.setattr(gen, "_run", lambda cfg, params, requests, *_: seen.extend(r.prompt for r in requests) or [])
    for allow in (False, True):
        generate_text(CFG, {}, tokenizer, ["<|im_start|>user"], Sampling(3), allow_special=allow)
    assert tokenizer.special_ids["<|im_start|>"] not in seen[0]
    assert seen[1][0] == tokenizer.special_ids["<|im_start|>"]
    assert tokenizer.decode(seen[0]) == tokenizer.decode(seen[1]) == "<|im_start|>user"


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
    several = ["--num_samples=2", "--temperature=1", f"--json={tmp_path / 'out.json'}"]
    assert gen.main([*common, f"--tokenizer={tokenizer.path}", *several]) == 0
    rows = json.loads((tmp_path / "out.json").read_text())
    assert [row["prompt"] for row in rows] == ["def f("] * 2 + ["x = 1"] * 2
    assert rows[0]["tokens"] != rows[1]["tokens"]
    capsys.readouterr()
    for extra, message in (
        ([], "tokenizer.model"),
        ([f"--tokenizer={tokenizer.path}", "--top_p=0"], "top_p=0"),
        ([f"--tokenizer={tokenizer.path}", "--max_new_tokens=200"], "model.max_seq_len=128"),
        ([f"--tokenizer={tokenizer.path}", "--prompt="], "prompt 2 is empty"),
        ([f"--tokenizer={tokenizer.path}", "--stop="], "--stop=''"),
        ([f"--tokenizer={tokenizer.path}", "--temperature=nan"], "temperature=nan"),
        ([f"--tokenizer={tokenizer.path}", "--num_samples=0"], "num_samples=0"),
        ([f"--tokenizer={tokenizer.path}", "--prompt=" + "x = 1\n" * 200], "model.max_seq_len=128"),
        ([f"--tokenizer={tokenizer.path}", f"--json={tmp_path / 'none' / 'x.json'}"], "directory does not exist"),
    ):
        assert gen.main([*common, *extra]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_ids_outside_the_vocabulary_are_rejected(params):
    with pytest.raises(ValueError, match="vocab_size=160"):
        generate_tokens(CFG, params, [[1, 160]], Sampling(2))
