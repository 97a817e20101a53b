"""Hugging Face form of a tokenizer: a *fast* `tokenizer.json` that gives the same ids, with its configuration.

The published OpenCoder tokenizer exists only as a slow one with code of its own. Here `AutoTokenizer` needs neither: the
split is a pre-tokenizer, the merges are listed, and pieces spell the space as a space (with SentencePiece's U+2581 a
text's own U+2581 would come back as a space).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from opencoder_data.shard_format import write_atomically
from opencoder_data.tokenizer.model import NORMAL, SPACE_PIECE, USER_DEFINED, Tokenizer
from opencoder_data.tokenizer.presplit import PATTERN
from opencoder_data.tokenizer.special_tokens import CHAT_TEMPLATE, ENDOFTEXT, IM_END, IM_START, PAD, SPECIAL_TOKENS


def export_hf(
    tokenizer: Tokenizer, directory: str | os.PathLike[str], *, model_max_length: int = 4096, eos_token: str = IM_END
) -> list[Path]:
    """Writes tokenizer.json, tokenizer_config.json, special_tokens_map.json and tokenizer.model into `directory`.

    As everywhere in `transformers`, the names of special tokens are recognised in text given to the exported tokenizer
    (`split_special_tokens=True` turns that off). SentencePiece's own `<s>`, `</s>`, `<unk>` and `<pad>` are not among
    them: in source code they are text. Nothing is put before or after a text; batches are padded on the left, so that the
    new tokens of every row follow its last one.

    `bos_token` is `<|endoftext|>`: what scorers (lm-eval) put in front of a text without context. In training nothing is
    in front of a document, which attends to itself alone: no token was learned in this place, but `<|endoftext|>` means
    the border of documents and was learned as an output, where SentencePiece's `<s>` never occurs at all.

    Args:
        model_max_length: longest input the model takes, in tokens.
        eos_token: `<|im_end|>` as published; the documents of pre-training end with `<|endoftext|>`.

    Returns: the files written.
    Raises: ValueError when `eos_token` is not a special token.
    """
    if eos_token not in SPECIAL_TOKENS:
        raise ValueError(f"eos_token={eos_token!r} is not one of the special tokens")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    special_map = {
        "bos_token": _added_token(ENDOFTEXT),
        "eos_token": _added_token(eos_token),
        "pad_token": _added_token(PAD),
        "additional_special_tokens": [_added_token(IM_END), _added_token(IM_START)],
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": {
            str(i): _added_token(token) | {"special": True} for token, i in tokenizer.special_ids.items()
        },
        "additional_special_tokens": [IM_END, IM_START],
        "bos_token": ENDOFTEXT,
        "eos_token": eos_token,
        "pad_token": PAD,
        "padding_side": "left",
        # llama.cpp's converter takes SentencePiece's defaults, which are true, where these are missing.
        "add_bos_token": False,
        "add_eos_token": False,
        "add_prefix_space": False,
        "model_max_length": model_max_length,
        "clean_up_tokenization_spaces": False,
        "spaces_between_special_tokens": False,
        "chat_template": CHAT_TEMPLATE,
    }
    files: dict[str, bytes] = {
        "tokenizer.json": _dump(tokenizer_json(tokenizer), indent=None),
        "tokenizer_config.json": _dump(config),
        "special_tokens_map.json": _dump(special_map),
        "tokenizer.model": tokenizer.model_bytes,
    }
    for name, data in files.items():
        write_atomically(directory / name, data)
    return [directory / name for name in files]


def tokenizer_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """The `tokenizers` library's description of `tokenizer`.

    Raises: ValueError for a model with user-defined pieces, which a list of merges cannot express.
    """
    if any(p.type == USER_DEFINED for p in tokenizer.proto.pieces):
        raise ValueError(f"{tokenizer.path}: has user-defined pieces; only its slow form can be exported")
    pieces = [p.piece.replace(SPACE_PIECE, " ") if p.type == NORMAL else p.piece for p in tokenizer.proto.pieces]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i} | _added_token(token) | {"special": True} for token, i in tokenizer.special_ids.items()
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False},
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {piece: i for i, piece in enumerate(pieces)},
            "merges": merges(tokenizer),
        },
    }


def merges(tokenizer: Tokenizer) -> list[list[str]]:
    """All pairs of pieces whose concatenation is a piece, best-scored result first.

    SentencePiece merges whatever neighbours make the best piece; a list of pairs does the same if it has all of them.
    """
    normal = [(p.score, p.piece.replace(SPACE_PIECE, " ")) for p in tokenizer.proto.pieces if p.type == NORMAL]
    rank = {text: i for i, (_, text) in enumerate(sorted(normal, key=lambda item: -item[0]))}
    # Single characters are not the result of a merge but may rank anywhere.
    pairs = []
    for text, result in rank.items():
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in rank and right in rank:
                pairs.append((result, rank[left], rank[right], [left, right]))
    return [pair[3] for pair in sorted(pairs)]


def _added_token(content: str) -> dict[str, Any]:
    return {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def _dump(value: Any, indent: int | None = 2) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=indent) + "\n").encode()
