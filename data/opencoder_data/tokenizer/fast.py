"""Fast encoding: the model restated as a byte-level BPE and run by gigatoken, checked against SentencePiece at start.

SentencePiece merges, inside a word, the neighbours whose concatenation is the best-scored piece, leftmost first, starting
from characters; characters without a piece are spelt in bytes. A byte-level BPE ranked by concatenation does the same
once its first ranks put the multi-byte characters together: ranks 0-255 are the bytes, then every proper prefix (two
bytes and more) of every character that has a piece, then those characters, then the pieces by score. UTF-8 keeps these
first merges inside one character. A prefix that stays unfinished belongs to a character without a piece and is spelt in
bytes again afterwards.
"""

from __future__ import annotations

import base64
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from opencoder_data.tokenizer.model import BYTE, NORMAL, SPACE_PIECE, USER_DEFINED, Tokenizer

# gigatoken remembers every distinct word it meets. When the process has grown by this much its engine is built anew,
# which takes a third of a second for 96,640 tokens.
_MAX_GROWTH_BYTES = 1 << 30

# What a wrong restatement would stumble over, encoded in both ways before any corpus is.
_PROBE = (
    "def f(x):\n\treturn  x  + 1234567\r\n\r\n    # it's WE'LL 'Tis don't\n\n\n   \n"
    + "\u2581 a\u2581b \x00\x1c\x1f\x85\xa0"
    "\u3000\u2028x Ωμέγα 中文字符，测试。日本語テスト 한국어 \U0001f600\U0001f1e9\U0001f1ea e\u0301 \u00bd\u0664\u2167 <s></s><unk><0x41>"
    "<|endoftext|> \ue000\uf8ff\ufffd\U0010ff00\U0010fffd " + " " * 130 + "\t" * 70 + "=" * 100 + "a" * 300
)


