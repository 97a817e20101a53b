"""The tokenizer of a GGUF file, made of its metadata, as tokenizer.json with its settings.

Fields: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, section tokenizer. What splits a text into words is
named there (`tokenizer.ggml.pre`) and spelt out here, for the names whose rule is known to give the ids of the original.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from opencoder_data.shard_format import write_atomically
from opencoder_data.tokenizer.presplit import PATTERN

Field = Callable[..., Any]  # field(name, default=None): value of a metadata field
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

_BYTES: dict[str, Any] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
_GPT2 = _BYTES | {"use_regex": True}
_SINGLE_DIGITS = [{"type": "Digits", "individual_digits": True}, _GPT2]
_CL100K = [
    {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False},
    _BYTES,
]
# Name -> (pre-tokenizers, whether a word that is a token is taken without merging, whether <s> is put in front unless
# the file says otherwise).
SPLITS: dict[str, tuple[list[dict[str, Any]], bool, bool]] = {
    "gpt-2": ([_GPT2], False, False),
    "smollm": (_SINGLE_DIGITS, False, False),
    "starcoder": (_SINGLE_DIGITS, False, False),
    "codeshell": (_SINGLE_DIGITS, False, False),
    "llama-bpe": (_CL100K, True, True),
    "llama-v3": (_CL100K, True, True),
    "llama3": (_CL100K, True, True),
}


def write_tokenizer(field: Field, directory: Path, source: str) -> None:
    """Writes tokenizer.json, tokenizer_config.json and generation_config.json; nothing for a file without a tokenizer.

    Raises: ValueError, naming the field, for a kind of tokenizer that is not known, or ids outside the vocabulary.
    """
    kind = field("tokenizer.ggml.model")
    if kind in (None, "none", "no_vocab"):
        return
    if kind not in ("gpt2", "llama"):
        raise ValueError(
            f"{source}: tokenizer.ggml.model={kind!r}; gpt2 (byte-level BPE) and llama (SPM) can be imported"
        )
    tokens = field("tokenizer.ggml.tokens")
    types = field("tokenizer.ggml.token_type") or [NORMAL] * len(tokens or ())
    if not tokens or len(types) != len(tokens) or len(set(tokens)) != len(tokens):
        raise ValueError(
            f"{source}: tokenizer.ggml.tokens and token_type do not make a vocabulary; download the file again"
        )
    name = {k: _token(field, f"tokenizer.ggml.{k}_token_id", tokens, source) for k in ("bos", "eos", "padding")}
    described, puts_bos = (_byte_level if kind == "gpt2" else _sentencepiece)(field, tokens, types, source)
    first = name["bos"] if field("tokenizer.ggml.add_bos_token", puts_bos) else None
    described = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i} | _added(token) | {"special": kind == CONTROL}
            for i, (token, kind) in enumerate(zip(tokens, types, strict=True))
            if kind in (CONTROL, USER_DEFINED)
        ],
        "post_processor": None if first is None else _in_front(first, tokens),
    } | described
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": name["bos"],
        "eos_token": name["eos"],
        "pad_token": name["padding"],
        "add_bos_token": first is not None,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "chat_template": field("tokenizer.chat_template"),
    }
    ends = [field(f"tokenizer.ggml.{k}_token_id") for k in ("eos", "eot", "eom")]
    generation = {"eos_token_id": [i for i in dict.fromkeys(ends) if i is not None]}
    files = {"tokenizer.json": described, "tokenizer_config.json": settings, "generation_config.json": generation}
    for file, value in files.items():
        write_atomically(directory / file, (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode())


def _byte_level(field: Field, tokens: Sequence[str], types: Sequence[int], source: str) -> tuple[dict[str, Any], bool]:
    pre = field("tokenizer.ggml.pre", "default")
    if pre not in SPLITS:
        raise ValueError(f"{source}: tokenizer.ggml.pre={pre!r}; known are {', '.join(SPLITS)}")
    merges = [merge.split(" ") for merge in field("tokenizer.ggml.merges", ())]
    known = set(tokens)
    if wrong := next((m for m in merges if len(m) != 2 or not {*m, "".join(m)} <= known), None):
        raise ValueError(f"{source}: tokenizer.ggml.merges: {' '.join(wrong)!r} is not two tokens that make one")
    splits, ignore_merges, puts_bos = SPLITS[pre]
    return {
        "normalizer": None,
        "pre_tokenizer": splits[0] if len(splits) == 1 else {"type": "Sequence", "pretokenizers": splits},
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "model": _bpe(tokens, merges) | {"ignore_merges": ignore_merges},
    }, puts_bos


def _sentencepiece(
    field: Field, tokens: Sequence[str], types: Sequence[int], source: str
) -> tuple[dict[str, Any], bool]:
    """SentencePiece BPE without a split, as Llama 2 has it: the merges are all pairs that make a piece, best score first."""
    scores = field("tokenizer.ggml.scores")
    if scores is None or len(scores) != len(tokens):
        raise ValueError(f"{source}: tokenizer.ggml.scores is missing or of another length; download the file again")
    normal = [i for i, kind in enumerate(types) if kind == NORMAL]
    rank = {tokens[i]: n for n, i in enumerate(sorted(normal, key=lambda i: (-scores[i], i)))}
    pairs = sorted(
        (result, rank[text[:cut]], rank[text[cut:]], [text[:cut], text[cut:]])
        for text, result in rank.items()
        for cut in range(1, len(text))
        if text[:cut] in rank and text[cut:] in rank
    )
    prefix = field("tokenizer.ggml.add_space_prefix", True)
    space: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}
    ]  # fmt: skip
    unknown = next((token for token, kind in zip(tokens, types, strict=True) if kind == UNKNOWN), None)
    return {
        "normalizer": {
            "type": "Sequence", "normalizers": [*([{"type": "Prepend", "prepend": "\u2581"}] if prefix else []), *space]
        },
        "pre_tokenizer": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [*decoders, *([{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else [])],
        },
        "model": _bpe(tokens, [pair[3] for pair in pairs])
        | {"unk_token": unknown, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False},
    }, True  # fmt: skip


def _bpe(tokens: Sequence[str], merges: list[list[str]]) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "vocab": {token: i for i, token in enumerate(tokens)},
        "merges": merges,
    }


def _added(content: str) -> dict[str, Any]:
    return {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def _in_front(token: str, tokens: Sequence[str]) -> dict[str, Any]:
    first = {"SpecialToken": {"id": token, "type_id": 0}}
    a, b = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    described = {"id": token, "ids": [list(tokens).index(token)], "tokens": [token]}
    return {
        "type": "TemplateProcessing",
        "single": [first, a],
        "pair": [first, a, first, b],
        "special_tokens": {token: described},
    }


def _token(field: Field, name: str, tokens: list[str], source: str) -> str | None:
    i = field(name)
    if i is None:
        return None
    if not 0 <= i < len(tokens):
        raise ValueError(f"{source}: {name}={i} is outside the vocabulary of {len(tokens)}; download the file again")
    return tokens[i]
