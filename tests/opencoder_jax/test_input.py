"""Data order: a pure function of (seed, step), the same for any number of hosts; rejections at start."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from opencoder_data.shard_format import BATCH_FIELDS, TOKEN_ID, ShardReader, ShardWriter

from opencoder_jax.config import DataConfig, SourceConfig
from opencoder_jax.input import TrainingData, iterate, open_shards
from opencoder_jax.mixture import PATTERN_LENGTH, BatchSizes, Mixture, Stage, parse_changes

T, VOCAB, SIZES = 8, 4_096, (40, 23)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """Two sources whose record i is one document that starts with the token base + i."""
    root = tmp_path_factory.mktemp("sources")
    for s, size in enumerate(SIZES):
        write(root / str(s), size, base=1_000 * (s + 1))
    return [str(root / str(s)) for s in range(len(SIZES))]


def write(directory, size, base=0, seq_len=T, tokenizer_hash="h", vocab_size=VOCAB):
    options = {"seq_len": seq_len, "vocab_size": vocab_size, "tokenizer_hash": tokenizer_hash, "pad_id": 0}
    with ShardWriter(directory, records_per_shard=16, **options) as writer:
        # T tokens each; one more at the end completes the last record.
        for i in range(size):
            writer.add(np.full(seq_len, base + i), text_bytes=seq_len)
        writer.add(np.array([0]), text_bytes=1)
    return directory


def config(directories, weights=(1.0, 1.0), **changes):
    sources = tuple(SourceConfig(f, w) for f, w in zip(directories, weights, strict=False))
    return replace(DataConfig(sources=sources, seq_len=T, global_batch_size=8, max_epochs=1e9), **changes)


def data(directories, *args, seed=0, **changes):
    return TrainingData(config(directories, *args, **changes), vocab_size=VOCAB, seed=seed)


def first_tokens(batch):
    return batch["tokens"][..., 0].ravel().tolist()


def test_hosts_read_their_rows_of_the_same_global_batches(directories):
    whole = data(directories, (0.7, 0.3)).steps()
    for hosts in (1, 2, 4, 8):
        count = 8 // hosts
        parts = [data(directories, (0.7, 0.3)).steps(rows=(h * count, (h + 1) * count)) for h in range(hosts)]
        for step in (0, 1, 5, 1_000, 54_321):
            for name in BATCH_FIELDS:
                joined = np.concatenate([part[step][name] for part in parts], axis=1)
                assert joined.tobytes() == whole[step][name].tobytes()


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_micro_batches_are_the_same_records(directories, hosts):
    whole = data(directories).steps()
    count = 8 // 2 // hosts
    for step in (0, 3):
        parts = [data(directories).steps(grad_accum=2, rows=(h * count, (h + 1) * count))[step] for h in range(hosts)]
        joined = np.concatenate([part["tokens"] for part in parts], axis=1)
        assert joined.shape == (2, 4, T)
        np.testing.assert_array_equal(joined.reshape(1, 8, T), whole[step]["tokens"])


def test_every_record_once_per_epoch_in_new_order(directories):
    steps = data(directories[:1]).steps()
    order = [t for step in range(15) for t in first_tokens(steps[step])]
    epochs = [order[i : i + 40] for i in range(0, 120, 40)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(1_000, 1_040))
    assert len({tuple(e) for e in epochs}) == 3
    assert epochs[0] != sorted(epochs[0])


def test_equal_sources_do_not_share_a_permutation(directories):
    """The same directory twice: in lockstep, every record would come twice in a batch. Nor may one source's epoch be another's."""
    loaded = data([directories[0]] * 2)
    drawn = {0: [], 1: []}
    for i in range(6 * SIZES[0]):
        drawn[loaded._mixture[i][0]].append(int(loaded.records[i][0] & TOKEN_ID))
    epochs = [tuple(tokens[i : i + 40]) for tokens in drawn.values() for i in (0, 40, 80)]
    assert all(sorted(epoch) == list(range(1_000, 1_040)) for epoch in epochs)
    assert len(set(epochs)) == 6


def test_the_order_is_this_one(directories):
    """Golden: what step 0 and step 1,000 read, and what a checkpoint notes of it. A change of our code or of Grain's that
    gave another order would break the resumption of every run begun before it."""
    loaded = data(directories, (0.7, 0.3), seed=3)
    steps = loaded.steps()
    assert first_tokens(steps[0]) == [1019, 2004, 1003, 1014, 2022, 1035, 1031, 1005]
    assert first_tokens(steps[1_000]) == [1013, 2012, 1006, 1035, 2018, 1009, 1003, 1028]
    assert loaded.fingerprint == {"shards": "7a67645361f92af0", "tokenizer": "h", "mixture": "230a3e100fb5b6a1"}


def test_seed_and_shuffle_decide_the_order(directories):
    first = {seed: first_tokens(data(directories, seed=seed).steps()[0]) for seed in (0, 1)}
    assert first[0] != first[1]
    assert first[0] == first_tokens(data(directories, seed=0).steps()[0])
    plain = data(directories[:1], shuffle=False).steps()
    assert [t for s in range(5) for t in first_tokens(plain[s])] == list(range(1_000, 1_040))


def test_iterate_from_any_step_is_random_access(directories):
    steps = data(directories, (0.9, 0.1)).steps()
    for start in (0, 7, 31):
        for step, batch in enumerate(iterate(steps, start, start + 5), start):
            assert batch["tokens"].tobytes() == steps[step]["tokens"].tobytes()


def test_weights_change_at_a_step_and_each_source_goes_on(directories):
    """After the change the mixture is the new one, and no record is skipped or repeated before its epoch ends."""
    steps = data(directories, (1.0, 0.0), mixture_changes="3:0.5,0.5;6:0,1").steps()
    by_step = [first_tokens(steps[s]) for s in range(8)]
    shares = [sum(t >= 2_000 for t in tokens) for tokens in by_step]
    assert shares == [0, 0, 0, 4, 4, 4, 8, 8]
    drawn = [t for tokens in by_step for t in tokens]
    one, two = [t for t in drawn if t < 2_000], [t for t in drawn if t >= 2_000]
    assert sorted(one) == sorted(set(one))
    assert len(one) == 36
    assert len(set(two[:23])) == 23
    assert data(directories, (1.0, 0.0), mixture_changes="3:0.5,0.5;6:0,1").plan(8)[1].tokens == len(two) * T


@settings(max_examples=60, deadline=None)
@given(
    weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=5),
    changed=st.lists(st.floats(0.01, 100), min_size=5, max_size=5),
    start=st.integers(1, 3_000),
)
def test_mixture_counts_are_what_random_access_gives(weights, changed, start):
    mixture = Mixture([Stage(0, tuple(weights)), Stage(start, tuple(changed[: len(weights)]))], 7)
    place = [0] * len(weights)
    num = 7 * start + 500
    for i in range(num):
        if i % 977 == 0:
            assert mixture.counts(i) == place
        source, index = mixture[i]
        assert index == place[source]
        place[source] += 1
    assert mixture.counts(num) == place
    shares = np.array(weights) / np.sum(weights)
    # Evenly spread: no prefix of a stage is off by more than one record per source, and rounding.
    n = 7 * start
    assert np.abs(np.array(mixture.counts(n)) - n * shares).max() <= len(weights) + n / PATTERN_LENGTH


def test_the_pattern_of_sources_is_this_one():
    """By hand: source s of share p has its records at (rank + 1/2) / p, ties go to the lower number, and what rounding
    leaves of the 65,536 records goes to the largest remainders, then to the lower number. Runs resume by it."""
    pattern = lambda weights, n: [Mixture([Stage(0, weights)], 1)[i][0] for i in range(n)]  # noqa: E731
    assert pattern((0.5, 0.25, 0.25), 12) == [0, 1, 2, 0] * 3
    assert pattern((3.0, 5.0), 16) == [1, 0, 1, 0, 1, 1, 0, 1] * 2  # at 1.3 4 6.7 and .8 2.4 4 5.6 7.2 of 8
    counts = lambda weights: Mixture([Stage(0, weights)], 1).counts(65_536)  # noqa: E731
    assert counts((1.0, 1.0, 1.0)) == [21_846, 21_845, 21_845]
    assert counts((0.2, 0.3, 0.5)) == [13_107, 19_661, 32_768]
    assert counts((1.0,) * 300) == [219] * 136 + [218] * 164


def test_mixture_that_cannot_be_drawn(directories):
    for weights, message in [
        ((-1, 1), "negative"),
        ((-0.5, 1), "must not be negative"),
        ((0, 0), "all zero"),
        ((1, 1e-7), "the least"),
        ((1, np.nan), "neg"),
    ]:
        with pytest.raises(ValueError, match=message):
            data(directories, weights)
    for text, message in [
        ("x:1,1", "is not STEP"),
        ("5", "is not STEP"),
        ("5:1", "1 weights for 2 sources"),
        ("5:1,1;5:1,2", "does not come after"),
        ("0:1,1", "does not come after"),
    ]:
        with pytest.raises(ValueError, match=message):
            data(directories, mixture_changes=text)
    assert parse_changes("", 2) == []


def test_plan_counts_what_is_drawn(directories):
    loaded = data(directories, (0.75, 0.25))
    drawn = Counter(t // 1_000 for s in range(50) for t in first_tokens(loaded.steps()[s]))
    plan = loaded.plan(50)
    assert [p.tokens for p in plan] == [drawn[1] * T, drawn[2] * T]
    assert [p.epochs for p in plan] == [drawn[1] / 40, drawn[2] / 23]
    assert sum(p.share for p in plan) == pytest.approx(1)


def test_a_run_that_would_exhaust_its_data_is_rejected(directories):
    loaded = data(directories, max_epochs=2.0)
    loaded.check_enough(11)
    with pytest.raises(ValueError, match=r"1: 12 steps would read it 2\.09 times, data\.max_epochs=2\.0"):
        loaded.check_enough(12)
    # The second source appears only after the change, and then too often.
    late = data(directories, (1.0, 0.0), mixture_changes="10:0.2,0.8", max_epochs=3.0)
    late.check_enough(12)
    with pytest.raises(ValueError, match="max_epochs"):
        late.check_enough(30)


def test_a_run_may_read_a_source_exactly_max_epochs_times(directories):
    loaded = data(directories[:1], max_epochs=2.0)
    loaded.check_enough(10)  # 80 of 40 records
    with pytest.raises(ValueError, match=r"10 steps would read it 2\.00 times, .* num_steps <= 9,"):
        data(directories[:1], max_epochs=1.99).check_enough(10)


def test_plans_of_next_to_nothing(directories):
    assert [(p.share, p.tokens, p.epochs) for p in data(directories).plan(0)] == [(0, 0, 0), (0, 0, 0)]
    one = data(directories, global_batch_size=1).plan(1)
    assert [(p.share, p.tokens, p.epochs) for p in one] == [(1, T, 1 / 40), (0, 0, 0)]


def test_fingerprint_names_what_changed(directories, tmp_path):
    base = data(directories).fingerprint
    assert data(directories).fingerprint == base
    for changes in ({"seed": 1}, {"shuffle": False}, {"global_batch_size": 16}, {"mixture_changes": "5:1,2"}):
        other = data(directories, **changes).fingerprint
        assert {k for k in base if base[k] != other[k]} == {"mixture"}
    assert data(directories, (1, 2)).fingerprint["shards"] == base["shards"]
    write(tmp_path / "x", SIZES[1], base=2_001)
    other = data([directories[0], str(tmp_path / "x")]).fingerprint
    assert {k for k in base if base[k] != other[k]} == {"shards", "mixture"}


def test_shards_that_do_not_fit_are_rejected_by_name(directories, tmp_path):
    with pytest.raises(ValueError, match=r"data\.sources is empty"):
        data([])
    with pytest.raises(ValueError, match="no such directory"):
        data([str(tmp_path / "none")])
    other = str(write(tmp_path / "t", 5, seq_len=4))
    with pytest.raises(ValueError, match=r"t: records of 4 tokens, data\.seq_len=8"):
        data([other])
    other = str(write(tmp_path / "h", 5, tokenizer_hash="other"))
    with pytest.raises(ValueError, match="different tokenizers"):
        data([directories[0], other])
    with pytest.raises(ValueError, match="packed with tokenizer other, expected h"):
        open_shards(SourceConfig(other), config(directories), VOCAB, "h")
    other = str(write(tmp_path / "v", 5, vocab_size=VOCAB + 128))
    with pytest.raises(ValueError, match=r"v: vocabulary of 4224, model\.vocab_size=4096"):
        data([other])
    path = tmp_path / "t" / "shard-00000.bin"
    path.write_bytes(path.read_bytes()[:-36])
    with pytest.raises(ValueError, match=r"shard-00000\.bin: .* cut short"):
        data([str(tmp_path / "t")], seq_len=4)
    with pytest.raises(ValueError, match="verify='x'"):
        data(directories, verify="x")


def test_one_record_is_enough(tmp_path):
    steps = data([str(write(tmp_path / "s", 1, base=5))]).steps()
    assert first_tokens(steps[3]) == [5] * 8


def records_of(steps, start, stop):
    return [token for step in range(start, stop) for token in first_tokens(steps[step])]


@pytest.mark.parametrize("changes", ["", "15:0.2,0.8", "3:0.5,0.5;30:0.1,0.9"])
def test_a_changed_batch_size_continues_every_source_where_it_was(directories, changes):
    """Steps of 8 up to step 10, of 16 up to 20, of 4 from there: the records of the stream in order, none twice; where
    the mixture changes at a step, it does so at that step's record."""
    before, doubled, halved = (
        data(directories, (0.7, 0.3), global_batch_size=b, mixture_changes=changes) for b in (8, 16, 4)
    )
    batches = before.batches.changed(10, doubled.config)
    doubled = doubled.continued(batches)
    halved = halved.continued(batches.changed(20, halved.config))
    assert (before.first_step, doubled.first_step, halved.first_step) == (0, 10, 20)
    got = records_of(before.steps(), 0, 10) + records_of(doubled.steps(), 0, 10) + records_of(halved.steps(), 0, 40)
    sizes = BatchSizes(((0, 8, T), (10, 16, T), (20, 4, T)))
    assert halved.batches == sizes
    assert len(got) == sizes.records(60) == 80 + 160 + 160
    # One record at a time, the stages' steps given as records.
    parts = [part.partition(":") for part in changes.split(";") if part]
    by_record = ";".join(f"{sizes.records(int(step))}:{weights}" for step, _, weights in parts)
    single = data(directories, (0.7, 0.3), global_batch_size=1, mixture_changes=by_record)
    assert got == records_of(single.steps(), 0, len(got))
    assert [p.tokens for p in halved.plan(60)] == [p.tokens for p in single.plan(len(got))]


