"""A client of OpenAI-compatible endpoints: our server, vLLM, llama.cpp, or a service.

Requests that fail for a while (connection lost, 408, 429, 5xx) are sent again with growing pauses, or after the time that
`Retry-After` names. An endpoint that stays dead is an `EndpointError`; a request that the server will never take (a prompt
over its context) is a `Rejected`, so that one bad prompt does not end a run.
"""

from __future__ import annotations

import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
KEY_VARIABLE = "OPENAI_API_KEY"
MAX_PAUSE = 30.0
T, R = TypeVar("T"), TypeVar("R")


class EndpointError(ValueError):
    """The endpoint cannot be reached, or does not speak the protocol; one line with the remedy."""


class Rejected(Exception):
    """The server will not answer this request, however often it is sent; others may pass."""


@dataclass(frozen=True)
class Sampling:
    """temperature 0 is greedy. max_tokens: of the answer. seed: sent when given; equal seeds give equal samples where the server
    supports it."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 1024
    seed: int | None = None

    def fields(self) -> dict[str, Any]:
        """As the protocol names them."""
        out: dict[str, Any] = {"temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_tokens}
        return out if self.seed is None else {**out, "seed": self.seed}


@dataclass(frozen=True)
class Answer:
    """finish_reason: `stop` or `length`. prompt_tokens, tokens: as the server counts; 0 where it does not."""

    text: str
    finish_reason: str = ""
    prompt_tokens: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class Likelihood:
    """nats: negative log-likelihood of a text after its prompt. tokens: those that reach into the text."""

    nats: float
    tokens: int


class Client:
    """Safe to use from several threads.

    Args:
      endpoint: `http://HOST:PORT`, with or without `/v1`.
      model: its name there; "" asks the server, which must then serve one.
      api_key: default: the environment variable OPENAI_API_KEY.
      timeout: seconds for one answer.
      retries: how often a request is sent again.
      pause: seconds before the first of these; doubles each time.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        model: str = "",
        api_key: str | None = None,
        timeout: float = 600.0,
        retries: int = 5,
        pause: float = 0.5,
        connections: int = 64,
    ):
        if not endpoint.startswith(("http://", "https://")):
            raise EndpointError(f"endpoint {endpoint!r}: give http://HOST:PORT")
        self.endpoint = endpoint.rstrip("/").removesuffix("/v1")
        self._retries, self._pause, self._model = retries, pause, model
        key = api_key if api_key is not None else os.environ.get(KEY_VARIABLE, "")
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout, connect=10.0, pool=None),
            limits=limits,
        )
        self._lock = threading.Lock()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    @property
    def model(self) -> str:
        """The model's name. Raises: EndpointError when the server has to be asked and serves none or several."""
        with self._lock:
            if not self._model:
                listed = self._call("GET", "/v1/models", None)
                names = [str(m.get("id", "")) for m in listed.get("data", []) if isinstance(m, dict)]
                if len(names) != 1:
                    raise EndpointError(f"{self.endpoint} serves {', '.join(names) or 'no model'}; give --model=NAME")
                self._model = names[0]
            return self._model

    def complete(
        self, prompt: str, sampling: Sampling, *, stop: Sequence[str] = (), suffix: str | None = None
    ) -> Answer:
        """Continues `prompt`, or with `suffix` fills in between the two. Raises: EndpointError, Rejected."""
        body: dict[str, Any] = {"model": self.model, "prompt": prompt, **sampling.fields()}
        body |= {"stop": list(stop)} if stop else {}
        body |= {} if suffix is None else {"suffix": suffix}
        reply = self._call("POST", "/v1/completions", body)
        choice = self._choice(reply)
        return self._answer(choice.get("text"), choice, reply)

    def chat(self, messages: Sequence[Mapping[str, str]], sampling: Sampling, *, stop: Sequence[str] = ()) -> Answer:
        """The assistant's next message. Raises: EndpointError, Rejected."""
        body: dict[str, Any] = {"model": self.model, "messages": [dict(m) for m in messages], **sampling.fields()}
        body |= {"stop": list(stop)} if stop else {}
        reply = self._call("POST", "/v1/chat/completions", body)
        choice = self._choice(reply)
        message = choice.get("message")
        return self._answer(message.get("content") if isinstance(message, dict) else None, choice, reply)

    def likelihood(self, prompt: str, text: str) -> Likelihood:
        """Of `text` after `prompt`, by `echo` and `logprobs`. A token across the border counts whole.

        Raises: EndpointError where the server does not echo log-probabilities (silence here would be a wrong score);
        Rejected; ValueError for an empty prompt, after which nothing foretells the first token.
        """
        if not prompt:
            raise ValueError("a likelihood needs a prompt that is not empty")
        whole = prompt + text
        body = {"model": self.model, "prompt": whole, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
        choice = self._choice(self._call("POST", "/v1/completions", body))
        logprobs = choice.get("logprobs")
        if not isinstance(logprobs, dict) or not str(choice.get("text", "")).startswith(whole[:64]):
            raise EndpointError(f"{self.endpoint} does not support echo with logprobs; use a server that does")
        tokens, values = logprobs.get("tokens") or [], logprobs.get("token_logprobs") or []
        offsets = logprobs.get("text_offset") or _offsets(tokens)
        if not len(tokens) == len(values) == len(offsets):
            raise EndpointError(f"{self.endpoint}: logprobs of unequal length; use a server that returns one a token")
        ends = [*offsets[1:], math.inf]
        used = [v for v, o, e in zip(values, offsets, ends, strict=True) if e > len(prompt) and o < len(whole)]
        if not used or any(v is None for v in used):
            raise EndpointError(f"{self.endpoint} does not echo the prompt's log-probabilities; use a server that does")
        return Likelihood(-math.fsum(used), len(used))

    def map(
        self, work: Callable[[T], R], items: Iterable[T], *, concurrency: int = 16
    ) -> Iterator[tuple[T, R | Rejected]]:
        """`work(item)` for all items, `concurrency` at once, in the order in which they finish.

        Raises: the first exception of `work` other than Rejected, after the requests in flight have ended.
        """
        with ThreadPoolExecutor(max(1, concurrency), thread_name_prefix="request") as pool:
            waiting: dict[Future[R], T] = {}
            source = iter(items)
            try:
                while True:
                    while len(waiting) < 2 * concurrency and (item := next(source, _END)) is not _END:
                        waiting[pool.submit(work, item)] = item  # pyright: ignore[reportArgumentType]
                    if not waiting:
                        return
                    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        item = waiting.pop(future)
                        error = future.exception()
                        yield item, error if isinstance(error, Rejected) else future.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        problem, pause = "", 0.0
        for attempt in range(self._retries + 1):
            if attempt:
                time.sleep(pause)
            pause = min(MAX_PAUSE, self._pause * 2**attempt) * (0.75 + random.random() / 2)
            try:
                response = self._http.request(method, self.endpoint + path, json=body)
            except httpx.TimeoutException as error:
                problem = f"no answer in time ({type(error).__name__})"
            except (httpx.HTTPError, OSError) as error:
                problem = str(error) or type(error).__name__
            except httpx.InvalidURL as error:
                raise EndpointError(f"endpoint {self.endpoint!r}: {error}; give http://HOST:PORT") from error
            else:
                if response.status_code not in RETRIED:
                    return self._read(response, path)
                problem = f"{response.status_code} {_message(response)}"
                with_header = _seconds(response.headers.get("retry-after"))
                pause = pause if with_header is None else min(MAX_PAUSE, with_header)
        raise EndpointError(
            f"{self.endpoint}: {problem}; start the server (or give another --endpoint) and run the same command again"
        )

    def _read(self, response: httpx.Response, path: str) -> dict[str, Any]:
        if response.status_code in (401, 403):
            raise EndpointError(f"{self.endpoint}: {response.status_code} {_message(response)}; set {KEY_VARIABLE}")
        if response.status_code == 404:
            raise EndpointError(f"{self.endpoint}{path}: 404 {_message(response)}; check --endpoint and --model")
        if response.status_code >= 400:
            raise Rejected(f"{response.status_code} {_message(response)}")
        try:
            reply = response.json()
        except ValueError as error:
            raise EndpointError(f"{self.endpoint}{path}: not JSON; give an OpenAI-compatible endpoint") from error
        if not isinstance(reply, dict):
            raise EndpointError(f"{self.endpoint}{path}: not an object; give an OpenAI-compatible endpoint")
        return reply

    def _choice(self, reply: dict[str, Any]) -> dict[str, Any]:
        choices = reply.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise EndpointError(f"{self.endpoint}: an answer without choices; give an OpenAI-compatible endpoint")
        return choices[0]

    def _answer(self, text: object, choice: dict[str, Any], reply: dict[str, Any]) -> Answer:
        usage = reply.get("usage") if isinstance(reply.get("usage"), dict) else {}
        return Answer(
            text if isinstance(text, str) else "",
            str(choice.get("finish_reason") or ""),
            int(usage.get("prompt_tokens") or 0),
            int(usage.get("completion_tokens") or 0),
        )


_END: Any = object()


def _offsets(tokens: Sequence[str]) -> list[int]:
    at, offsets = 0, []
    for token in tokens:
        offsets.append(at)
        at += len(token)
    return offsets


def _message(response: httpx.Response) -> str:
    """The error's text in OpenAI's form or in another, one line."""
    try:
        error = response.json()
        error = error.get("error", error) if isinstance(error, dict) else error
        text = error.get("message") or str(error) if isinstance(error, dict) else str(error)
    except ValueError:
        text = response.text or response.reason_phrase
    return " ".join(text.split())[:300]


def _seconds(header: str | None) -> float | None:
    try:
        return max(0.0, float(header)) if header is not None else None
    except ValueError:
        return None
