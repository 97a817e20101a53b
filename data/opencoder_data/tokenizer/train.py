"""Trains the SentencePiece model: byte-pair merges inside the words of `presplit`, with byte fallback.

SentencePiece is given the distinct words with their counts rather than running text: no merge can then cross a word's
boundary, exactly as in encoding, and training time depends on the number of distinct words only. Space, tab, newline
and the other characters to which SentencePiece's trainer gives a meaning of its own travel as private-use fakes
and are put back in the finished model.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from opencoder_data.command import progress as progress_bar
from opencoder_data.command import temporary_directory
from opencoder_data.shard_format import write_atomically
from opencoder_data.tokenizer.presplit import split_words
from opencoder_data.tokenizer.special_tokens import num_pieces_for

_pb2: Any = sentencepiece_model_pb2  # generated code, whose classes type checkers do not see
SPACE_PIECE = "\u2581"
# What SentencePiece's trainer splits at, drops or writes itself -> fakes at the end of the last private-use plane.
_FAKES = {char: chr(0x10FF00 + i) for i, char in enumerate(" \t\n\r\v\f\x00\u2585\xa0\u3000\x85")}
_TO_FAKES_DIR = str.maketrans(_FAKES)
_FROM_FAKES_DIR = str.maketrans({fake: char for char, fake in _FAKES.items()} | {_FAKES[" "]: SPACE_PIECE})
# Words with these are left out of training: U+2581 means a space inside pieces, the rest would be confused.
_RESERVED = frozenset(_FAKES.values()) | {SPACE_PIECE}
# Characters of code that have a piece of their own however rare they are in the corpus.
_REQUIRED = "".join(map(chr, range(33, 127))) + "".join(_FAKES[char] for char in " \t\n\r")
# Longest piece in characters: indentation up to this depth is one token.
MAX_PIECE_LENGTH = 64
# Distinct words kept while counting; beyond it the rarest go. 20 million words take some 2 GB.
MAX_DISTINCT_WORDS = 20_000_000


def train(
    texts: Iterable[str],
    vocab_size: int,
    output: str | os.PathLike[str],
    *,
    max_bytes: int = 0,
    character_coverage: float = 0.9995,
    num_threads: int = 0,
    progress: bool = True,
) -> Path:
    """Trains on `texts` and writes `output`/tokenizer.model (or `output` itself when it ends in .model).

    Args:
        texts: documents; read once.
        vocab_size: rows of the embedding, special tokens and padding included; a multiple of 128.
        max_bytes: stop reading after so many UTF-8 bytes (0: read everything).
        character_coverage: share of all characters that get a piece of their own; the others are spelt in bytes.
        num_threads: threads of SentencePiece's trainer (0: all cores).

    Raises: ValueError for a vocabulary size that is not a multiple of 128, or too large for the corpus.
    """
    num_pieces = num_pieces_for(vocab_size)
    path = Path(output) if Path(output).suffix == ".model" else Path(output) / "tokenizer.model"
    _check_writable(path)
    words = count_words(texts, max_bytes=max_bytes, progress=progress)
    if not words:
        raise ValueError("tokenizer training: the input holds no text")
    with temporary_directory() as directory:
        table = directory / "words.tsv"
        # Ties between merges fall to what SentencePiece read first: sort, so that the model depends on the counts only.
        with table.open("w", encoding="utf-8", newline="\n") as file:
            for word, count in sorted(words.items(), key=lambda item: (-item[1], item[0])):
                file.write(f"{word.translate(_TO_FAKES_DIR)}\t{count}\n")
        prefix = directory / "model"
        try:
            sentencepiece.SentencePieceTrainer.train(
                input=str(table),
                input_format="tsv",
                model_prefix=str(prefix),
                model_type="bpe",
                vocab_size=num_pieces,
                byte_fallback=True,
                normalization_rule_name="identity",
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                split_by_whitespace=False,
                split_by_unicode_script=False,
                split_by_number=False,
                split_digits=False,
                character_coverage=character_coverage,
                required_chars=_REQUIRED,
                max_sentencepiece_length=MAX_PIECE_LENGTH,
                max_sentence_length=1 << 20,
                unk_id=0,
                bos_id=1,
                eos_id=2,
                pad_id=3,
                num_threads=num_threads or os.cpu_count() or 1,
                minloglevel=2,
            )
        except RuntimeError as error:
            if "too high" in str(error).lower() or "vocabulary size" in str(error).lower():
                raise ValueError(
                    f"vocab_size={vocab_size} is too large for {len(words):,} distinct words; give more text or a smaller "
                    "size"
                ) from error
            raise
        proto = _pb2.ModelProto.FromString(prefix.with_suffix(".model").read_bytes())
    for piece in proto.pieces:
        piece.piece = piece.piece.translate(_FROM_FAKES_DIR)
    assert len(proto.pieces) == num_pieces and len({p.piece for p in proto.pieces}) == num_pieces
    # The training file's path is not a property of the model: the same words give the same bytes.
    proto.trainer_spec.ClearField("input")
    proto.trainer_spec.ClearField("model_prefix")
    proto.trainer_spec.ClearField("num_threads")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, proto.SerializeToString(deterministic=True))
    return path


def _check_writable(path: Path) -> None:
    """Before hours of counting and training. Raises: PermissionError, NotADirectoryError."""
    directory = next(p for p in path.absolute().parents if p.exists())
    if not directory.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(directory))
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(directory))


def count_words(texts: Iterable[str], *, max_bytes: int = 0, progress: bool = False) -> Counter[str]:
    """Words of all texts with their counts, those left out that SentencePiece's trainer cannot take."""
    words: Counter[str] = Counter()
    seen = 0
    with progress_bar(unit="B", unit_scale=True, desc="counting words", disable=not progress) as bar:
        for text in texts:
            size = len(text.encode("utf-8", "surrogatepass"))
            words.update(split_words(text))
            seen += size
            bar.update(size)
            if len(words) > MAX_DISTINCT_WORDS:
                words = Counter(dict(words.most_common(MAX_DISTINCT_WORDS // 2)))
            if max_bytes and seen >= max_bytes:
                break
    return Counter({word: n for word, n in words.items() if _RESERVED.isdisjoint(word) and _is_unicode(word)})


def _is_unicode(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True
