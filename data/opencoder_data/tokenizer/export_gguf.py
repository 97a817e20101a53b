"""A tokenizer as GGUF metadata: byte-level BPE with the cl100k-style split, which llama.cpp calls llama-bpe.

llama.cpp's other form, plain SentencePiece, has no split into words: pieces cross the borders of words and numbers, and
hardly a document gets the ids of training (docs/experiments/2026-11-25-gguf-tokenizer.md).

The restatement is that of `fast`: SentencePiece merges by the best piece what byte-level BPE merges by rank. Characters of
three or four bytes are put together over their first bytes, which BPE needs as tokens: they take the ids of byte pieces
that never occur, because the byte is a character with a piece of its own. Where those run out, the rarest characters are
spelt in bytes.
"""

from __future__ import annotations

import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from opencoder_data.tokenizer.gguf_metadata import CONTROL, NORMAL, SPLITS, UNUSED, USER_DEFINED, write_tokenizer
from opencoder_data.tokenizer.interface import TextTokenizer
from opencoder_data.tokenizer.json_file import JsonTokenizer, byte_level_name
from opencoder_data.tokenizer.model import BYTE, SPACE_PIECE, Tokenizer
from opencoder_data.tokenizer.model import NORMAL as PIECE
from opencoder_data.tokenizer.model import USER_DEFINED as USER_PIECE
from opencoder_data.tokenizer.special_tokens import (
    FILE_SEP,
    FIM_MIDDLE,
    FIM_PREFIX,
    FIM_SUFFIX,
    IM_END,
    REPO_NAME,
)

FIM_FIELDS = {
    "fim_pre": FIM_PREFIX, "fim_suf": FIM_SUFFIX, "fim_mid": FIM_MIDDLE, "fim_rep": REPO_NAME, "fim_sep": FILE_SEP
}  # fmt: skip
# Names that the same tokens have in other models.
_OTHER_NAMES = {
    FIM_PREFIX: ("<|fim_prefix|>", "<PRE>"),
    FIM_SUFFIX: ("<|fim_suffix|>", "<SUF>"),
    FIM_MIDDLE: ("<|fim_middle|>", "<MID>"),
    REPO_NAME: ("<|repo_name|>",),
    FILE_SEP: ("<|file_sep|>",),
}
SAMPLE_CHARACTERS = 1_000_000


@dataclass(frozen=True)
class Rate:
    """How many documents of a sample the exported form encodes as the tokenizer does."""

    identical: int
    documents: int
    characters: int

    def __str__(self) -> str:
        return f"{self.identical} of {self.documents} documents ({self.characters:,} characters) have identical ids"


def gguf_fields(tokenizer: TextTokenizer, num_rows: int) -> dict[str, Any]:
    """Metadata by name, `tokenizer.ggml.` and so on included.

    Args: num_rows: of the embedding; ids without a token get names that are never produced.
    Raises: ValueError for a tokenizer.json that llama.cpp has no form for.
    """
    if isinstance(tokenizer, Tokenizer):
        tokens, types, merges = byte_level_tokens(tokenizer, num_rows)
        pre = "llama-bpe"
    elif isinstance(tokenizer, JsonTokenizer):
        tokens, types, merges, pre = _of_json(tokenizer)
    else:
        raise ValueError(f"{tokenizer.path}: no GGUF form for a {type(tokenizer).__name__}")
    tokens += [f"[PAD{i}]" for i in range(len(tokens), num_rows)]
    types += [UNUSED] * (num_rows - len(types))
    ids = {token: i for i, token in enumerate(tokens)}
    fields: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [" ".join(merge) for merge in merges],
        # llama-bpe alone means that a token is put in front.
        "tokenizer.ggml.add_bos_token": bool(tokenizer.prefix_ids),
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.ggml.padding_token_id": tokenizer.pad_id,
    }
    for kind, name in (("bos", tokenizer.bos_token), ("eos", tokenizer.eos_token)):
        if name is not None:
            fields[f"tokenizer.ggml.{kind}_token_id"] = ids[name]
    if (turn := ids.get(IM_END)) in tokenizer.end_ids:
        fields["tokenizer.ggml.eot_token_id"] = turn
    for field, name in FIM_FIELDS.items():
        if (i := next((ids[n] for n in (name, *_OTHER_NAMES[name]) if n in ids), None)) is not None:
            fields[f"tokenizer.ggml.{field}_token_id"] = i
    if tokenizer.chat_template:
        fields["tokenizer.chat_template"] = tokenizer.chat_template
    return fields


def byte_level_tokens(tokenizer: Tokenizer, num_rows: int) -> tuple[list[str], list[int], list[tuple[str, str]]]:
    """Tokens and their types by id, and merges, best first. Raises: ValueError for a model with user-defined pieces."""
    pieces = tokenizer.proto.pieces
    if any(p.type == USER_PIECE for p in pieces):
        raise ValueError(f"{tokenizer.path}: has user-defined pieces, which byte-level BPE cannot express")
    # <s>, </s> and <unk> occur in no training text; in code these words are text, and llama.cpp would read them as tokens.
    names = [p.piece if p.type in (PIECE, BYTE) else f"[PAD{i}]" for i, p in enumerate(pieces)]
    names += tokenizer.special_ids
    types = [NORMAL if p.type in (PIECE, BYTE) else UNUSED for p in pieces] + [CONTROL] * len(tokenizer.special_ids)
    texts = {i: p.piece.replace(SPACE_PIECE, " ") for i, p in enumerate(pieces) if p.type == PIECE}
    characters = {text.encode() for text in texts.values() if len(text) == 1}
    free: list[int] = []  # ids that encoding never gives
    for i, piece in enumerate(pieces):
        if piece.type == BYTE:
            byte = bytes([int(piece.piece[3:5], 16)])
            if byte in characters:
                free.append(i)
            else:
                names[i] = byte_level_name(byte)
    by_score = sorted(texts, key=lambda i: (-pieces[i].score, i))
    prefixes, spelt = _prefixes([texts[i] for i in by_score if len(texts[i]) == 1], len(free) + num_rows - len(names))
    free += range(len(names), num_rows)
    names += [f"[PAD{i}]" for i in range(len(names), num_rows)]
    types += [UNUSED] * (num_rows - len(types))
    for i in free:
        types[i] = UNUSED
    for prefix, i in zip(prefixes, free, strict=False):
        names[i], types[i] = byte_level_name(prefix), NORMAL
    for i, text in texts.items():
        if set(text) & spelt:
            types[i] = UNUSED
        else:
            names[i] = byte_level_name(text.encode())
    merges = _merges(prefixes, [texts[i] for i in by_score if not set(texts[i]) & spelt])
    return names, types, merges


