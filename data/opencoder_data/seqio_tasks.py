"""The token shards as seqio Tasks and Mixtures, for trainers that read seqio. Needs the extra [seqio].

    from opencoder_data import seqio_tasks
    seqio_tasks.register("opencoder", {"code": "shards/code", "web": "shards/web"}, "tokenizer",
                         mixtures={"pretrain": {"code": 0.92, "web": 0.08}, "anneal": {"code": 0.84, "algorithmic": ...}})
    seqio.get_dataset("opencoder_pretrain", {"tokens": 4096, ...}, "train", feature_converter=..., ...)

Importing this module imports TensorFlow (some 20 s and 0.9 GB); nothing else of the project does. Examples hold what
`shard_format.to_batch` gives for one record: tokens, targets, positions, segment_ids `[T]` int32 and loss_mask bool.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import seqio  # pyright: ignore[reportMissingImports]
import tensorflow as tf  # pyright: ignore[reportMissingModuleSource]

from opencoder_data.shard_format import DOCUMENT_START, NOT_A_TARGET, TOKEN_ID, Manifest, ShardReader
from opencoder_data.tokenizer import Tokenizer

FEATURES = ("tokens", "targets", "positions", "segment_ids", "loss_mask")
_SPLITS = ("train",)


class OpenCoderVocabulary(seqio.SentencePieceVocabulary):
    """`SentencePieceVocabulary` over our model, with the special tokens and padding rows as its extra ids.

    Encoding and decoding of strings go through `Tokenizer`: the words of the split, exact round trip.
    """

    def __init__(self, path: str | os.PathLike[str]):
        tokenizer = Tokenizer(path)
        super().__init__(str(tokenizer.path), extra_ids=tokenizer.vocab_size - tokenizer.num_pieces)
        self.opencoder = tokenizer

    @property
    def eos_id(self) -> int:
        return self.opencoder.endoftext_id

    @property
    def vocab_size(self) -> int:
        return self.opencoder.vocab_size

    def encode(self, s: str | bytes) -> Sequence[int]:
        return self.opencoder.encode(s.decode() if isinstance(s, bytes) else s)

    def decode(self, ids: Sequence[int]) -> str:
        return self.opencoder.decode(ids)

    def _encode_tf(self, s: Any) -> Any:
        # Not numpy_function: numpy's strings lose a NUL at the end.
        ids = tf.py_function(lambda text: np.array(self.encode(text.numpy()), np.int32), [s], tf.int32)
        ids.set_shape([None])
        return ids

    def _decode_tf(self, ids: Any) -> Any:
        text = tf.py_function(lambda row: self.decode(row.numpy()).encode(), [ids], tf.string)
        text.set_shape([])
        return text


def register(
    prefix: str,
    sources: Mapping[str, str | os.PathLike[str]],
    tokenizer: str | os.PathLike[str],
    mixtures: Mapping[str, Mapping[str, float]] | None = None,
    *,
    verify: str = "full",
) -> list[str]:
    """Registers a Task `PREFIX_SOURCE` for each shard directory and a Mixture `PREFIX_NAME` for each mixture.

    Args:
        mixtures: name -> source -> rate; pre-training and annealing differ in nothing else.

    Returns: the names registered, Tasks first.
    Raises: ValueError for shards that are corrupt or of another tokenizer, and mixtures of unknown sources.
    """
    vocabulary = OpenCoderVocabulary(tokenizer)
    for mixture, rates in (mixtures or {}).items():
        if unknown := rates.keys() - sources.keys():
            raise ValueError(f"mixture {mixture!r}: unknown sources {sorted(unknown)}; there are {sorted(sources)}")
    readers = {name: ShardReader(Path(directory), check=verify) for name, directory in sources.items()}
    for name, reader in readers.items():
        _check_tokenizer(reader.manifest, vocabulary.opencoder, str(sources[name]))
    for name, reader in readers.items():
        _add_task(f"{prefix}_{name}", _shard_source(reader), reader.manifest.seq_len, vocabulary)
    for mixture, rates in (mixtures or {}).items():
        seqio.MixtureRegistry.add(f"{prefix}_{mixture}", [(f"{prefix}_{s}", rate) for s, rate in rates.items()])
    return [f"{prefix}_{name}" for name in (*sources, *(mixtures or {}))]


def register_ordered(name: str, records: Any, num_records: int, tokenizer: str | os.PathLike[str]) -> str:
    """Registers a Task that delivers `records[0]`, `records[1]`, ... unchanged: the order of a training run, say.

    Args:
        records: random access to uint32 `[T+1]` records, such as `opencoder_jax.input.TrainingData.records`.
    """
    width = len(records[0])

    def read(split: str, shuffle_files: bool, seed: int | None = None) -> Any:
        del split, shuffle_files, seed
        signature = tf.TensorSpec([width], tf.uint32)
        return tf.data.Dataset.from_generator(
            lambda: (records[i] for i in range(num_records)), output_signature=signature
        ).map(lambda record: {"record": record})

    source = seqio.FunctionDataSource(read, _SPLITS, {"train": num_records}, caching_permitted=False)
    _add_task(name, source, width - 1, OpenCoderVocabulary(tokenizer))
    return name


def _check_tokenizer(manifest: Manifest, tokenizer: Tokenizer, directory: str) -> None:
    if manifest.tokenizer_hash != tokenizer.hash:
        raise ValueError(
            f"{directory}: packed with tokenizer {manifest.tokenizer_hash}, this one is {tokenizer.hash} ({tokenizer.path})"
        )


def _shard_source(reader: ShardReader) -> seqio.FunctionDataSource:
    """Records of a shard directory in order, read by TensorFlow itself."""
    manifest = reader.manifest
    files = [str(Path(reader.directory, shard.file)) for shard in manifest.shards]
    width = manifest.seq_len + 1

    def read(split: str, shuffle_files: bool, seed: int | None = None) -> Any:
        del split
        names = tf.data.Dataset.from_tensor_slices(files)
        if shuffle_files:
            names = names.shuffle(len(files), seed=seed)
        records = tf.data.FixedLengthRecordDataset(names, record_bytes=4 * width)
        return records.map(
            lambda data: {"record": tf.ensure_shape(tf.bitcast(tf.io.decode_raw(data, tf.int32), tf.uint32), [width])},
            num_parallel_calls=tf.data.AUTOTUNE,
        )

    return seqio.FunctionDataSource(read, _SPLITS, {"train": manifest.num_records}, caching_permitted=False)


def _add_task(name: str, source: Any, seq_len: int, vocabulary: OpenCoderVocabulary) -> None:
    numbers = seqio.PassThroughVocabulary(size=seq_len + 1)
    features = {
        "tokens": seqio.Feature(vocabulary, add_eos=False, dtype=tf.int32),
        "targets": seqio.Feature(vocabulary, add_eos=False, dtype=tf.int32),
        "positions": seqio.Feature(numbers, add_eos=False, dtype=tf.int32),
        "segment_ids": seqio.Feature(numbers, add_eos=False, dtype=tf.int32),
        "loss_mask": seqio.Feature(numbers, add_eos=False, dtype=tf.bool),
    }
    seqio.TaskRegistry.add(name, source=source, preprocessors=[_to_example], output_features=features)


def _to_example(dataset: Any) -> Any:
    """`shard_format.to_batch` of one record, in TensorFlow."""
    return dataset.map(lambda item: _split_record(item["record"]), num_parallel_calls=tf.data.AUTOTUNE)


def _split_record(record: Any) -> dict[str, Any]:
    ids = tf.cast(tf.bitwise.bitwise_and(record, TOKEN_ID), tf.int32)
    seq_len = tf.shape(ids)[0] - 1
    starts = tf.cast(tf.bitwise.bitwise_and(record[:-1], DOCUMENT_START), tf.bool)
    starts = tf.concat([[True], starts[1:]], axis=0)
    segment_ids = tf.cumsum(tf.cast(starts, tf.int32))
    first = tf.cast(tf.where(starts)[:, 0], tf.int32)
    marks = tf.bitwise.bitwise_and(record[1:], DOCUMENT_START | NOT_A_TARGET)
    return {
        "tokens": ids[:-1],
        "targets": ids[1:],
        "positions": tf.range(seq_len) - tf.gather(first, segment_ids - 1),
        "segment_ids": segment_ids,
        "loss_mask": tf.equal(marks, 0),
    }
