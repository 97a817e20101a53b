"""Tokenizer over one SentencePiece model file, trained here or released: the reference that all others must equal."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from opencoder_data.tokenizer.presplit import PATTERN, split_words
from opencoder_data.tokenizer.special_tokens import ENDOFTEXT, PAD, SPECIAL_TOKENS, padded_vocab_size

SPACE_PIECE = "\u2581"
# Generated code, whose classes type checkers do not see.
_pb2: Any = sentencepiece_model_pb2
_Type = _pb2.ModelProto.SentencePiece
NORMAL, BYTE, USER_DEFINED = _Type.NORMAL, _Type.BYTE, _Type.USER_DEFINED


class Tokenizer:
    """Text to token ids and back, exactly: `decode(encode(text)) == text` for every string of valid Unicode.

    Ids: the model's pieces, then the 42 special tokens; `vocab_size` is that, padded to a multiple of 128 (96,499
    pieces give OpenCoder's ids and its 96,640). Special tokens come out of plain text only where `encode` allows it.

    Args:
        path: a SentencePiece model file, or a directory with `tokenizer.model`.

    Raises: ValueError, naming the file, when it is missing, no SentencePiece BPE model, without byte pieces, or
        normalises its input (the round trip would not be exact).
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path) / "tokenizer.model" if Path(path).is_dir() else Path(path)
        try:
            model = self.path.read_bytes()
        except OSError as error:
            raise ValueError(
                f"{self.path}: {error.strerror}; train one with python -m opencoder_data.tokenizer train"
            ) from None
        self.model_bytes = model
        self.proto = _checked_proto(self.path, model)
        self._sentencepiece = sentencepiece.SentencePieceProcessor(model_proto=self.proto.SerializeToString())
        self.num_pieces = len(self.proto.pieces)
        self.vocab_size = padded_vocab_size(self.num_pieces)
        self.special_ids = {token: self.num_pieces + i for i, token in enumerate(SPECIAL_TOKENS)}
        self.endoftext_id = self.special_ids[ENDOFTEXT]
        self.pad_id = self.special_ids[PAD]
        # Everything that decides about ids; stored with shards and checkpoints.
        self.hash = hashlib.sha256(b"\0".join([model, PATTERN.encode(), *map(str.encode, SPECIAL_TOKENS)])).hexdigest()[
            :16
        ]
        self._byte_ids = _byte_ids(self.proto)
        self._space_piece_ids = [self._byte_ids[b] for b in SPACE_PIECE.encode()]
        self._token_bytes = _token_bytes(self.proto, self.special_ids, self.vocab_size)
        self._special_pattern = re.compile(
            "(" + "|".join(re.escape(t) for t in sorted(SPECIAL_TOKENS, key=len, reverse=True)) + ")"
        )

    def encode(self, text: str, *, allow_special: bool | Iterable[str] = False) -> list[int]:
        """Ids of `text`, nothing added before or after.

        Args:
            allow_special: True turns the names of special tokens in `text` into their ids, a collection only those
                in it; False (the default) treats them as plain text.

        Raises: ValueError for lone surrogates (no valid Unicode), or an unknown special token.
        """
        if not allow_special:
            return self._encode_plain(text)
        allowed = set(SPECIAL_TOKENS) if allow_special is True else set(allow_special)
        if unknown := allowed - set(SPECIAL_TOKENS):
            raise ValueError(f"allow_special: {sorted(unknown)} are not special tokens of this tokenizer")
        ids: list[int] = []
        plain = ""
        for part in self._special_pattern.split(text):
            if part in allowed:
                ids += self._encode_plain(plain)
                ids.append(self.special_ids[part])
                plain = ""
            else:
                plain += part
        return ids + self._encode_plain(plain)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Plain encoding of many texts: uint32 `[n]` each. `fast.FastEncoder` does the same, many times faster."""
        return [np.array(self._encode_plain(text), np.uint32) for text in texts]

    def _encode_plain(self, text: str) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"text is not valid Unicode: {error.reason} at character {error.start}") from None
        words = split_words(text)
        if SPACE_PIECE in text:
            return [i for word in words for i in self._encode_word(word)]
        return [i for ids in self._sentencepiece.encode(words, num_threads=1) for i in ids] if words else []

    def _encode_word(self, word: str) -> list[int]:
        """One word that may hold U+2581, which inside pieces means a space: spelt in bytes."""
        ids: list[int] = []
        for i, part in enumerate(word.split(SPACE_PIECE)):
            if i:
                ids += self._space_piece_ids
            if part:
                ids += self._sentencepiece.encode(part)
        return ids

    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str:
        """Text of `ids`; bytes that are not UTF-8 (a sequence cut inside a character) become U+FFFD."""
        return self.decode_bytes(ids, skip_special=skip_special).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int], *, skip_special: bool = False) -> bytes:
        """Bytes of `ids`. Raises: ValueError for ids outside the vocabulary."""
        table = self._token_bytes
        ids = [int(i) for i in ids]
        if ids and not (min(ids) >= 0 and max(ids) < len(table)):
            raise ValueError(f"token ids {min(ids)}..{max(ids)} are outside the vocabulary of {len(table)}")
        if skip_special:
            ids = [i for i in ids if i < self.num_pieces]
        return b"".join([table[i] for i in ids])

    def token_bytes(self, token_id: int) -> bytes:
        """UTF-8 bytes that a token means; special tokens give their name, unused rows nothing."""
        return self._token_bytes[token_id]

    def text_lengths(self) -> np.ndarray:
        """Bytes of text behind each token: int64 `[vocab_size]`, 0 for special, control and unused tokens."""
        lengths = np.zeros(self.vocab_size, np.int64)
        lengths[: self.num_pieces] = [len(b) for b in self._token_bytes[: self.num_pieces]]
        return lengths

    def __reduce__(self):
        return (Tokenizer, (self.path,))

    def __repr__(self) -> str:
        return f"Tokenizer({str(self.path)!r}, vocab_size={self.vocab_size}, hash={self.hash})"


def _checked_proto(path: Path, model: bytes) -> Any:
    try:
        proto = _pb2.ModelProto.FromString(model)
        if not proto.pieces:
            raise ValueError("it holds no pieces")
    except Exception as error:  # protobuf's error class differs between its backends
        hint = " (a Git LFS pointer: fetch the file itself)" if model.startswith(b"version https://git-lfs") else ""
        raise ValueError(f"{path}: not a SentencePiece model{hint}: {error}") from None
    spec, normalizer = proto.trainer_spec, proto.normalizer_spec
    if spec.model_type != _pb2.TrainerSpec.BPE:
        raise ValueError(f"{path}: model type {spec.model_type}, only BPE is supported")
    if sum(piece.type == BYTE for piece in proto.pieces) != 256:
        raise ValueError(f"{path}: no byte fallback (256 byte pieces); text would not round-trip")
    if normalizer.precompiled_charsmap:
        raise ValueError(f"{path}: normalises its input ({normalizer.name}); only identity round-trips exactly")
    # The words of the split are encoded as they stand, as OpenCoder does, whatever the model's default is.
    normalizer.add_dummy_prefix = False
    normalizer.remove_extra_whitespaces = False
    normalizer.escape_whitespaces = True
    return proto


def _byte_ids(proto: Any) -> list[int]:
    ids = [0] * 256
    for i, piece in enumerate(proto.pieces):
        if piece.type == BYTE:
            ids[int(piece.piece[3:5], 16)] = i
    return ids


def _token_bytes(proto: Any, special_ids: dict[str, int], vocab_size: int) -> list[bytes]:
    table = [b""] * vocab_size
    for i, piece in enumerate(proto.pieces):
        if piece.type == BYTE:
            table[i] = bytes([int(piece.piece[3:5], 16)])
        elif piece.type in (NORMAL, USER_DEFINED):
            table[i] = piece.piece.replace(SPACE_PIECE, " ").encode()
    for token, i in special_ids.items():
        table[i] = token.encode()
    return table
