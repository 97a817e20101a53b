"""Fields of nested dataclasses on a command line and in saved files: help texts, typed values, nearest names.

One implementation for every configuration of the project. A field's help text is the string below it in its class:

    steps: int = 0
    \"\"\"Optimizer steps of the run.\"\"\"

A dataclass with a `parse` of its own (`Written`) is one value, written in one piece: PATH:WEIGHT. Only the standard library
is imported.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

TRUE, FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")
NOTHING = ("", "none")


@runtime_checkable
class Written(Protocol):
    """A dataclass that is one value on the command line. SYNTAX: for help and errors. SEPARATOR: between several."""

    SYNTAX: ClassVar[str]
    SEPARATOR: ClassVar[str]

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of `str`. Raises: ValueError for another form."""
        ...


def is_section(kind: Any) -> bool:
    """Whether a type holds further fields, rather than being a value."""
    return dataclasses.is_dataclass(kind) and not hasattr(kind, "parse")


@functools.cache
def help_texts(kind: type) -> dict[str, str]:
    """Field name -> the string below it in the class, on one line."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef))
    texts = {}
    for node, after in itertools.pairwise(body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(after, ast.Expr):
            text = after.value.value if isinstance(after.value, ast.Constant) else None
            texts |= {node.target.id: " ".join(text.split())} if isinstance(text, str) else {}
    return texts


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One field that is a value: dotted name, type without its annotation, annotations, default (MISSING: none), help."""

    name: str
    kind: Any
    metadata: tuple[Any, ...]
    default: Any
    help: str


def leaves_of(kind: Any, prefix: str = "") -> Iterator[Leaf]:
    """Every value of a configuration's type, sections opened."""
    hints, texts = typing.get_type_hints(kind, include_extras=True), help_texts(kind)
    for f in dataclasses.fields(kind):
        hint, metadata = hints[f.name], ()
        if typing.get_origin(hint) is typing.Annotated:
            hint, metadata = hint.__origin__, hint.__metadata__
        if is_section(hint):
            yield from leaves_of(hint, f"{prefix}{f.name}.")
        else:
            default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
            yield Leaf(f"{prefix}{f.name}", hint, metadata, default, texts.get(f.name, ""))


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every field that is not a section."""
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if is_section(value):
            yield from leaves(value, f"{prefix}{f.name}.")
        else:
            yield f"{prefix}{f.name}", value


def written(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, tuple):
        separator = value[0].SEPARATOR if value and isinstance(value[0], Written) else ","
        return separator.join(map(written, value))
    if isinstance(value, Mapping):
        return ",".join(f"{name}={written(item)}" for name, item in value.items())
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def syntax(kind: Any) -> str:
    """What to write for a value of a type."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return syntax(next(a for a in args if a is not type(None)))
    if origin is tuple:
        one = syntax(args[0])
        return f"{one}{getattr(args[0], 'SEPARATOR', ',')}{one}"
    if origin is dict:
        return "NAME=VALUE,NAME=VALUE"
    if kind is Any:
        return "VALUE"
    return getattr(kind, "SYNTAX", None) or ("true or false" if kind is bool else kind.__name__)


def convert(kind: Any, name: str, text: str) -> Any:
    """The value of a type that a text means. Raises: ValueError in one line, `--name=text: not ...`."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if type(None) in args and text.lower() in NOTHING:
            return None
        return convert(next(a for a in args if a is not type(None)), name, text)
    if origin is tuple:
        separator = getattr(args[0], "SEPARATOR", ",")
        return tuple(convert(args[0], name, item) for item in text.split(separator) if item)
    try:
        if kind is bool:
            return {**dict.fromkeys(TRUE, True), **dict.fromkeys(FALSE, False)}[text.lower()]
        if kind is int:
            return _whole(text.replace("_", ""))
        if kind is float:
            return float(text)
        if hasattr(kind, "parse"):
            return kind.parse(text)
    except (ValueError, KeyError) as error:
        said = f"; {error}" if hasattr(kind, "parse") and str(error) else ""
        raise ValueError(f"--{name}={text}: not {'an' if kind is int else 'a'} {syntax(kind)}{said}") from None
    assert kind is str, kind
    return text


def _whole(text: str) -> int:
    """An int, also as 1e6. Raises: ValueError."""
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer():
            raise
        return int(number)


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that was probably meant."""
    names = list(names)
    near = difflib.get_close_matches(name, names, 1, 0.4) or [n for n in names if n.endswith(name.split(".")[-1])]
    return near[0] if near else None


def set_fields(config: Any, values: Mapping[str, str | None], own: Iterable[str] = ()) -> Any:
    """`config` with dotted fields set from their text; None: a flag given by its name alone.

    Args: own: further names that one which is unknown may have meant.
    Raises: ValueError in one line: an unknown field (names the nearest), a value of another type.
    """
    known = {leaf.name: leaf.kind for leaf in leaves_of(type(config))}
    for name, text in values.items():
        if name not in known:
            near = nearest(name, [*known, *own])
            hint = f"; did you mean --{near}?" if near else f"; fields: {', '.join(known)}"
            raise ValueError(f"--{name}: no such field{hint}")
        if text is None and known[name] is not bool:
            raise ValueError(f"--{name}: needs a value, --{name}=...")
        config = _replace(config, name.split("."), convert(known[name], name, "true" if text is None else text))
    return config


def _replace(config: Any, path: list[str], value: Any) -> Any:
    head, *rest = path
    return dataclasses.replace(config, **{head: _replace(getattr(config, head), rest, value) if rest else value})


def build(kind: Any, value: Any, name: str = "") -> Any:
    """A value of `kind` out of what JSON holds of it. Values that were once strings (`Written`) are read from those too.

    Raises: ValueError in one line for an unknown field, which a newer version saved, and for what is not a configuration.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union) and type(None) in args:
        if value is None or value == "":
            return None
        return build(next(a for a in args if a is not type(None)), value, name)
    one = args[0] if origin is tuple else kind
    if isinstance(value, str) and hasattr(one, "parse"):
        return convert(kind, name, value)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{name}: not a saved configuration")
        return tuple(build(one, item, f"{name}[{i}]") for i, item in enumerate(value))
    if not dataclasses.is_dataclass(kind):
        return value
    if not isinstance(value, dict):
        raise ValueError(f"{name or 'the whole'}: not a saved configuration")
    hints, dot = typing.get_type_hints(kind), "." if name else ""
    fields = dataclasses.fields(kind)
    if unknown := [f"{name}{dot}{field}" for field in value if field not in {f.name for f in fields}]:
        raise ValueError(
            f"unknown field {', '.join(unknown)}: saved by a newer version of opencoder_jax; use that version"
        )
    needed = [f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING]
    if missing := [f"{name}{dot}{field}" for field in needed if field not in value]:
        raise ValueError(f"{', '.join(missing)} missing: not a saved configuration")
    return typing.cast(Any, kind)(**{k: build(hints[k], v, f"{name}{dot}{k}") for k, v in value.items()})


def describe(kind: Any) -> str:
    """All fields for --help: how each is written, its range or default, and what it is."""
    lines = []
    for leaf in leaves_of(kind):
        known = leaf.default is not dataclasses.MISSING and written(leaf.default) != ""
        default = f" (default {written(leaf.default)})" if known else ""
        bounds = "".join(f", {m}" for m in leaf.metadata)
        lines.append(f"  --{leaf.name}={syntax(leaf.kind)}{bounds}{default}")
        lines += textwrap.wrap(leaf.help, 112, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)
