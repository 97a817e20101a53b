"""Values of a configuration that a command line writes in one piece: PATH:WEIGHT, STEP:WEIGHT,WEIGHT, START:STOP, xla_NAME=VALUE.

Each is a frozen dataclass with `parse`, the inverse of `str` (`opencoder_data.fields.Written`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from opencoder_jax.bounds import INT32, LARGEST, SMALLEST, Range


@dataclass(frozen=True)
class SourceConfig:
    """One directory of token shards and its share of the mixture (weights are normalised over the sources)."""

    SYNTAX: ClassVar[str] = "PATH:WEIGHT"
    SEPARATOR: ClassVar[str] = ","

    path: str
    weight: Annotated[float, Range(SMALLEST, LARGEST, also=(0,))] = 1.0

    def __str__(self) -> str:
        return f"{self.path}:{self.weight}"

    @classmethod
    def parse(cls, text: str) -> SourceConfig:
        """PATH alone has weight 1; what follows the last colon is a weight where it is a number."""
        path, colon, weight = text.rpartition(":")
        try:
            return cls(path, float(weight)) if colon and path else cls(text)
        except ValueError:
            return cls(text)


@dataclass(frozen=True)
class MixtureChange:
    """Weights of all sources, in their order, from a global step on."""

    SYNTAX: ClassVar[str] = "STEP:WEIGHT,WEIGHT"
    SEPARATOR: ClassVar[str] = ";"

    step: Annotated[int, Range(0, INT32)]
    weights: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.step}:{','.join(map(str, self.weights))}"

    @classmethod
    def parse(cls, text: str) -> MixtureChange:
        """Raises: ValueError for anything but STEP:WEIGHT,..."""
        step, _, weights = text.partition(":")
        return cls(int(step), tuple(map(float, weights.split(","))))


@dataclass(frozen=True)
class StepRange:
    """Steps from `start` up to, not including, `stop`."""

    SYNTAX: ClassVar[str] = "START:STOP"
    SEPARATOR: ClassVar[str] = ","

    start: Annotated[int, Range(0, INT32)]
    stop: Annotated[int, Range(1, INT32)]

    def __str__(self) -> str:
        return f"{self.start}:{self.stop}"

    def steps(self) -> range:
        """The steps themselves."""
        return range(self.start, self.stop)

    @classmethod
    def parse(cls, text: str) -> StepRange:
        """Raises: ValueError for anything but START:STOP with START below STOP."""
        start, _, stop = text.partition(":")
        if not (start.isdigit() and stop.isdigit() and int(start) < int(stop)):
            raise ValueError("write start:stop, for example 10:15")
        return cls(int(start), int(stop))


@dataclass(frozen=True)
class XlaFlag:
    """A compiler option and its value; an empty text drops one of `xla_flags.py`."""

    SYNTAX: ClassVar[str] = "xla_NAME=VALUE"
    SEPARATOR: ClassVar[str] = ","

    name: str
    value: bool | int | str

    def __str__(self) -> str:
        return f"{self.name}={str(self.value).lower() if isinstance(self.value, bool) else self.value}"

    @classmethod
    def parse(cls, text: str) -> XlaFlag:
        """Raises: ValueError for anything but xla_NAME=VALUE (with or without --)."""
        name, equals, value = text.strip().removeprefix("--").partition("=")
        if not equals or not name.startswith("xla_"):
            raise ValueError("write xla_NAME=VALUE, several with commas, xla_NAME= to drop one")
        if value.lower() in ("true", "false"):
            return cls(name, value.lower() == "true")
        return cls(name, int(value) if value.lstrip("-").isdigit() else value)
