"""What packing, training, inference and serving need of a tokenizer, whatever file it comes from; and loading either kind."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from opencoder_data.tokenizer.model import FILE, RELEASED_FILE, Tokenizer


class TextTokenizer(Protocol):
    """A SentencePiece model with OpenCoder's special tokens (`Tokenizer`) or any `tokenizer.json` (`JsonTokenizer`)."""

    path: Path
    hash: str  # fingerprint of everything that decides about ids; stored with shards and checkpoints
    vocab_size: int  # above every id
    special_ids: dict[str, int]  # special tokens by name
    endoftext_id: int  # ends a document
    pad_id: int
    end_ids: tuple[int, ...]  # generation ends with any of these
    prefix_ids: tuple[
        int, ...
    ]  # what the model expects in front of a text (Llama 3's <|begin_of_text|>); () for OpenCoder
    chat_template: str | None  # Jinja, as Hugging Face's `apply_chat_template` takes it
    bos_token: str | None  # names, for templates and scorers
    eos_token: str | None

    def encode(self, text: str, *, allow_special: bool | Iterable[str] = False) -> list[int]: ...
    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]: ...
    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str: ...
    def decode_bytes(self, ids: Iterable[int], *, skip_special: bool = False) -> bytes: ...
    def token_bytes(self, token_id: int) -> bytes: ...
    def text_lengths(self) -> np.ndarray: ...


# One of these is in a run or a model directory that has a tokenizer.
FILES = (FILE, RELEASED_FILE, "tokenizer.json")


def load_tokenizer(path: str | os.PathLike[str]) -> TextTokenizer:
    """The tokenizer of a file or directory: `tokenizer.model` with OpenCoder's special tokens, or else `tokenizer.json`.

    A directory that has both, as models of other makers do, is read by its tokenizer.json unless tokenizer.json is the
    export of that tokenizer.model.

    Raises: ValueError, naming the file, when there is none or it cannot be used.
    """
    from opencoder_data.tokenizer.json_file import JsonTokenizer, is_json_file, is_ours

    path = Path(path)
    if not path.is_dir():
        return JsonTokenizer(path) if path.suffix == ".json" or is_json_file(path) else Tokenizer(path)
    present = [name for name in FILES if (path / name).is_file()]
    if not present:
        raise ValueError(f"{path}: neither {' nor '.join(FILES)}; give a tokenizer file or its directory")
    json_file = path / FILES[-1]
    if present == [json_file.name] or (json_file.name in present and not is_ours(json_file)):
        return JsonTokenizer(json_file)
    return Tokenizer(path / present[0])
