"""A call's choices while they are made: the bridge from the engine's thread to the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from opencoder_jax.inference.engine import Event, LogProb, Request
from opencoder_jax.inference.scoring import Scores
from opencoder_jax.inference.server.errors import ApiError
from opencoder_jax.inference.server.fields import Options
from opencoder_jax.inference.service import Closed, Handle, QueueFull, Service
from opencoder_jax.inference.text import Text

# Seconds after which a client may try again when the queue is full.
RETRY_AFTER = 1


@dataclass
class Serving:
    """What the endpoints share. first_token: told the seconds from a request to its first token."""

    service: Service
    text: Text
    name: str
    created: int
    first_token: Callable[[float], None] = lambda seconds: None

    @property
    def context(self) -> int:
        return self.service.engine.capacity


@dataclass(eq=False)
class Answer:
    """One choice. log_probs: of `tokens`, and of the end token if one was drawn."""

    index: int
    prompt: list[int]
    sample: int
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    log_probs: list[tuple[int, LogProb]] = field(default_factory=list)
    reason: str = ""
    count: int = 0  # tokens drawn, the end token included

    def add(self, event: Event) -> list[tuple[int, LogProb]]:
        """Takes an event; returns its tokens' log-probabilities."""
        new = list(zip(event.tokens, event.log_probs, strict=False))
        if event.end_token is not None and event.end_log_prob is not None:
            new.append((event.end_token, event.end_log_prob))
        self.text += event.text
        self.tokens += event.tokens
        self.log_probs += new
        self.reason = event.reason
        self.count += len(event.tokens) + (event.end_token is not None)
        return new

    @property
    def finish_reason(self) -> str | None:
        return {"": None, "length": "length"}.get(self.reason, "stop")


class Call:
    """All choices of one HTTP request: n for each prompt. Raises (constructor): ApiError for prompts that do not fit."""

    def __init__(self, serving: Serving, options: Options, prompts: list[list[int]]):
        self.serving, self.options, self.prompts = serving, options, prompts
        self.answers = [
            Answer(p * options.n + s, prompt, s) for p, prompt in enumerate(prompts) for s in range(options.n)
        ]
        self._handles: list[Handle] = []
        self._events: asyncio.Queue[tuple[Answer, Event]] = asyncio.Queue()
        for prompt in prompts:
            self._check(prompt)

    def _check(self, prompt: list[int]) -> None:
        context, most = self.serving.context, self.options.max_tokens
        if not prompt:
            raise ApiError("the prompt is empty: give some text or token ids", param="prompt")
        rows = self.serving.text.vocab_size
        if min(prompt) < 0 or max(prompt) >= rows:
            raise ApiError(f"prompt: token ids {min(prompt)}..{max(prompt)}; the vocabulary has {rows}", param="prompt")
        if len(prompt) + (1 if most is None else most) > context:
            raise ApiError(
                f"This model's maximum context length is {context} tokens; the prompt has {len(prompt)} and max_tokens is "
                f"{most if most is not None else 'at least 1'}. Shorten one of them.",
                param="prompt" if len(prompt) >= context else "max_tokens",
                code="context_length_exceeded",
            )

    def submit(self) -> None:
        """Queues all choices, or none. Raises: ApiError (503) when too many wait, or the server is closing."""
        o, text = self.options, self.serving.text
        loop = asyncio.get_running_loop()
        text_of = text.text_of(skip_special=o.skip_special)

        def listener(answer: Answer) -> Callable[[Event], None]:
            def tell(event: Event) -> None:
                with contextlib.suppress(RuntimeError):  # the loop has been closed
                    loop.call_soon_threadsafe(self._events.put_nowait, (answer, event))

            return tell

        requests = [
            Request(
                a.prompt,
                o.sampling(self.serving.context - len(a.prompt) if o.max_tokens is None else o.max_tokens),
                sample=a.sample,
                stops=o.stops,
                include_stop=o.include_stop,
                ignore_end=o.ignore_end,
                min_tokens=o.min_tokens,
                log_probs=o.log_probs is not None,
                text_of=text_of,
            )
            for a in self.answers
        ]
        try:
            self._handles = self.serving.service.submit(requests, [listener(a) for a in self.answers])
        except (QueueFull, Closed) as error:
            raise overloaded(error) from None
        except ValueError as error:
            raise ApiError(str(error)) from None

    async def events(self) -> AsyncIterator[tuple[Answer, Event]]:
        """Events of all choices as they come. Raises: ApiError when the engine cannot go on with one."""
        left, started = len(self._handles), asyncio.get_running_loop().time()
        first = True
        while left:
            answer, event = await self._events.get()
            if event.reason in ("error", "cancelled"):
                raise ApiError(event.error or "the server is closing", status=500 if event.error else 503)
            if first:
                self.serving.first_token(asyncio.get_running_loop().time() - started)
                first = False
            left -= bool(event.reason)
            yield answer, event

    async def finish(self) -> None:
        """Until all choices are complete."""
        async for answer, event in self.events():
            answer.add(event)

    def cancel(self) -> None:
        for handle in self._handles:
            handle.cancel()

    async def scores(self) -> list[Scores]:
        """Of each prompt. Raises: ApiError."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[Scores] | Exception] = loop.create_future()

        def tell(result: list[Scores] | Exception) -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(lambda: done.done() or done.set_result(result))

        try:
            self.serving.service.score(self.prompts, tell, top=bool(self.options.log_probs))
        except (QueueFull, Closed) as error:
            raise overloaded(error) from None
        result = await done
        if isinstance(result, Exception):
            raise ApiError(str(result), status=500)
        return result

    def usage(self) -> dict[str, int]:
        prompt, new = sum(map(len, self.prompts)), sum(a.count for a in self.answers)
        return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}


def overloaded(error: Exception) -> ApiError:
    return ApiError(f"the server is overloaded: {error}; try again", status=503, retry_after=str(RETRY_AFTER))
