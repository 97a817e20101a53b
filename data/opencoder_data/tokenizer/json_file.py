"""Any model's `tokenizer.json` (the `tokenizers` library) behind the interface of our own tokenizer.

Beside it are read, where present: tokenizer_config.json (names of special tokens, chat template), chat_template.jinja,
generation_config.json (tokens that end an answer).
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from opencoder_data.tokenizer.special_tokens import ENDOFTEXT, IM_END, SPECIAL_TOKENS

SPACE_PIECE = "\u2581"
# Ends of documents and turns, under the names that models give them: where one is a special token it ends an answer.
END_TOKENS = (ENDOFTEXT, IM_END, "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "</s>", "<|endofturn|>")
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
# Whose export is ours: <|end|> is a token of OpenCoder's that ends nothing.
_NOT_ENDS_OF_OURS = ("<|end|>", "</s>")


class JsonTokenizer:
    """Text to ids and back as the file says; nothing is put before or after a text (`prefix_ids` says what a model expects).

    Args:
        path: tokenizer.json, or its directory.

    Raises: ValueError, naming the file, when it is missing, not a tokenizer, or decodes in a way that is not known here.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
        try:
            data = self.path.read_bytes()
            self.described: dict[str, Any] = json.loads(data)
            # Two engines: names of special tokens are text in one, tokens in the other.
            self._plain, self._marked = (_engine(data) for _ in range(2))
        except OSError as error:
            raise ValueError(f"{self.path}: {error.strerror}; give a tokenizer.json or its directory") from None
        except Exception as error:  # the library raises bare Exception
            hint = " (a Git LFS pointer: fetch the file itself)" if data.startswith(b"version https://git-lfs") else ""
            raise ValueError(f"{self.path}: not a tokenizer.json{hint}: {error}") from None
        self._plain.encode_special_tokens = True
        self.hash = hashlib.sha256(data).hexdigest()[:16]
        names: dict[str, int] = self._plain.get_vocab(with_added_tokens=True)
        self.vocab_size = max(names.values(), default=-1) + 1
        if not self.vocab_size:
            raise ValueError(f"{self.path}: an empty vocabulary")
        added = self._plain.get_added_tokens_decoder()
        self.special_ids = {token.content: i for i, token in sorted(added.items()) if token.special}
        self._special = frozenset(self.special_ids.values())
        self._token_bytes, self._strips_space = self._byte_table(names, {i: t.content for i, t in added.items()})
        self._read_settings(names)

    def _read_settings(self, names: dict[str, int]) -> None:
        """Names of special tokens, chat template and ends, of the files beside tokenizer.json."""
        settings = _read(self.path.with_name("special_tokens_map.json"))
        settings |= {k: v for k, v in _read(self.path.with_name("tokenizer_config.json")).items() if v is not None}
        generation = _read(self.path.with_name("generation_config.json"))
        bos, eos, pad = (_content(settings.get(f"{kind}_token")) for kind in ("bos", "eos", "pad"))
        for name in (bos, eos, pad):
            if name is not None and name not in names:
                raise ValueError(f"{self.path.parent}: {name} of tokenizer_config.json is not in {self.path.name}")
        self.bos_token, self.eos_token = bos, eos
        ends = generation.get("eos_token_id")
        ends = [] if ends is None else list(ends) if isinstance(ends, list) else [ends]
        known = [
            t for t in END_TOKENS if t in self.special_ids and not (self._is_opencoders() and t in _NOT_ENDS_OF_OURS)
        ]
        ends += [names[name] for name in (eos, *known) if name is not None]
        self.end_ids = tuple(dict.fromkeys(ends))
        document = ENDOFTEXT if ENDOFTEXT in names else eos
        self.endoftext_id = names[document] if document is not None else self.end_ids[0] if self.end_ids else 0
        self.pad_id = names[pad] if pad is not None else self.endoftext_id
        self.prefix_ids = tuple(self._plain.encode("", add_special_tokens=True).ids)
        if self.prefix_ids and self.prefix_ids[-1] in self.end_ids and self.prefix_ids[-1] != names.get(bos or ""):
            self.prefix_ids = self.prefix_ids[:-1]  # what is put behind a text
        if settings.get("add_bos_token") is False:
            self.prefix_ids = ()
        self.chat_template = _chat_template(self.path.with_name("chat_template.jinja"), settings)

    def _is_opencoders(self) -> bool:
        return set(SPECIAL_TOKENS) <= self.special_ids.keys()

    def encode(self, text: str, *, allow_special: bool | Iterable[str] = False) -> list[int]:
        """Ids of `text`. allow_special: as `Tokenizer.encode`. Raises: ValueError for lone surrogates."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"text is not valid Unicode: {error.reason} at character {error.start}") from None
        if not allow_special:
            return self._plain.encode(text, add_special_tokens=False).ids
        if allow_special is True:
            return self._marked.encode(text, add_special_tokens=False).ids
        allowed = set(allow_special)
        if unknown := allowed - self.special_ids.keys():
            raise ValueError(f"allow_special: {sorted(unknown)} are not special tokens of this tokenizer")
        longest_first = sorted(allowed, key=len, reverse=True)
        ids: list[int] = []
        for part in re.split("(" + "|".join(map(re.escape, longest_first)) + ")", text):
            ids += [self.special_ids[part]] if part in allowed else self.encode(part) if part else []
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Plain encoding of many texts: uint32 `[n]` each."""
        return [np.array(self.encode(text), np.uint32) for text in texts]

    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str:
        """Text of `ids`; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids, skip_special=skip_special).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int], *, skip_special: bool = False) -> bytes:
        """Bytes of `ids`. Raises: ValueError for ids outside the vocabulary."""
        ids = [int(i) for i in ids]
        if ids and not (min(ids) >= 0 and max(ids) < self.vocab_size):
            raise ValueError(f"token ids {min(ids)}..{max(ids)} are outside the vocabulary of {self.vocab_size}")
        data = b"".join(self._token_bytes[i] for i in ids if not (skip_special and i in self._special))
        return data.removeprefix(b" ") if self._strips_space else data

    def token_bytes(self, token_id: int) -> bytes:
        """Bytes that a token is decoded to; special tokens give their name, unused ids nothing."""
        return self._token_bytes[token_id]

    def text_lengths(self) -> np.ndarray:
        """Bytes of text behind each token: int64 `[vocab_size]`, 0 for special and unused tokens."""
        return np.array([0 if i in self._special else len(b) for i, b in enumerate(self._token_bytes)], np.int64)

    def _byte_table(self, names: dict[str, int], added: dict[int, str]) -> tuple[list[bytes], bool]:
        """Bytes of each id, and whether a space in front of a text is taken away (Llama 2)."""
        parts = list(_parts(self.described.get("decoder")))
        kinds = {part["type"] for part in parts}
        if kinds == {"ByteLevel"}:
            of, strips = _byte_level, False
        elif kinds and kinds <= {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}:
            spelled = any(
                p["type"] == "Metaspace" or (p["type"] == "Replace" and p.get("pattern") == {"String": SPACE_PIECE})
                for p in parts
            )
            of = functools.partial(_fallback, spelled_space=spelled)
            strips = any(p["type"] == "Strip" and p.get("start") for p in parts) or any(
                p["type"] == "Metaspace" and p.get("prepend_scheme", "always") != "never" for p in parts
            )
        else:
            raise ValueError(
                f"{self.path}: decoder {', '.join(sorted(kinds)) or 'none'}; known are ByteLevel, ByteFallback and Metaspace"
            )
        table = [b""] * self.vocab_size
        for name, i in names.items():
            table[i] = added[i].encode() if i in added else of(name)
        return table, strips

    def __reduce__(self):
        return (JsonTokenizer, (self.path,))

    def __repr__(self) -> str:
        return f"JsonTokenizer({str(self.path)!r}, vocab_size={self.vocab_size}, hash={self.hash})"


def _engine(data: bytes) -> tokenizers.Tokenizer:
    engine = tokenizers.Tokenizer.from_buffer(data)
    engine.no_truncation()
    engine.no_padding()
    return engine


def _read(path: Path) -> dict[str, Any]:
    """A JSON object, {} where there is no such file. Raises: ValueError naming a file that is something else."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError("not an object")
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error}); download it again") from None
    return value


