"""/tokenize, /detokenize and /tokenizer_info: with them a client needs no tokenizer of its own."""

from __future__ import annotations

from typing import Any

from opencoder_jax.inference.server import fields
from opencoder_jax.inference.server.answers import Serving
from opencoder_jax.inference.server.errors import ApiError


class Tokens:
    """The three endpoints, from a body to an answer. Raises: ApiError."""

    def __init__(self, serving: Serving):
        self._serving, self._text = serving, serving.text

    def tokenize(self, body: dict[str, Any]) -> dict[str, Any]:
        """Of {prompt, add_special_tokens} or {messages, add_generation_prompt}."""
        prompt = body.get("prompt")
        try:
            if prompt is None and "messages" in body:
                generation = fields.boolean(body, "add_generation_prompt", True)
                ids = self._text.chat(fields.messages(body), add_generation_prompt=generation)
            elif isinstance(prompt, str):
                ids = self._text.prompt(prompt, prefix=fields.boolean(body, "add_special_tokens", True))
            else:
                raise ApiError("prompt: a text", param="prompt")
        except ValueError as error:
            raise ApiError(str(error), param="prompt") from None
        answer = {"count": len(ids), "max_model_len": self._serving.context, "tokens": ids}
        if fields.boolean(body, "return_token_strs"):
            answer["token_strs"] = [self._text.name(i) for i in ids]
        return answer

    def detokenize(self, body: dict[str, Any]) -> dict[str, Any]:
        """Of {tokens}."""
        ids = body.get("tokens")
        if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < self._text.vocab_size for i in ids):
            raise ApiError(f"tokens: a list of ids from 0 to {self._text.vocab_size - 1}", param="tokens")
        return {"prompt": self._text.decode(ids)}

    def info(self) -> dict[str, Any]:
        t = self._text.tokenizer
        pad = next((name for name, i in t.special_ids.items() if i == t.pad_id), None)
        return {
            "tokenizer_class": type(t).__name__,
            "vocab_size": t.vocab_size,
            "model_max_length": self._serving.context,
            "bos_token": t.bos_token,
            "eos_token": t.eos_token,
            "pad_token": pad,
            "eos_token_id": t.special_ids.get(t.eos_token or ""),
            "chat_template": t.chat_template,
            "additional_special_tokens": list(t.special_ids),
            "hash": t.hash,
        }
