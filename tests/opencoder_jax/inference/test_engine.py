"""The engine: rows are independent of slots and neighbours, shapes are bounded, slots are reused, the cache is a window."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import golden

from opencoder_jax import model as lm
from opencoder_jax.hf import mapping as hf
from opencoder_jax.inference import cache as kv
from opencoder_jax.inference import programs
from opencoder_jax.inference.engine import Engine, Request
from opencoder_jax.inference.sampling import Sampling
from opencoder_jax.inference.stops import Stops

CFG = golden.FAMILIES["gqa"]
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def params():
    return hf.from_hf(CFG, golden.weights(CFG, 0))


def prompt(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng((length, seed)).integers(0, CFG.vocab_size, length).tolist()


def letters(token: int) -> bytes:
    return bytes([97 + token % 26])


def run(engine, requests):
    """Events of each request, in the order of the requests."""
    rows = [engine.add(r) for r in requests]
    events = {id(r): [] for r in rows}
    for row, event in engine.run():
        events[id(row)].append(event)
    return [events[id(r)] for r in rows]


def tokens(engine, requests):
    return [[t for e in events for t in e.tokens] for events in run(engine, requests)]


def test_tokens_are_the_argmax_of_the_whole_pass(params):
    """Prompts of every length class, some longer than a span, together: each token against the training forward."""
    engine = Engine(CFG, params, slots=3)
    prompts = [prompt(n) for n in (1, 5, 16, 17, 40, 90)]
    rows = tokens(engine, [Request(p, Sampling(30)) for p in prompts])
    model = lm.bind(CFG, params)
    for p, new in zip(prompts, rows, strict=True):
        whole = jnp.asarray([p + new])
        logits = model.logits(model(whole, jnp.arange(whole.shape[1])[None]))
        np.testing.assert_array_equal(np.argmax(logits[0, len(p) - 1 : -1], -1), new)


def test_a_sample_depends_on_neither_slot_nor_neighbours(params):
    """Alone, in a full batch, and after a hundred others: equal tokens."""
    mine = Request(prompt(9), Sampling(25, 0.9, 0.95, seed=3), sample=2)
    alone = tokens(Engine(CFG, params, slots=1), [mine])[0]
    other = lambda i: Request(prompt(3 + i % 30, i), Sampling(1 + i % 20, 0.7 * (i % 3), seed=i))  # noqa: E731
    engine = Engine(CFG, params, slots=8)
    assert tokens(engine, [*map(other, range(7)), mine])[-1] == alone
    assert tokens(engine, [*map(other, range(100)), mine])[-1] == alone
    assert tokens(engine, [mine])[0] == alone
    assert tokens(Engine(CFG, params, slots=8), [replace(mine, sample=3)])[0] != alone


def test_requests_are_admitted_while_others_are_decoded(params):
    """One slot of two is held by a long row: short ones pass beside it, none waits for a batch to end."""
    engine = Engine(CFG, params, slots=2)
    long = engine.add(Request(prompt(4), Sampling(100)))
    short = [engine.add(Request(prompt(4, i), Sampling(5))) for i in range(1, 4)]
    ended = [row for row, event in engine.run() if event.reason]
    assert ended == [*short, long]


def test_a_late_request_joins_within_one_block(params):
    engine = Engine(CFG, params, slots=2)
    first = engine.add(Request(prompt(4), Sampling(100)))
    list(engine.step())
    late = engine.add(Request(prompt(5), Sampling(3)))
    seen = [row for _ in range(2) for row, _ in engine.step()]
    assert late in seen and first in seen
    assert late.count == 3 and first.count < 100


def test_what_is_compiled_is_listed_and_no_more(params):
    cfg = replace(CFG, norm_eps=1.1e-5)  # programs of its own in jit's cache
    engine = Engine(cfg, params, slots=4)
    sizes = lambda: [f._cache_size() for f in (programs.prefill, programs.decode)]  # noqa: E731
    before = sizes()
    for i in range(60):
        n = int(RNG.integers(1, 90))
        sampling = Sampling(int(RNG.integers(1, 128 - n)), [0.0, 1.0][i % 2], [1.0, 0.9][i % 3 == 0], seed=i)
        engine.add(Request(prompt(n, i), sampling, log_probs=i % 5 == 0))
        if i % 7 == 0:
            list(engine.step())
    list(engine.run())
    assert engine.used <= set(engine.shapes.programs())
    new = [a - b for a, b in zip(sizes(), before, strict=True)]
    assert new == [sum(1 for p in engine.used if p[0] == name) for name in ("prefill", "decode")]


def test_the_window_of_a_block_follows_the_active_rows_and_not_the_capacity(params):
    cfg = replace(CFG, max_seq_len=4096)
    engine = Engine(cfg, params, slots=2)
    tokens(engine, [Request(prompt(100), Sampling(20))])
    assert {p[2] for p in engine.used if p[0] == "decode"} == {128}
    tokens(engine, [Request(prompt(300), Sampling(20)), Request(prompt(5), Sampling(40))])
    assert {p[2] for p in engine.used if p[0] == "decode"} == {128, 512}


def test_windows_of_any_width_and_span_give_the_same_tokens(params):
    cfg = replace(CFG, max_seq_len=2048)
    requests = [Request(prompt(n), Sampling(40, 0.8, seed=n)) for n in (3, 120, 127, 250)]
    expected = [tokens(Engine(cfg, params, slots=1, capacity=2048), [r])[0] for r in requests]
    assert tokens(Engine(cfg, params, slots=4), requests) == expected
    assert tokens(Engine(cfg, params, slots=9, widths=(4,)), requests) == expected


def test_a_cancelled_row_frees_its_slot(params):
    engine = Engine(CFG, params, slots=1)
    first, second = engine.add(Request(prompt(4), Sampling(100))), engine.add(Request(prompt(5), Sampling(4)))
    list(engine.step())
    engine.cancel(first)
    events = list(engine.run())
    assert events[0][0] is first and events[0][1].reason == "cancelled"
    assert second.count == 4 and not engine.busy
    waiting = engine.add(Request(prompt(4), Sampling(9)))
    engine.cancel(waiting)
    assert [e.reason for _, e in engine.run()] == ["cancelled"] and waiting.count == 0


def test_ends_ignored_and_not_before(params):
    free = tokens(Engine(CFG, params), [Request(prompt(6), Sampling(40))])[0]
    end = free[10]
    engine = Engine(CFG, params, end_ids=[end])
    cut, ignored, late = run(
        engine,
        [
            Request(prompt(6), Sampling(40)),
            Request(prompt(6), Sampling(40), ignore_end=True),
            Request(prompt(6), Sampling(40), min_tokens=20),
        ],
    )
    assert [t for e in cut for t in e.tokens] == free[: free.index(end)]
    assert cut[-1].reason == "end" and cut[-1].end_token == end
    assert [t for e in ignored for t in e.tokens] == free and ignored[-1].reason == "length"
    assert end not in [t for e in late for t in e.tokens][:20]
    assert [t for e in late for t in e.tokens][: free.index(end)] == free[: free.index(end)]


def test_text_and_tokens_of_the_events_end_at_the_stop(params):
    free = tokens(Engine(CFG, params), [Request(prompt(6), Sampling(60))])[0]
    text = b"".join(map(letters, free)).decode()
    stop = text[20:22]
    request = Request(prompt(6), Sampling(60), stops=Stops([stop]), text_of=letters, log_probs=True)
    (events,) = run(Engine(CFG, params), [request])
    assert "".join(e.text for e in events) == text[: text.index(stop)]
    assert [t for e in events for t in e.tokens] == free[: text.index(stop)]
    assert len([p for e in events for p in e.log_probs]) == text.index(stop)
    assert events[-1].reason == "stop"


def test_log_probs_are_those_of_the_training_forward(params):
    engine = Engine(CFG, params)
    (events,) = run(engine, [Request(prompt(12), Sampling(30, 1.0, seed=1), log_probs=True)])
    new = [t for e in events for t in e.tokens]
    found = [p for e in events for p in e.log_probs]
    (scores,) = engine.score([prompt(12) + new], top=True)
    np.testing.assert_allclose([p.log_prob for p in found], scores.log_probs[12:], atol=1e-4)
    for p, token, ids, values in zip(found, new, scores.top_ids[12:], scores.top_log_probs[12:], strict=True):
        assert [i for i, _ in p.top][:3] == ids[:3].tolist()
        np.testing.assert_allclose([v for _, v in p.top], values, atol=1e-4)
        assert dict(p.top).get(token, p.log_prob) == p.log_prob  # the same number in both places


def test_packed_scores_are_those_of_each_sequence_alone(params):
    sequences = [prompt(n) for n in (1, 2, 30, 64, 65, 100, 3, 128)]
    together = Engine(CFG, params).score(sequences, top=True)
    model = lm.bind(CFG, params)
    for ids, scores in zip(sequences, together, strict=True):
        logits = model.logits(model(jnp.asarray([ids]), jnp.arange(len(ids))[None]))[0]
        expected = jax.nn.log_softmax(logits)[jnp.arange(len(ids) - 1), jnp.asarray(ids[1:], int)]
        assert np.isnan(scores.log_probs[0])
        np.testing.assert_allclose(scores.log_probs[1:], expected, atol=1e-4)
        np.testing.assert_array_equal(scores.top_ids[1:, 0], np.argmax(logits[:-1], -1))


def test_a_row_whose_logits_are_not_finite_leaves_others_and_its_slot_alone(params):
    """One embedding is NaN: its prompt fails; the same slot serves the next request as before."""
    good = Request(prompt(6), Sampling(20))
    expected = tokens(Engine(CFG, params, slots=1), [good])[0]
    broken = jax.tree.map(np.array, params)
    broken["embed"].get_value()[7] = np.nan
    assert 7 not in good.prompt and 7 not in expected
    engine = Engine(CFG, broken, slots=1)
    bad, fine = run(engine, [Request([1, 7, 2], Sampling(5)), good])
    assert bad[-1].reason == "error" and "not finite" in bad[-1].error
    assert [t for e in fine for t in e.tokens] == expected


def test_an_int8_cache_is_a_quarter_and_nearly_the_same(params):
    requests = [Request(prompt(n), Sampling(25, seed=n), log_probs=True) for n in (20, 60)]
    exact, small = Engine(CFG, params), Engine(CFG, params, int8_cache=True)
    a, b = run(exact, requests), run(small, requests)
    for x, y in zip(a, b, strict=True):
        first = [[p.log_prob for e in events for p in e.log_probs][:2] for events in (x, y)]
        np.testing.assert_allclose(*first, atol=0.05)
    size = lambda engine: sum(x.nbytes for x in jax.tree.leaves(engine._cache))  # noqa: E731
    assert size(small) == 16 * 128 * kv.bytes_per_token(CFG, int8=True) < 0.35 * size(exact)
    assert tokens(Engine(CFG, params, int8_cache=True, slots=1), requests[:1])[0] == [t for e in b[0] for t in e.tokens]


def test_bfloat16_weights(params):
    engine = Engine(replace(CFG, compute_dtype="bfloat16"), params)
    assert {x.dtype.name for n, x in engine.weights.layers[0].items() if "norm" not in n} == {"bfloat16"}
    assert len(tokens(engine, [Request(prompt(8), Sampling(20))])[0]) == 20


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request([], Sampling(2)), "empty"),
        (Request([1, 160], Sampling(2)), "vocab_size=160"),
        (Request([-1], Sampling(2)), "ids -1"),
        (Request([1] * 100, Sampling(29)), "exceed model.max_seq_len=128"),
        (Request([1], Sampling(2), stops=Stops(["a"])), "text_of"),
    ],
)
def test_what_cannot_run_is_rejected(params, request_, message):
    with pytest.raises(ValueError, match=message):
        Engine(CFG, params).add(request_)


def test_a_full_slot(params):
    """Prompt and answer fill a slot to its last token."""
    (new,) = tokens(Engine(CFG, params, slots=1), [Request(prompt(100), Sampling(28))])
    whole = jnp.asarray([prompt(100) + new])
    model = lm.bind(CFG, params)
    logits = model.logits(model(whole, jnp.arange(128)[None]))
    np.testing.assert_array_equal(np.argmax(logits[0, 99:-1], -1), new)
