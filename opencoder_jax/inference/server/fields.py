"""Fields of a request's body: types, ranges, what this server does not support. Unknown fields are ignored."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from opencoder_jax.inference.programs import TOP
from opencoder_jax.inference.sampling import Sampling
from opencoder_jax.inference.server.errors import ApiError
from opencoder_jax.inference.stops import Stops

Body = Mapping[str, Any]
MAX_SAMPLES = 128
# Fields with an effect that this server does not have, and the values that ask for none.
UNSUPPORTED: dict[str, Callable[[Any], bool]] = {
    "logit_bias": lambda v: not v,
    "frequency_penalty": lambda v: v == 0,
    "presence_penalty": lambda v: v == 0,
    "repetition_penalty": lambda v: v == 1,
    "tools": lambda v: not v,
    "functions": lambda v: not v,
    "tool_choice": lambda v: v in ("none", "auto"),
    "function_call": lambda v: v in ("none", "auto"),
    "response_format": lambda v: v == {"type": "text"},
    "modalities": lambda v: v == ["text"],
    "audio": lambda v: not v,
    "prediction": lambda v: not v,
    "web_search_options": lambda v: not v,
    "use_beam_search": lambda v: not v,
    "guided_json": lambda v: not v,
    "guided_regex": lambda v: not v,
    "guided_choice": lambda v: not v,
    "guided_grammar": lambda v: not v,
    "structured_outputs": lambda v: not v,
}


@dataclass(frozen=True)
class Options:
    """What completions and chats share. max_tokens None: as many as the context has space for. log_probs: alternatives
    to report, None: no log-probabilities."""

    max_tokens: int | None
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    seed: int
    n: int
    stops: Stops
    stream: bool
    include_usage: bool
    include_stop: bool
    ignore_end: bool
    min_tokens: int
    skip_special: bool
    return_token_ids: bool
    log_probs: int | None = None
    echo: bool = False

    def sampling(self, max_new_tokens: int) -> Sampling:
        """Raises: ApiError naming the field."""
        try:
            return Sampling(max_new_tokens, self.temperature, self.top_p, self.seed, self.top_k, self.min_p)
        except ValueError as error:
            raise ApiError(str(error), param=str(error).partition("=")[0]) from None


def check_supported(body: Body, n: int) -> None:
    """Raises: ApiError for a field whose effect was asked for and is not had."""
    for name, harmless in UNSUPPORTED.items():
        if body.get(name) is not None and not harmless(body[name]):
            raise ApiError(
                f"{name} is not supported by this server; leave it out", param=name, code="unsupported_parameter"
            )
    if body.get("best_of") not in (None, n):
        raise ApiError(
            "best_of other than n is not supported by this server", param="best_of", code="unsupported_parameter"
        )


def options(body: Body, *, default_max_tokens: int | None) -> Options:
    """Raises: ApiError for values that cannot be."""
    n = integer(body, "n", 1, low=1, high=MAX_SAMPLES)
    assert n is not None
    check_supported(body, n)
    most = integer(body, "max_completion_tokens", None, low=0)
    most = integer(body, "max_tokens", default_max_tokens, low=0) if most is None else most
    stream = boolean(body, "stream")
    usage = body.get("stream_options")
    if usage is not None and (not isinstance(usage, dict) or not stream):
        raise ApiError("stream_options: an object, together with stream=true", param="stream_options")
    seed = integer(body, "seed", None)
    top_k = integer(body, "top_k", 0, low=-1) or 0
    found = Options(
        max_tokens=most,
        temperature=number(body, "temperature", 1.0),
        top_p=number(body, "top_p", 1.0),
        top_k=max(top_k, 0),  # -1: all, as elsewhere
        min_p=number(body, "min_p", 0.0),
        seed=secrets.randbits(62) if seed is None else seed,
        n=n,
        stops=stops(body),
        stream=stream,
        include_usage=bool(usage and usage.get("include_usage")),
        include_stop=boolean(body, "include_stop_str_in_output"),
        ignore_end=boolean(body, "ignore_eos"),
        min_tokens=integer(body, "min_tokens", 0, low=0) or 0,
        skip_special=boolean(body, "skip_special_tokens", True),
        return_token_ids=boolean(body, "return_token_ids"),
    )
    found.sampling(1)
    return found


def log_probs_of_completion(body: Body) -> int | None:
    return integer(body, "logprobs", None, low=0, high=TOP)


def log_probs_of_chat(body: Body) -> int | None:
    count = integer(body, "top_logprobs", None, low=0, high=TOP)
    wanted = boolean(body, "logprobs")
    if count and not wanted:
        raise ApiError("top_logprobs needs logprobs=true", param="top_logprobs")
    return (count or 0) if wanted else None


def stops(body: Body) -> Stops:
    value = body.get("stop")
    strings = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(strings, list) or not all(isinstance(s, str) for s in strings):
        raise ApiError("stop: a string or a list of strings", param="stop")
    try:
        return Stops(strings)
    except ValueError as error:
        raise ApiError(str(error), param="stop") from None


def integer(body: Body, name: str, default: int | None, *, low: int = -(2**63), high: int = 2**63 - 1) -> int | None:
    value = body.get(name)
    if value is None:
        return default
    whole = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value) and value == int(value))
    if isinstance(value, bool) or not whole or not low <= value <= high:
        bounds = f" from {low} to {high}" if high < 2**62 else f" of at least {low}" if low > -(2**62) else ""
        raise ApiError(f"{name}={_shown(value)}: must be an integer{bounds}", param=name)
    return int(value)


def number(body: Body, name: str, default: float) -> float:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ApiError(f"{name}={_shown(value)}: must be a number", param=name)
    try:
        return float(value)
    except OverflowError:
        raise ApiError(f"{name}={_shown(value)}: out of range", param=name) from None


def boolean(body: Body, name: str, default: bool = False) -> bool:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ApiError(f"{name}={_shown(value)}: must be true or false", param=name)
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def prompts(body: Body) -> list[str | list[int]]:
    """A text, a list of texts, a list of ids, or a list of such lists. Raises: ApiError."""
    value = body.get("prompt")
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if all(isinstance(v, str) for v in value):
            return value
        if _are_ids(value):
            return [value]
        if all(isinstance(v, list) and v and _are_ids(v) for v in value):
            return value
    raise ApiError(
        "prompt: a text, a list of texts, a list of token ids or a list of such lists, none empty", param="prompt"
    )


def _are_ids(values: list[Any]) -> bool:
    return all(type(v) is int for v in values)


def messages(body: Body) -> list[dict[str, Any]]:
    """Messages with texts as contents. Raises: ApiError for other parts than text."""
    value = body.get("messages")
    if not isinstance(value, list) or not value or not all(isinstance(m, dict) for m in value):
        raise ApiError("messages: a list of objects with role and content, at least one", param="messages")
    return [_message(m, i) for i, m in enumerate(value)]


def _message(message: dict[str, Any], i: int) -> dict[str, Any]:
    role, content = message.get("role"), message.get("content")
    where = f"messages[{i}]"
    if not isinstance(role, str) or not role:
        raise ApiError(f"{where}.role: a text such as user", param=where)
    if isinstance(content, list):
        if not all(isinstance(p, dict) and p.get("type") == "text" and isinstance(p.get("text"), str) for p in content):
            raise ApiError(f"{where}.content: parts other than text are not supported", param=where)
        content = "".join(part["text"] for part in content)
    if content is None and role == "assistant":
        content = ""
    if not isinstance(content, str):
        raise ApiError(f"{where}.content: a text or a list of text parts", param=where)
    return {**message, "role": "system" if role == "developer" else role, "content": content}
