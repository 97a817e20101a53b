"""Ranges of numeric configuration fields: declared beside the field, checked in one place.

A field is declared `name: Annotated[float, Range(0.0, 1.0)]`. The annotation is plain metadata: dataclasses, overrides and
command-line parsers see a float.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any

# Of float32, in which rates, moments and scales are computed: smaller ones are 0 there, larger ones infinite.
SMALLEST, LARGEST = 1.1754943508222875e-38, 3.4028234663852886e38
# The largest float32 below 1: a decay rate between it and 1 is 1 there, and Adam's bias correction 0 / 0.
BELOW_ONE = 1 - 2.0**-24
INT32 = 2**31 - 1


@dataclass(frozen=True)
class Range:
    """Values that a field may have: minimum to maximum, both included, and those of `also`.

    NaN and the infinities are in no range.
    """

    minimum: float
    maximum: float
    also: tuple[float, ...] = ()

    def __contains__(self, value: float) -> bool:
        return self.minimum <= value <= self.maximum or value in self.also

    def __str__(self) -> str:
        other = "".join(f", or {value:g}" for value in self.also)
        return f"at least {_text(self.minimum)} and at most {_text(self.maximum)}{other}"


@dataclass(frozen=True)
class Numeric:
    """One numeric field of a configuration: dotted name, value, int or float, its range if one is declared."""

    name: str
    value: Any
    kind: type
    range: Range | None


def numeric_fields(config: Any, prefix: str = "") -> Iterator[Numeric]:
    """Every int and float field of a dataclass and of those nested in it, in tuples too (`data.sources[0].weight`)."""
    hints = _hints(type(config))
    for field in dataclasses.fields(config):
        kind, value, name = hints[field.name], getattr(config, field.name), f"{prefix}{field.name}"
        metadata = kind.__metadata__ if typing.get_origin(kind) is typing.Annotated else ()
        plain = kind.__origin__ if metadata else kind
        if plain in (int, float):
            yield Numeric(name, value, plain, next((m for m in metadata if isinstance(m, Range)), None))
        elif dataclasses.is_dataclass(value):
            yield from numeric_fields(value, f"{name}.")
        elif isinstance(value, tuple):
            for i, item in enumerate(value):
                if dataclasses.is_dataclass(item):
                    yield from numeric_fields(item, f"{name}[{i}].")


def check_ranges(config: Any, names: Container[str] | None = None) -> None:
    """Raises ValueError, with field, value and range, for the first numeric field that is outside its declared range.

    names: of the fields to check, all unless given.
    """
    for field in numeric_fields(config):
        if names is not None and field.name not in names:
            continue
        assert field.range is not None, f"{field.name} has no declared range"
        kinds = int if field.kind is int else (int, float)
        if isinstance(field.value, bool) or not isinstance(field.value, kinds):
            raise ValueError(f"{field.name}={field.value!r} must be {'an int' if field.kind is int else 'a float'}")
        if field.value not in field.range:
            raise ValueError(f"{field.name}={field.value} must be {field.range}")


def _text(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:.9g}"


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)
