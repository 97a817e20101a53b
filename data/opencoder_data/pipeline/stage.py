"""What a stage and a pipeline are.

One convention for all stages, so that any of them reads like the others:

* a stage is a frozen dataclass with the field `config`; `run(steps)` names its steps and nothing else;
* step NAME is the method ``write_NAME(run, part)``; it writes ``NAME/part-*.parquet`` below the stage's directory (or what its
  docstring says) and returns its counts, plain values. The last step is ``docs``: ``docs/`` and ``drops/``;
* what happens to a document is decided in a pure function ``decide(batch, ...) -> Outcome`` of the stage's module, which sees
  Arrow tables and the configuration, no files; `run.map_documents` does the reading and writing. What needs more than one
  partition is computed by steps before it, over key tables (`shuffle`), or once on the driver (`Steps.once`).
"""

import importlib.metadata
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

import pyarrow as pa

from opencoder_data.pipeline.schema import DocumentSchema

ENGINE_LIBRARIES = ("numpy", "pyarrow")
"""Distributions that write every stage's files."""


class Outcome(NamedTuple):
    """What a stage decides about a batch of documents."""

    kept: pa.Table
    drops: list[dict[str, Any]]
    """Rows with the keys doc_id, rule and, where there are such, detail and the labels of the pipeline."""
    tables: Mapping[str, pa.Table] = {}
    """Further rows by table: NAME/part-*.parquet beside docs and drops."""
    counts: Mapping[str, Any] = {}
    """Numbers by name, or tables of numbers by name: added up over the batches of a partition."""


class Stage(Protocol):
    """One step of a pipeline over all documents."""

    name: ClassVar[str]
    version: ClassVar[int]
    """Raised whenever the same input and configuration give other rows: finished runs of the version before are then stale. A
    test compares it with the source (scripts/tools/stage_versions.py)."""
    libraries: ClassVar[tuple[str, ...]]
    """Distributions whose version decides the rows, besides `ENGINE_LIBRARIES`."""

    @property
    def config(self) -> Any:
        """A dataclass of plain values."""
        ...

    def validate(self) -> None:
        """Raises ValueError for a configuration that makes no sense; called before any stage runs."""
        ...

    def run(self, steps: Any) -> None:
        """The stage's steps in order; `steps` is a `run.Steps`."""
        ...


@dataclass(frozen=True)
class Pipeline:
    """A tuple of stages over one kind of documents; the first reads the input. Raises ValueError for names that repeat."""

    name: str
    stages: tuple[Stage, ...]
    schema: DocumentSchema = field(default_factory=DocumentSchema)

    def __post_init__(self) -> None:
        names = self.names
        if not names or len(set(names)) < len(names):
            raise ValueError(f"pipeline {self.name}: stages need names of their own, got {', '.join(names) or 'none'}")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(stage.name for stage in self.stages)

    def select(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """`names` in order, all for an empty tuple, the first stage always among them. Raises ValueError for an unknown one."""
        unknown = [n for n in names if n not in self.names]
        if unknown:
            raise ValueError(f"stages: {unknown[0]!r} is not a stage; the stages are {', '.join(self.names)}")
        return tuple(n for n in self.names if not names or n in names or n == self.names[0])


def behavior(stage: Stage) -> dict[str, Any]:
    """What decides the rows of a stage besides input and configuration: its version and that of its libraries.

    Where the source is stored does not count. Raises ValueError for a library that is not installed.
    """
    libraries = {name: _installed(name) for name in sorted({*ENGINE_LIBRARIES, *stage.libraries})}
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {"stage": stage.name, "version": stage.version, "libraries": {**libraries, "python": python}}


def _installed(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(f"the package {distribution} is not installed; install the extra [data]") from None