class FastEncoder:
    """`encode_batch` of a Tokenizer, by the fastest engine that gives the same ids; `engine` says which.

    Args:
        tokenizer: the reference.
        sample: texts of the corpus on which both must agree, token for token, before the fast engine is used.
        engine: `auto`, `gigatoken` (raises where it cannot be used) or `sentencepiece`.
    """

    def __init__(self, tokenizer: Tokenizer, sample: Sequence[str] = (), engine: str = "auto"):
        if engine not in ("auto", "gigatoken", "sentencepiece"):
            raise ValueError(f"engine={engine!r}: choose auto, gigatoken or sentencepiece")
        self.tokenizer = tokenizer
        self.engine = "sentencepiece"
        if engine == "sentencepiece":
            return
        try:
            self._bpe = _ByteLevelBpe(tokenizer)
            _check(self._bpe, tokenizer, [_PROBE, *sample])
        except (ImportError, ValueError) as error:
            if engine == "gigatoken":
                raise ValueError(f"gigatoken cannot be used: {error}") from error
            warnings.warn(f"encoding by SentencePiece, many times slower: {error}", stacklevel=2)
        else:
            self.engine = "gigatoken"

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Plain ids of each text: uint32 `[n]`. Raises: ValueError for lone surrogates."""
        if self.engine == "sentencepiece":
            return self.tokenizer.encode_batch(texts)
        return self._bpe.encode_batch(texts)


class _ByteLevelBpe:
    def __init__(self, tokenizer: Tokenizer):
        ranks, self._to_id, self._prefix_bytes = _byte_level_ranks(tokenizer)
        self._rank_file = b"".join(base64.b64encode(t) + b" %d\n" % rank for rank, t in enumerate(ranks))
        self._first_prefix = 256
        self._end_prefix = 256 + len(self._prefix_bytes)
        self._build()

    def _build(self) -> None:
        import gigatoken

        self._tokenizer: Any = None
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "opencoder.tiktoken"
            path.write_bytes(self._rank_file)
            self._tokenizer = gigatoken.Tokenizer.from_tiktoken(os.fspath(path), pretokenizer="cl100k")
        self._memory_when_built = _anonymous_memory()

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        if _anonymous_memory() - self._memory_when_built > _MAX_GROWTH_BYTES:
            self._build()
        # One thread: the packer runs one process per core, and a thread pool inside each would only get in the way.
        try:
            rows = self._tokenizer.encode_batch([text.encode() for text in texts], parallel=False)
        except UnicodeEncodeError as error:
            raise ValueError(f"text is not valid Unicode: {error.reason} at character {error.start}") from None
        layout: Any = rows.layout
        starts, stops = np.asarray(layout.starts), np.asarray(layout.stops)
        content = np.asarray(layout.content.data)
        return [self._to_ids(content[start:stop]) for start, stop in zip(starts, stops, strict=True)]

    def _to_ids(self, ranks: np.ndarray) -> np.ndarray:
        is_prefix = (ranks >= self._first_prefix) & (ranks < self._end_prefix)
        if not is_prefix.any():
            return self._to_id[ranks]
        pieces: list[np.ndarray] = []
        done = 0
        for at in np.flatnonzero(is_prefix):
            pieces += [self._to_id[ranks[done:at]], self._prefix_bytes[ranks[at] - self._first_prefix]]
            done = at + 1
        return np.concatenate([*pieces, self._to_id[ranks[done:]]])


def _anonymous_memory() -> int:
    """Bytes of this process that no file backs; 0 where the system does not say (elsewhere than on Linux)."""
    try:
        _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
    except OSError:
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def _byte_level_ranks(tokenizer: Tokenizer) -> tuple[list[bytes], np.ndarray, list[np.ndarray]]:
    """Byte strings by rank, the id of each rank (uint32 `[num_ranks]`), and the byte ids of each character prefix."""
    proto = tokenizer.proto
    byte_id = {piece.piece: i for i, piece in enumerate(proto.pieces) if piece.type == BYTE}
    byte_ids = np.array([byte_id[f"<0x{b:02X}>"] for b in range(256)], np.uint32)
    pieces: list[tuple[float, int, str]] = []
    for i, piece in enumerate(proto.pieces):
        if piece.type == USER_DEFINED:
            raise ValueError("the model has user-defined pieces, which byte-pair ranks cannot express")
        if piece.type == NORMAL:
            pieces.append((-piece.score, i, piece.piece.replace(SPACE_PIECE, " ")))
    pieces.sort()
    chars = [(i, text.encode()) for _, i, text in pieces if len(text) == 1]
    words = [(i, text.encode()) for _, i, text in pieces if len(text) > 1]
    single = byte_ids.copy()
    for i, char in chars:
        if len(char) == 1:
            single[char[0]] = i
    multi = [(i, char) for i, char in chars if len(char) > 1]
    prefixes = sorted({char[:n] for _, char in multi for n in range(2, len(char))}, key=lambda p: (len(p), p))
    ranks = [bytes([b]) for b in range(256)] + prefixes + [char for _, char in multi] + [word for _, word in words]
    if len(set(ranks)) != len(ranks):
        raise ValueError("two pieces of the model mean the same bytes")
    to_id = np.concatenate(
        [
            single,
            np.zeros(len(prefixes), np.uint32),
            np.array([i for i, _ in multi] + [i for i, _ in words], np.uint32),
        ]
    )
    return ranks, to_id, [byte_ids[np.frombuffer(prefix, np.uint8)] for prefix in prefixes]


def _check(bpe: _ByteLevelBpe, tokenizer: Tokenizer, texts: Sequence[str]) -> None:
    for text, fast in zip(texts, bpe.encode_batch(texts), strict=True):
        slow = tokenizer.encode(text)
        if fast.tolist() != slow:
            at = next((i for i, (a, b) in enumerate(zip(fast.tolist(), slow, strict=False)) if a != b), len(slow))
            where = tokenizer.decode(slow[max(0, at - 4) : at + 8])
            raise ValueError(f"its ids differ from SentencePiece's at token {at} near {where!r}")
