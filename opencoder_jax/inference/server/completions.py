"""/v1/completions: prompts of every form, echo, log-probabilities, infilling."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import AsyncIterator, Sequence
from typing import Any

from opencoder_jax.inference.engine import LogProb
from opencoder_jax.inference.scoring import Scores
from opencoder_jax.inference.server import fields
from opencoder_jax.inference.server.answers import Answer, Call, Serving
from opencoder_jax.inference.server.errors import ApiError
from opencoder_jax.inference.text import Text

# As OpenAI's endpoint, when a request says nothing.
DEFAULT_MAX_TOKENS = 16
Token = tuple[int, LogProb | None]


class Completion:
    """One request. Raises (constructor): ApiError for what cannot be."""

    def __init__(self, serving: Serving, body: fields.Body, identity: str):
        self.serving, self._identity = serving, identity
        options = fields.options(body, default_max_tokens=DEFAULT_MAX_TOKENS)
        options = dataclasses.replace(
            options, log_probs=fields.log_probs_of_completion(body), echo=fields.boolean(body, "echo")
        )
        if options.max_tokens == 0 and not options.echo:
            raise ApiError("max_tokens=0 needs echo=true: there would be nothing to answer", param="max_tokens")
        self.texts, ids = _encoded(serving.text, body, options.echo)
        self.call, self.options = Call(serving, options, ids), options
        self._scores: list[Scores] = []

    async def start(self) -> None:
        """Scores what is echoed and queues the rest. Raises: ApiError."""
        if self.options.max_tokens:
            self.call.submit()
        if self.options.echo and self.options.log_probs is not None:
            self._scores = await self.call.scores()

    async def answer(self) -> dict[str, Any]:
        if self.options.max_tokens:
            await self.call.finish()
        choices = []
        for a in self.call.answers:
            text = self._echo(a) + a.text
            made = _LogProbs(self.serving.text, self.options.log_probs)
            shown = made.of([*self._echoed(a), *a.log_probs])
            choices.append(self._choice(a, text, shown, "length" if not self.options.max_tokens else a.finish_reason))
        return {**self._head(), "choices": choices, "usage": self.call.usage()}

    async def chunks(self) -> AsyncIterator[dict[str, Any]]:
        """What a stream sends, chunk by chunk."""
        made = {a: _LogProbs(self.serving.text, self.options.log_probs) for a in self.call.answers}
        usage: dict[str, Any] = {"usage": None} if self.options.include_usage else {}
        head = self._head()
        if self.options.echo:
            for a in self.call.answers:
                reason = None if self.options.max_tokens else "length"
                choice = self._choice(a, self._echo(a), made[a].of(self._echoed(a)), reason)
                yield {**head, "choices": [choice], **usage}
        async for a, event in self.call.events():
            new = a.add(event)
            choice = self._choice(a, event.text, made[a].of(new), a.finish_reason, event.tokens)
            yield {**head, "choices": [choice], **usage}
        if self.options.include_usage:
            yield {**head, "choices": [], "usage": self.call.usage()}

    def _head(self) -> dict[str, Any]:
        serving = self.serving
        return {"id": self._identity, "object": "text_completion", "created": serving.created, "model": serving.name}

    def _prompt(self, a: Answer) -> int:
        return a.index // self.options.n

    def _echo(self, a: Answer) -> str:
        return self.texts[self._prompt(a)] if self.options.echo else ""

    def _echoed(self, a: Answer) -> list[Token]:
        """The prompt's tokens with their log-probabilities."""
        if not self._scores:
            return []
        scores = self._scores[self._prompt(a)]
        found: list[Token] = []
        for i, token in enumerate(a.prompt):
            value = float(scores.log_probs[i])
            top: tuple[tuple[int, float], ...] = ()
            if scores.top_ids is not None and scores.top_log_probs is not None:
                top = tuple(zip(scores.top_ids[i].tolist(), scores.top_log_probs[i].tolist(), strict=True))
            found.append((token, None if math.isnan(value) else LogProb(value, top)))
        return found

    def _choice(
        self, a: Answer, text: str, log_probs: Any, reason: str | None, tokens: Sequence[int] | None = None
    ) -> dict[str, Any]:
        choice = {"index": a.index, "text": text, "logprobs": log_probs, "finish_reason": reason}
        if self.options.return_token_ids:
            choice |= {"token_ids": list(a.tokens if tokens is None else tokens), "prompt_token_ids": a.prompt}
        return choice


class _LogProbs:
    """Log-probabilities of a choice in the form of completions; offsets go on from chunk to chunk."""

    def __init__(self, text: Text, count: int | None):
        self._text, self._count = text, count
        self._data = b""

    def of(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        if self._count is None:
            return None
        out: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for token, found in tokens:
            out["tokens"].append(self._text.name(token))
            out["token_logprobs"].append(None if found is None else found.log_prob)
            out["top_logprobs"].append(None if found is None else self._top(token, found, self._count))
            out["text_offset"].append(len(self._data.decode("utf-8", "ignore")))
            self._data += self._text.bytes_of(token)
        return out

    def _top(self, token: int, found: LogProb, count: int) -> dict[str, float]:
        """The likeliest ones and the token itself. Of two with one name the likelier counts."""
        top: dict[str, float] = {}
        for i, value in [*found.top[:count], (token, found.log_prob)]:
            top.setdefault(self._text.name(i), value)
        return top


def _encoded(text: Text, body: fields.Body, echo: bool) -> tuple[list[str], list[list[int]]]:
    """Texts to echo and ids of the prompts. Raises: ApiError."""
    prompts, suffix = fields.prompts(body), body.get("suffix")
    if suffix is not None and not isinstance(suffix, str):
        raise ApiError("suffix: a text", param="suffix")
    if suffix and echo:
        raise ApiError("echo and suffix exclude each other", param="echo")
    special = fields.boolean(body, "parse_special", True)
    texts, ids = [], []
    for prompt in prompts:
        try:
            if suffix:
                if not isinstance(prompt, str):
                    raise ApiError("suffix: needs the prompt as a text", param="suffix")
                ids.append(text.infill(prompt, suffix))
            else:
                ids.append(text.prompt(prompt, special=special) if isinstance(prompt, str) else prompt)
        except ValueError as error:
            raise ApiError(str(error), param="suffix" if suffix else "prompt") from None
        texts.append(prompt if isinstance(prompt, str) else text.decode(prompt) if echo else "")
    return texts, ids
