"""Chats as text and as tokens: Hugging Face's Jinja templates, in Jinja's immutable sandbox."""

from __future__ import annotations

import datetime
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

Messages = Sequence[Mapping[str, Any]]


class _Generation(jinja2.ext.Extension):
    """`{% generation %}...{% endgeneration %}`, which marks what the assistant writes; here its text alone."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A compiled template. Args: source: Jinja. bos_token, eos_token: names that it may use.

    Raises: ValueError for a template that Jinja does not read.
    """

    def __init__(self, source: str, *, bos_token: str | None = None, eos_token: str | None = None):
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _to_json
        environment.globals |= {
            "raise_exception": _raise,
            "strftime_now": lambda form: datetime.datetime.now().strftime(form),
            "bos_token": bos_token or "",
            "eos_token": eos_token or "",
        }
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise ValueError(f"the chat template is not valid: {error}") from None

    def render(self, messages: Messages, *, add_generation_prompt: bool = True, **variables: Any) -> str:
        """The chat as text. Raises: ValueError for messages that the template rejects."""
        try:
            return self._template.render(messages=messages, add_generation_prompt=add_generation_prompt, **variables)
        except (jinja2.TemplateError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"the chat template rejects these messages: {error}") from None

    def encode(
        self,
        messages: Messages,
        encode: Callable[[str], list[int]],
        special_ids: Mapping[str, int],
        *,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> list[int]:
        """The chat as token ids. Names of special tokens are tokens where the template writes them, and text where a
        message does: a message cannot end its own turn.

        Args: encode: ids of plain text. special_ids: of the names. Raises: as `render`.
        """
        names = sorted(special_ids, key=len, reverse=True)
        if not names:
            return encode(self.render(messages, add_generation_prompt=add_generation_prompt, **variables))
        either = re.compile("(" + "|".join(map(re.escape, names)) + ")")
        nonce = secrets.token_hex(8)
        hide = lambda text: either.sub(lambda m: f"\ue000{nonce}:{names.index(m[0])}\ue001", text)  # noqa: E731
        text = self.render(_mapped(messages, hide), add_generation_prompt=add_generation_prompt, **variables)
        hidden = re.compile(f"\ue000{nonce}:([0-9]+)\ue001")
        ids: list[int] = []
        for i, part in enumerate(either.split(text)):
            if i % 2:
                ids.append(special_ids[part])
            elif part:
                ids += encode(hidden.sub(lambda m: names[int(m[1])], part))
        return ids


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """`change` on every string inside; keys stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {k: _mapped(v, change) for k, v in value.items()}
    return [_mapped(v, change) for v in value] if isinstance(value, list | tuple) else value


def _to_json(value: Any, indent: int | None = None) -> str:
    """As transformers: no HTML escapes."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)