def _content(token: Any) -> str | None:
    """Name of a special token, given as such or with its settings."""
    return token.get("content") if isinstance(token, dict) else token


def _chat_template(file: Path, settings: dict[str, Any]) -> str | None:
    """The file wins, as in transformers; of several named ones the default."""
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):
        return next((t["template"] for t in template if t.get("name") == "default"), None)
    return template


def _parts(decoder: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    if decoder is None:
        return
    if decoder["type"] == "Sequence":
        for part in decoder["decoders"]:
            yield from _parts(part)
    else:
        yield decoder


def _byte_level(name: str) -> bytes:
    table = _byte_characters()
    return bytes(table[c] for c in name) if all(c in table for c in name) else name.encode()


def _fallback(name: str, *, spelled_space: bool) -> bytes:
    if match := _BYTE_PIECE.fullmatch(name):
        return bytes([int(match.group(1), 16)])
    return (name.replace(SPACE_PIECE, " ") if spelled_space else name).encode()


@functools.cache
def _byte_characters() -> dict[str, int]:
    """GPT-2's printable character of each byte: itself where it is printable Latin-1, else the next from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


def byte_level_name(data: bytes) -> str:
    """The inverse of `_byte_level`: how a byte-level vocabulary spells these bytes."""
    character = {b: c for c, b in _byte_characters().items()}
    return "".join(character[b] for b in data)


def is_json_file(path: Path) -> bool:
    """Whether the file begins as a JSON object does, whatever its name."""
    try:
        with path.open("rb") as file:
            return file.read(64).lstrip().startswith(b"{")
    except OSError:
        return False


def is_ours(json_file: Path) -> bool:
    """Whether a tokenizer.json is the export of a SentencePiece model of this project: its last ids are OpenCoder's."""
    try:
        added = json.loads(json_file.read_bytes())["added_tokens"]
        return tuple(token["content"] for token in sorted(added, key=lambda t: t["id"])) == SPECIAL_TOKENS
    except (OSError, ValueError, KeyError, TypeError):
        return False
