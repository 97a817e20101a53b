"""Finds a configuration by name and applies typed overrides such as `--mesh.fsdp=8` to it."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import json
import sys
import traceback
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from opencoder_data import command as commands

from opencoder_jax.config import RunConfig, SourceConfig, check

_HERE = Path(__file__).parent
_CONFIG_DIRECTORIES = (_HERE.parent / "configs", _HERE / "_configs")  # a checkout; an installed wheel


def parse(arguments: Sequence[str], own: Iterable[str] = ()) -> RunConfig:
    """`--config=NAME [--field=value ...] [--flag]` -> the resolved configuration.

    Args: own: options of the command, which one that is unknown may have meant.
    Raises: ValueError in one line: no or unknown config, unknown field (names the nearest), a value of another type or
    one that no run can have.
    """
    values = split(arguments)
    name = values.pop("config", None)
    if not name:
        raise ValueError(f"no --config=NAME given; there are: {', '.join(config_names())}")
    config = apply(load(name), values, own)
    check(config)
    return config


def split(arguments: Iterable[str]) -> dict[str, str | None]:
    """`--name=text` and `--flag` (None) by name. Raises: ValueError for anything else, and for a name given twice."""
    values: dict[str, str | None] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not argument.startswith("--"):
            raise ValueError(f"argument {argument!r}: write --field=value, for example --mesh.fsdp=8")
        if name[2:] in values:
            raise ValueError(f"{name} is given twice")
        values[name[2:]] = value if equals else None
    return values


def take(arguments: Iterable[str], own: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """A command's own options by name, with defaults from `own` and "yes" for one without a value; and all others.

    Raises: ValueError for one given twice.
    """
    values, rest, seen = dict(own), [], set()
    for argument in arguments:
        name, _, value = argument.removeprefix("--").partition("=")
        if argument.startswith("--") and name in own:
            if name in seen:
                raise ValueError(f"--{name} is given twice")
            seen.add(name)
            values[name] = value or "yes"
        else:
            rest.append(argument)
    return values, rest


def command(run: Callable[[list[str]], int], arguments: list[str], documentation: str | None) -> int:
    """`run(arguments)` as `opencoder_data.command.run` does it, or the documentation on --help."""

    def work() -> int:
        if "--help" in arguments or "-h" in arguments:
            print(documentation)
            return 0
        return run(arguments)

    return commands.run(work)


def config_names() -> list[str]:
    directory = next((f for f in _CONFIG_DIRECTORIES if f.is_dir()), None)
    return sorted(p.stem for p in directory.glob("*.py") if p.stem != "__init__") if directory else []


def load(name: str) -> RunConfig:
    """The configuration of `configs/NAME.py`, or of a Python file given by its path.

    Raises: ValueError when there is none, or the file does not make one.
    """
    candidates = (
        [Path(name)] if name.endswith(".py") else [directory / f"{name}.py" for directory in _CONFIG_DIRECTORIES]
    )
    path = next((p for p in candidates if p.is_file()), None)
    if path is None:
        near = difflib.get_close_matches(name, config_names(), 1, 0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"--config={name}: no such configuration; {hint}there are: {', '.join(config_names())}")
    module_spec = importlib.util.spec_from_file_location(f"opencoder_config_{path.stem}", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = module  # dataclasses of the file look for it there
    try:
        module_spec.loader.exec_module(module)
        config = module.config()
    except ValueError:
        raise
    except Exception as error:  # whatever a Python file can do wrong
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        where = f"line {lines[-1]}: " if lines else ""
        said = f"{where}{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(
            f"--config={name}: no configuration, which is a file with config() -> RunConfig: {said}"
        ) from error
    if not isinstance(config, RunConfig):
        raise ValueError(f"--config={name}: its config() makes a {type(config).__name__}, no RunConfig")
    return config


def apply(config: RunConfig, values: Mapping[str, str | None], own: Iterable[str] = ()) -> RunConfig:
    """Sets dotted fields from their text (None: a flag given by its name alone). Raises: ValueError as `parse` does."""
    known = dict(leaves(config))
    names = list(known)
    for name, text in values.items():
        if name not in names:
            near = difflib.get_close_matches(name, [*names, *own], 1, 0.4) or [
                n for n in names if n.endswith(name.split(".")[-1])
            ]
            hint = f"; did you mean --{near[0]}?" if near else f"; fields: {', '.join(names)}"
            raise ValueError(f"--{name}: no such field{hint}")
        if text is None and not isinstance(known[name], bool):
            raise ValueError(f"--{name}: needs a value, --{name}=...")
        config = _set(config, name.split("."), name, "true" if text is None else text)
    return config


def changes(old: RunConfig, new: RunConfig) -> list[str]:
    """ "field: old -> new" for every field that differs."""
    before = dict(leaves(old))
    return [f"{name}: {before[name]} -> {value}" for name, value in leaves(new) if before[name] != value]


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every field that is not itself a configuration."""
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{f.name}.")
        else:
            yield f"{prefix}{f.name}", value


