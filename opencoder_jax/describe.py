"""The fields of a run for --help: type, range and default of each."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from opencoder_jax.bounds import Range
from opencoder_jax.config import RunConfig, SourceConfig
from opencoder_jax.overrides import config_names


def describe_fields() -> str:
    """One line for every field of a configuration, with type, range and default, for --help."""
    rows = []

    def walk(kind: Any, prefix: str) -> None:
        hints = typing.get_type_hints(kind, include_extras=True)
        for f in dataclasses.fields(kind):
            hint, bounds = hints[f.name], ""
            if typing.get_origin(hint) is typing.Annotated:
                bounds = f", {next(m for m in hint.__metadata__ if isinstance(m, Range))}"
                hint = hint.__origin__
            if dataclasses.is_dataclass(hint):
                walk(hint, f"{prefix}{f.name}.")
                continue
            name = "PATH:WEIGHT,PATH:WEIGHT" if hint == tuple[SourceConfig, ...] else hint.__name__
            default = "" if f.default in (dataclasses.MISSING, "", ()) else f" (default {f.default})"
            rows.append(f"  --{prefix}{f.name}={name}{bounds}{default}")

    walk(RunConfig, "")
    return (
        f"--config is one of {', '.join(config_names())}, or a Python file. Its fields, any of which can be overridden (the "
        "default holds where the configuration says nothing):\n" + "\n".join(rows)
    )
