"""/v1/chat/completions: messages through the model's chat template."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Sequence
from typing import Any

from opencoder_jax.inference.engine import LogProb
from opencoder_jax.inference.server import fields
from opencoder_jax.inference.server.answers import Answer, Call, Serving
from opencoder_jax.inference.server.errors import ApiError


class Chat:
    """One request. Raises (constructor): ApiError for what cannot be."""

    def __init__(self, serving: Serving, body: fields.Body, identity: str):
        self.serving, self._identity = serving, identity
        options = fields.options(body, default_max_tokens=None)
        options = dataclasses.replace(options, log_probs=fields.log_probs_of_chat(body))
        if options.max_tokens == 0:
            raise ApiError("max_tokens=0: must be at least 1", param="max_tokens")
        if fields.boolean(body, "echo"):
            raise ApiError("echo is not supported by chats; use /v1/completions", param="echo")
        generation = fields.boolean(body, "add_generation_prompt", True)
        try:
            ids = serving.text.chat(fields.messages(body), add_generation_prompt=generation)
        except ValueError as error:
            raise ApiError(str(error), param="messages") from None
        self.call, self.options = Call(serving, options, [ids]), options

    async def start(self) -> None:
        """Raises: ApiError."""
        self.call.submit()

    async def answer(self) -> dict[str, Any]:
        await self.call.finish()
        choices = []
        for a in self.call.answers:
            message = {"role": "assistant", "content": a.text}
            choices.append({**self._choice(a, a.log_probs, a.tokens), "message": message})
        return {**self._head("chat.completion"), "choices": choices, "usage": self.call.usage()}

    async def chunks(self) -> AsyncIterator[dict[str, Any]]:
        """What a stream sends: the role first, then text, then the reason."""
        head = self._head("chat.completion.chunk")
        usage: dict[str, Any] = {"usage": None} if self.options.include_usage else {}
        for a in self.call.answers:
            delta = {"role": "assistant", "content": ""}
            yield {**head, "choices": [{**self._choice(a, (), ()), "delta": delta}], **usage}
        async for a, event in self.call.events():
            new = a.add(event)
            delta = {"content": event.text} if event.text else {}
            yield {**head, "choices": [{**self._choice(a, new, event.tokens), "delta": delta}], **usage}
        if self.options.include_usage:
            yield {**head, "choices": [], "usage": self.call.usage()}

    def _head(self, kind: str) -> dict[str, Any]:
        serving = self.serving
        return {"id": self._identity, "object": kind, "created": serving.created, "model": serving.name}

    def _choice(self, a: Answer, log_probs: Sequence[tuple[int, LogProb]], tokens: Sequence[int]) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": a.index, "logprobs": None, "finish_reason": a.finish_reason}
        if self.options.log_probs is not None:
            content = [self._log_prob(token, found, self.options.log_probs) for token, found in log_probs]
            choice["logprobs"] = {"content": content, "rejection": None}
        if self.options.return_token_ids:
            choice |= {"token_ids": list(tokens), "prompt_token_ids": a.prompt}
        return choice

    def _log_prob(self, token: int, found: LogProb, count: int) -> dict[str, Any]:
        def one(token: int, value: float) -> dict[str, Any]:
            data = self.serving.text.bytes_of(token)
            return {"token": data.decode("utf-8", "replace"), "logprob": value, "bytes": list(data)}

        return {**one(token, found.log_prob), "top_logprobs": [one(i, value) for i, value in found.top[:count]]}