def test_hosts_read_their_rows_after_a_change_too(directories):
    whole = data(directories, global_batch_size=16).continued(BatchSizes(((0, 4, T), (7, 16, T))))
    parts = [whole.steps(grad_accum=2, rows=(h * 4, h * 4 + 4)) for h in (0, 1)]
    for step in (0, 3):
        joined = np.concatenate([part[step]["tokens"] for part in parts], axis=1)
        assert joined.tobytes() == whole.steps(grad_accum=2)[step]["tokens"].tobytes()


def test_batch_sizes():
    eight, sixteen = DataConfig(global_batch_size=8, seq_len=4), DataConfig(global_batch_size=16, seq_len=4)
    sizes = BatchSizes.constant(eight)
    assert sizes.changed(5, eight) == sizes
    assert sizes.changed(0, sixteen) == BatchSizes.constant(sixteen)
    twice = sizes.changed(5, sixteen)
    assert twice.changes == ((0, 8, 4), (5, 16, 4))
    # Saved at step 5 and resumed from there again, with the old size: as if nothing had been.
    assert twice.changed(5, eight) == sizes
    assert twice.changed(6, eight).changes == ((0, 8, 4), (5, 16, 4), (6, 8, 4))
    assert [twice.records(step) for step in (0, 4, 5, 6)] == [0, 32, 40, 56]
    assert twice.tokens(6) == 4 * 56


@pytest.mark.parametrize(("records", "fits"), [(0, False), (1, True), (2**32 - 1, True), (2**32, False)])
def test_a_source_has_as_many_records_as_grain_can_shuffle(directories, monkeypatch, records, fits):
    class Reader:
        manifest = ShardReader(directories[0]).manifest

        def __init__(self, path, check):
            assert (path, check) == (directories[0], "size")

        def __len__(self):
            return records

    monkeypatch.setattr("opencoder_jax.input.ShardReader", Reader)
    open_this = partial(open_shards, SourceConfig(directories[0]), config(directories[:1], verify="size"), VOCAB)
    if fits:
        assert len(open_this()) == records
    else:
        with pytest.raises(ValueError, match=f"holds {records} records"):
            open_this()