def _prefixes(characters: Iterable[str], space: int) -> tuple[list[bytes], set[str]]:
    """First bytes (two and more) of characters, shortest first, as many as there is space for; and the characters left."""
    taken: set[bytes] = set()
    spelt: set[str] = set()
    for character in characters:
        data = character.encode()
        new = {data[:n] for n in range(2, len(data))} - taken
        if len(taken) + len(new) <= space:
            taken |= new
        else:
            spelt.add(character)
    return sorted(taken, key=lambda p: (len(p), p)), spelt


def _merges(prefixes: list[bytes], texts: list[str]) -> list[tuple[str, str]]:
    """All pairs of tokens that make a token: prefixes, characters, then pieces, the best score first."""
    characters = [text.encode() for text in texts if len(text) == 1]
    whole = [c for c in characters if len(c) > 1]
    pairs = [(p[:-1], p[-1:]) for p in (*prefixes, *whole)]
    rank = {c: i for i, c in enumerate(characters)} | {
        t.encode(): len(characters) + i for i, t in enumerate(t for t in texts if len(t) > 1)
    }
    for text in texts:
        if len(text) == 1:
            continue
        cuts = [(text[:n].encode(), text[n:].encode()) for n in range(1, len(text))]
        known = [cut for cut in cuts if cut[0] in rank and cut[1] in rank]
        pairs += sorted(known, key=lambda cut: (rank[cut[0]], rank[cut[1]]))
    return [(byte_level_name(left), byte_level_name(right)) for left, right in pairs]


def _of_json(tokenizer: JsonTokenizer) -> tuple[list[str], list[int], list[tuple[str, str]], str]:
    described = tokenizer.described
    model = described["model"]
    parts = described.get("pre_tokenizer") or {}
    splits = parts.get("pretokenizers", [parts]) if parts else []
    pre = next(
        (
            name
            for name, (known, ignore_merges, _) in SPLITS.items()
            if _rules(splits) == _rules(known) and bool(model.get("ignore_merges")) == ignore_merges
        ),
        None,
    )
    if pre is None:
        raise ValueError(
            f"{tokenizer.path}: its pre_tokenizer is not one that llama.cpp knows here ({', '.join(SPLITS)}); "
            "export from the model's own GGUF file, or to Hugging Face's form"
        )
    if model.get("type") != "BPE" or described.get("normalizer"):
        raise ValueError(f"{tokenizer.path}: only byte-level BPE without a normalizer has a GGUF form here")
    tokens, types = ([f"[PAD{i}]" for i in range(tokenizer.vocab_size)], [UNUSED] * tokenizer.vocab_size)
    for name, i in model["vocab"].items():
        tokens[i], types[i] = name, NORMAL
    for added in described.get("added_tokens", ()):
        tokens[added["id"]], types[added["id"]] = added["content"], CONTROL if added["special"] else USER_DEFINED
    pairs = (m.split(" ") if isinstance(m, str) else m for m in model["merges"])
    merges = [(left, right) for left, right in pairs]
    return tokens, types, merges, pre


def _rules(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What decides about words: offsets do not."""
    return [{k: v for k, v in part.items() if k != "trim_offsets"} for part in parts]


_rates: dict[tuple[str, int], Rate] = {}


def sample_rate(tokenizer: TextTokenizer, num_rows: int) -> Rate:
    """`rate` on the standard library, measured once for a tokenizer and size of embedding."""
    key = (tokenizer.hash, num_rows)
    if key not in _rates:
        _rates[key] = rate(tokenizer, gguf_fields(tokenizer, num_rows))
    return _rates[key]


def rate(tokenizer: TextTokenizer, fields: dict[str, Any], texts: Iterable[str] | None = None) -> Rate:
    """Encodes a sample with the tokenizer and with the exported fields, by an engine of its own (`tokenizers`).

    llama.cpp itself gives the same ids (`make test-clients`). Args: texts: default code of this Python's standard library.
    """
    with tempfile.TemporaryDirectory() as work:
        write_tokenizer(lambda name, default=None: fields.get(name, default), Path(work), "the exported tokenizer")
        exported = JsonTokenizer(work)
    same = documents = characters = 0
    for text in sample() if texts is None else texts:
        documents += 1
        characters += len(text)
        same += np.array_equal(exported.encode(text), tokenizer.encode(text))
    return Rate(same, documents, characters)


def sample(characters: int = SAMPLE_CHARACTERS) -> Iterator[str]:
    """Files of this Python's standard library, in the order of their names, up to so many characters."""
    left = characters
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        text = path.read_text(encoding="utf-8", errors="ignore")
        if left <= 0:
            return
        left -= len(text)
        yield text