def to_json(config: RunConfig) -> str:
    return json.dumps(dataclasses.asdict(config), indent=1) + "\n"


def from_json(text: str) -> RunConfig:
    """The inverse of `to_json`. Raises: ValueError as `from_dict` does."""
    return from_dict(json.loads(text))


def from_dict(fields: dict[str, Any]) -> RunConfig:
    """A saved configuration; fields that a newer version of this program added take their defaults.

    Raises: ValueError in one line for a field that this version does not know, which a newer one saved, and for what is
    not a configuration.
    """
    return _build(RunConfig, fields, "")


def _build(kind: Any, value: Any, name: str) -> Any:
    if kind == tuple[SourceConfig, ...]:
        if not isinstance(value, list):
            raise ValueError(f"{name}: not a saved configuration")
        return tuple(_build(SourceConfig, item, f"{name}[{i}]") for i, item in enumerate(value))
    if not dataclasses.is_dataclass(kind):
        return value
    if not isinstance(value, dict):
        raise ValueError(f"{name or 'the whole'}: not a saved configuration")
    hints, dot = typing.get_type_hints(kind), "." if name else ""
    if unknown := [f"{name}{dot}{field}" for field in value if field not in hints]:
        raise ValueError(
            f"unknown field {', '.join(unknown)}: saved by a newer version of opencoder_jax; use that version"
        )
    needed = [f.name for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING]
    if missing := [f"{name}{dot}{field}" for field in needed if field not in value]:
        raise ValueError(f"{', '.join(missing)} missing: not a saved configuration")
    return typing.cast(Any, kind)(**{k: _build(hints[k], v, f"{name}{dot}{k}") for k, v in value.items()})


def _set(config: Any, path: list[str], name: str, text: str) -> Any:
    head, *rest = path
    if rest:
        return dataclasses.replace(config, **{head: _set(getattr(config, head), rest, name, text)})
    kind = typing.get_type_hints(type(config))[head]
    return dataclasses.replace(config, **{head: _convert(kind, name, text)})


def _convert(kind: Any, name: str, text: str) -> Any:
    try:
        if kind is bool:
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        if kind is int:
            return int(text.replace("_", ""))
        if kind is float:
            return float(text)
        if kind == tuple[SourceConfig, ...]:
            return tuple(_source(item) for item in text.split(",") if item)
        assert kind is str, kind
        return text
    except (ValueError, KeyError):
        label = (
            "true or false"
            if kind is bool
            else "PATH:WEIGHT,PATH:WEIGHT"
            if kind not in (int, float)
            else kind.__name__
        )
        raise ValueError(f"--{name}={text}: not {'an' if kind is int else 'a'} {label}") from None


def _source(item: str) -> SourceConfig:
    path, colon, weight = item.rpartition(":")
    try:
        return SourceConfig(path, float(weight)) if colon and path else SourceConfig(item)
    except ValueError:
        return SourceConfig(item)
