"""What engine and server need of a tokenizer, under one roof: prompts to ids, tokens to text, names of single tokens."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opencoder_data.tokenizer import TextTokenizer
from opencoder_data.tokenizer.special_tokens import FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX

if TYPE_CHECKING:
    from opencoder_data.tokenizer.chat import ChatTemplate

# Names of the fill-in-the-middle tokens: OpenCoder's and StarCoder's, Qwen's and Code Llama's relatives.
FIM_NAMES = (
    (FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE),
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
)


class Text:
    """A tokenizer as a model with `vocab_size` rows uses it."""

    def __init__(self, tokenizer: TextTokenizer, vocab_size: int):
        self.tokenizer, self.vocab_size = tokenizer, vocab_size
        self._special = frozenset(tokenizer.special_ids.values())
        self._num_tokens = tokenizer.vocab_size
        self.fim = next((f for f in FIM_NAMES if all(name in tokenizer.special_ids for name in f)), None)

    @functools.cached_property
    def _chat(self) -> ChatTemplate | None:
        from opencoder_data.tokenizer.chat import ChatTemplate  # Jinja: only who chats needs it

        t = self.tokenizer
        return ChatTemplate(t.chat_template, bos_token=t.bos_token, eos_token=t.eos_token) if t.chat_template else None

    def prompt(self, text: str, *, prefix: bool = True, special: bool = True) -> list[int]:
        """Ids of a prompt. Args: prefix: what the model expects in front. special: names of special tokens are tokens."""
        ids = self.tokenizer.encode(text, allow_special=special)
        return [*self.tokenizer.prefix_ids, *ids] if prefix else ids

    def infill(self, before: str, after: str) -> list[int]:
        """Prefix, suffix, middle. Raises: ValueError when the tokenizer has no tokens for it."""
        if self.fim is None:
            raise ValueError("suffix: this model's tokenizer has no fill-in-the-middle tokens; leave it out")
        prefix, suffix, middle = (self.tokenizer.special_ids[name] for name in self.fim)
        encode = self.tokenizer.encode
        return [*self.tokenizer.prefix_ids, prefix, *encode(before), suffix, *encode(after), middle]

    def chat(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True) -> list[int]:
        """Raises: ValueError without a template, or for messages that it rejects."""
        if self._chat is None:
            raise ValueError("this model's tokenizer has no chat template; use /v1/completions")
        return self._chat.encode(
            messages, self.tokenizer.encode, self.tokenizer.special_ids, add_generation_prompt=add_generation_prompt
        )

    def bytes_of(self, token: int) -> bytes:
        """Special tokens as their names; rows of the embedding that are not tokens are nothing."""
        return self.tokenizer.token_bytes(token) if token < self._num_tokens else b""

    def text_of(self, *, skip_special: bool) -> Callable[[int], bytes]:
        """Bytes of a token in an answer."""
        if not skip_special:
            return self.bytes_of
        return lambda token: b"" if token in self._special else self.bytes_of(token)

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(map(self.bytes_of, ids)).decode("utf-8", "replace")

    def name(self, token: int) -> str:
        """A single token as text; "bytes:\\x.." where its bytes are not text by themselves, as OpenAI writes them."""
        data = self.bytes_of(token)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{b:02x}" for b in data)
