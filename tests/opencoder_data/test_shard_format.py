"""Packing into records, the marks, verification, and what a killed or failing writer leaves."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle

import hypothesis.strategies as st
import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from opencoder_data import shard_format
from opencoder_data.shard_format import (
    DOCUMENT_START,
    NOT_A_TARGET,
    TOKEN_ID,
    ShardReader,
    ShardWriter,
    read_manifest,
    to_batch,
    verify,
)

VOCAB, PAD = 1_000, 999


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(directory, documents, seq_len=7, **options):
    with ShardWriter(
        directory, seq_len=seq_len, vocab_size=VOCAB, tokenizer_hash="abc", pad_id=PAD, **options
    ) as writer:
        for document in documents:
            writer.add(np.asarray(document), text_bytes=3 * len(document))
    return read_manifest(directory)


def stream(reader):
    """All tokens of a reader in order, the token that neighbours share once."""
    records = np.stack(list(reader))
    return np.concatenate([records[0, :1], records[:, 1:].ravel()]), records


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=25),
    seq_len=st.integers(1, 16),
    records_per_shard=st.integers(1, 9),
)
def test_every_token_is_stored_in_order_and_is_a_target_once(tmp_path_factory, lengths, seq_len, records_per_shard):
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, PAD, n) for n in lengths]
    directory = tmp_path_factory.mktemp("shards") / "s"
    manifest = write(directory, documents, seq_len, records_per_shard=records_per_shard)
    reader = ShardReader(directory)
    tokens, records = stream(reader)
    expected = np.concatenate(documents)
    starts = np.zeros(len(expected), bool)
    starts[np.cumsum([0, *lengths[:-1]])] = True
    real, padding = tokens[: len(expected)], tokens[len(expected) :]
    np.testing.assert_array_equal(real & TOKEN_ID, expected)
    np.testing.assert_array_equal(real >= DOCUMENT_START, starts)
    assert not (real & NOT_A_TARGET).any()
    assert len(padding) < seq_len or len(expected) == 1
    assert ((padding & TOKEN_ID) == PAD).all()
    assert (padding & NOT_A_TARGET).all()
    assert to_batch(records)["loss_mask"].sum() == len(expected) - len(documents)
    assert manifest.num_tokens == len(expected)
    assert manifest.num_documents == len(documents)
    assert manifest.text_bytes == 3 * len(expected)
    assert manifest.num_records == len(records) == len(reader)
    assert [s.num_records for s in manifest.shards[:-1]] == [records_per_shard] * (len(manifest.shards) - 1)


def test_batch_against_a_loop_over_tokens():
    rng = np.random.default_rng(1)
    records = rng.integers(0, VOCAB, (9, 34)).astype(np.uint32)
    records[rng.random(records.shape) < 0.2] |= DOCUMENT_START
    records[rng.random(records.shape) < 0.2] |= NOT_A_TARGET
    batch = to_batch(records)
    assert {name: value.dtype.name for name, value in batch.items()} == {
        "tokens": "int32",
        "targets": "int32",
        "positions": "int32",
        "segment_ids": "int32",
        "loss_mask": "bool",
    }
    for row in range(9):
        segment = position = 0
        for t in range(33):
            if t == 0 or records[row, t] & DOCUMENT_START:
                segment, position = segment + 1, 0
            marks = records[row, t + 1] & (DOCUMENT_START | NOT_A_TARGET)
            expected = (records[row, t] & TOKEN_ID, records[row, t + 1] & TOKEN_ID, position, segment, not marks)
            assert tuple(batch[name][row, t] for name in batch) == expected
            position += 1


def test_prompts_carry_no_loss(tmp_path):
    with ShardWriter(tmp_path / "s", seq_len=4, vocab_size=VOCAB, tokenizer_hash="a", pad_id=PAD) as writer:
        writer.add(np.arange(5), text_bytes=5, targets=np.array([False, False, False, True, True]))
    batch = to_batch(np.stack(list(ShardReader(tmp_path / "s"))))
    assert batch["loss_mask"].tolist() == [[False, False, True, True]]


def test_token_outside_the_vocabulary(tmp_path):
    with pytest.raises(ValueError, match="outside the vocabulary"):
        write(tmp_path / "s", [[VOCAB]])
    assert not list((tmp_path / "s").iterdir())


def test_a_failing_writer_leaves_nothing(tmp_path):
    def documents():
        for _ in range(50):
            yield [1, 2, 3]
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "s", documents(), 3, records_per_shard=2)
    assert not list((tmp_path / "s").iterdir())
    with pytest.raises(ValueError, match="no finished shard set"):
        ShardReader(tmp_path / "s")


def test_a_finished_directory_is_not_written_over(tmp_path):
    write(tmp_path / "s", [[1, 2]])
    with pytest.raises(ValueError, match="finished shard set already"):
        write(tmp_path / "s", [[1, 2]])


@pytest.mark.parametrize("mode", ["full", "always"])
def test_a_flipped_byte_is_rejected_by_name(tmp_path, mode):
    write(tmp_path / "s", [np.arange(100)], records_per_shard=4)
    path = tmp_path / "s" / "shard-00001.bin"
    data = bytearray(path.read_bytes())
    data[17] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"shard-00001\.bin: checksum .* corrupt"):
        ShardReader(tmp_path / "s", check=mode)
    ShardReader(tmp_path / "s", check="size")


@pytest.mark.parametrize("mode", shard_format.VERIFY_MODES)
@pytest.mark.parametrize("change", ["short", "long", "missing"])
def test_wrong_sizes_are_rejected_by_name(tmp_path, mode, change):
    write(tmp_path / "s", [np.arange(100)], records_per_shard=4)
    path = tmp_path / "s" / "shard-00001.bin"
    if change == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-4] if change == "short" else path.read_bytes() + b"1234")
    with pytest.raises(ValueError, match=r"shard-00001\.bin: (missing|\d+ bytes)"):
        ShardReader(tmp_path / "s", check=mode)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"num_tokens": 100', '"num_tokens": 101', "fingerprint does not fit"),
        ('"format_version": 1', '"format_version": 9', "format version 9"),
        ('"shards": [', '"shards": ', "not a shard manifest"),
        ('"seq_len"', '"sequence"', "not a shard manifest"),
    ],
)
def test_a_changed_manifest_is_rejected(tmp_path, old, new, message):
    write(tmp_path / "s", [np.arange(100)])
    path = tmp_path / "s" / "manifest.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=message):
        ShardReader(tmp_path / "s")


def test_files_found_good_are_not_read_again_unless_changed(tmp_path, monkeypatch):
    directory = tmp_path / "s"
    manifest = write(directory, [np.arange(100)], records_per_shard=4)
    read = []
    right = shard_format._checksum
    monkeypatch.setattr(shard_format, "_checksum", lambda path: read.append(path.name) or right(path))
    verify(directory, manifest)
    assert sorted(read) == [s.file for s in manifest.shards]
    read.clear()
    verify(directory, manifest)
    assert read == []
    verify(directory, manifest, mode="always")
    assert len(read) == len(manifest.shards)
    read.clear()
    path = directory / "shard-00002.bin"
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    os.utime(path, ns=(1, 1))
    with pytest.raises(ValueError, match="corrupt"):
        verify(directory, manifest)
    assert read == ["shard-00002.bin"]


def put_id(directory, record, place, value):
    """Writes a token into a finished directory and makes checksum and manifest fit, as a packer with another tokenizer does."""
    manifest = read_manifest(directory)
    shards = []
    for shard in manifest.shards:
        tokens = np.fromfile(directory / shard.file, "<u4").reshape(shard.num_records, -1)
        if 0 <= record < len(tokens):
            tokens[record, place] = value
            tokens.tofile(directory / shard.file)
        record -= len(tokens)
        shards.append(dataclasses.replace(shard, xxh3=xxhash.xxh3_64(tokens.tobytes()).hexdigest()))
    dataclasses.replace(manifest, shards=tuple(shards)).write(directory)


@pytest.mark.parametrize("value", [VOCAB, VOCAB | int(DOCUMENT_START), VOCAB | int(NOT_A_TARGET), int(TOKEN_ID)])
@pytest.mark.parametrize(("record", "place"), [(0, 0), (13, 7)])
def test_an_id_beyond_the_vocabulary_is_rejected_by_full_verification(tmp_path, value, record, place):
    directory = tmp_path / "s"
    write(directory, [np.arange(100)], records_per_shard=4)
    put_id(directory, record, place, value)
    for mode in ("full", "always"):
        with pytest.raises(
            ValueError,
            match=rf"shard-0000{record // 4}.bin: holds token id {value & int(TOKEN_ID)}, the .* ends at 999",
        ):
            ShardReader(directory, check=mode)
    ShardReader(directory, check="size")


def test_the_last_id_of_the_vocabulary_is_none_beyond_it(tmp_path):
    for value in (VOCAB - 1, (VOCAB - 1) | int(DOCUMENT_START) | int(NOT_A_TARGET)):
        directory = tmp_path / str(value)
        write(directory, [np.arange(100)])
        put_id(directory, 3, 3, value)
        ShardReader(directory)


def test_ids_are_found_across_blocks_and_short_reads(tmp_path, monkeypatch):
    """Reads that end inside a token, as some file systems give them."""
    directory = tmp_path / "s"
    write(directory, [np.arange(900)])
    put_id(directory, 50, 2, VOCAB)
    monkeypatch.setattr(shard_format, "_READ_BYTES", 64)
    right = shard_format._fill

    class Short:
        def __init__(self, file):
            self.file = file

        def readinto(self, block):
            return self.file.readinto(block[:3])

    monkeypatch.setattr(shard_format, "_fill", lambda file, block: right(Short(file), block))
    with pytest.raises(ValueError, match="holds token id 1000"):
        ShardReader(directory)


def test_files_found_good_before_ids_were_checked_are_read_again(tmp_path, cache):
    """What an earlier version noted says nothing of ids; nor does a check against another vocabulary."""
    directory = tmp_path / "s"
    write(directory, [np.arange(100)])
    ShardReader(directory)
    put_id(directory, 3, 3, VOCAB)
    manifest = read_manifest(directory)
    (note,) = (tmp_path / "cache" / "opencoder" / "verified-shards").iterdir()
    stat = (directory / "shard-00000.bin").stat()
    old = [manifest.shards[0].xxh3, stat.st_size, stat.st_mtime_ns, stat.st_ino]
    for stamp in (old, [*old, VOCAB + 1]):
        note.write_text(json.dumps({"shard-00000.bin": stamp}))
        with pytest.raises(ValueError, match="holds token id"):
            ShardReader(directory)


def test_padding_outside_the_vocabulary_is_rejected_when_written(tmp_path):
    for pad_id in (-1, VOCAB):
        with pytest.raises(ValueError, match=f"pad_id={pad_id} is outside"):
            ShardWriter(tmp_path / "s", seq_len=7, vocab_size=VOCAB, tokenizer_hash="abc", pad_id=pad_id)


def test_an_unwritable_cache_does_no_harm(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    write(tmp_path / "s", [np.arange(100)])
    ShardReader(tmp_path / "s")


def test_reader_keeps_few_files_open_and_pickles(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_format, "_MAX_MAPS", 2)
    write(tmp_path / "s", [np.arange(100)], records_per_shard=2)
    reader = ShardReader(tmp_path / "s")
    expected = [r.copy() for r in reader]
    assert len(reader._maps) == 2
    copy = pickle.loads(pickle.dumps(reader))
    for i in np.random.default_rng(0).permutation(len(reader)):
        np.testing.assert_array_equal(copy[int(i)], expected[i])
    for index in (-1, len(reader)):
        with pytest.raises(IndexError):
            reader[index]


def test_fingerprint_follows_content(tmp_path):
    a, b, c = (write(tmp_path / n, [d]) for n, d in (("a", [1, 2, 3]), ("b", [1, 2, 3]), ("c", [1, 2, 4])))
    assert a.fingerprint == b.fingerprint != c.fingerprint
    assert json.loads((tmp_path / "a" / "manifest.json").read_text())["fingerprint"] == a.fingerprint
