"""Finds a configuration by name and applies typed overrides such as `--mesh.fsdp=8` to it."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import json
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from opencoder_data import command as commands
from opencoder_data import fields

from opencoder_jax.config import RunConfig, check

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
        raise ValueError(f"no --config=NAME given{typo('config', values)}; there are: {', '.join(config_names())}")
    config = apply(load(name), values, own)
    check(config)
    return config


def typo(name: str, given: Iterable[str]) -> str:
    """Of an option that is missing: ", did you mean it by --...", where something like it is given."""
    near = difflib.get_close_matches(name, given, 1)
    return f", did you mean it by --{near[0]}?" if near else ""


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
    return fields.set_fields(config, values, own)


def changes(old: RunConfig, new: RunConfig) -> list[str]:
    """ "field: old -> new" for every field that differs."""
    before = dict(leaves(old))
    return [
        f"{name}: {fields.written(before[name])} -> {fields.written(value)}"
        for name, value in leaves(new)
        if before[name] != value
    ]


def leaves(config: RunConfig) -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every field that is not a section."""
    return fields.leaves(config)


def to_json(config: RunConfig) -> str:
    """The text that is saved with a run."""
    return json.dumps(dataclasses.asdict(config), indent=1) + "\n"


def from_json(text: str) -> RunConfig:
    """The inverse of `to_json`. Raises: ValueError as `from_dict` does."""
    return from_dict(json.loads(text))


def from_dict(values: dict[str, Any]) -> RunConfig:
    """A saved configuration; fields that a newer version of this program added take their defaults, and the strings that
    older ones wrote for data.mixture_changes, profile.steps and xla_flags are translated.

    Raises: ValueError in one line for a field that this version does not know, which a newer one saved, and for what is
    not a configuration.
    """
    return fields.build(RunConfig, values)


def describe_fields() -> str:
    """Every field of a run for --help: how it is written, range, default and what it is."""
    return (
        f"--config is one of {', '.join(config_names())}, or a Python file. Its fields, any of which can be overridden (the "
        f"default holds where the configuration says nothing):\n{fields.describe(RunConfig)}"
    )
