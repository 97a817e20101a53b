"""Choice of a back end: one rule for all operations, and the record of what was chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

# Back ends that XLA itself partitions; the others are single programs for one device and run under shard_map.
PARTITIONED_BY_XLA = ("reference", "xla", "cudnn")
# What "auto" prefers on a platform, best first; the last one honours every request. On a GPU that is by prediction: no speed has
# been measured there yet (docs/experiments/2026-11-21-kernels.md).
ORDER = {"gpu": ("cudnn", "mosaic_gpu", "xla"), "tpu": ("tpu", "xla"), "cpu": ("xla",)}

_chosen: dict[str, str] = {}


@dataclass(frozen=True)
class Backend:
    """One implementation of an operation.

    Attributes:
      run: the function, called with the operation's (checked) arguments.
      refuses: called with the same arguments; why it cannot honour them, and what would work, or None.
    """

    run: Callable[..., Any]
    refuses: Callable[..., str | None] = lambda *_, **__: None


def platform() -> str:
    """cpu, gpu or tpu: of the abstract device when compiling for an absent machine, else of the default device."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    name = device.platform if device is not None and device.platform else jax.default_backend()
    return {"cuda": "gpu", "rocm": "gpu"}.get(name, name)


def device_kind() -> str:
    """Name of the device that a program built now is for, such as "NVIDIA H200"."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.device_kind if device is not None else jax.devices()[0].device_kind


def choose(operation: str, backends: Mapping[str, Backend], implementation: str, *args, **kwargs) -> str:
    """Returns the name of the back end that `implementation` stands for with these arguments, and notes it.

    "auto" is the first of the platform's `ORDER` that the operation has and that does not refuse.

    Raises:
      ValueError: an unknown name (lists the ones there are), or a named one that refuses (says why).
    """
    if implementation == "auto":
        order = ORDER.get(platform(), ("xla",))
        name = next(n for n in order if n in backends and backends[n].refuses(*args, **kwargs) is None)
    elif implementation not in backends:
        raise ValueError(
            f"{operation}: implementation={implementation!r} does not exist; choose auto, {', '.join(backends)}"
        )
    else:
        name = implementation
        if reason := backends[name].refuses(*args, **kwargs):
            raise ValueError(f"{operation}: implementation={name!r} cannot do this: {reason}")
    _chosen[operation] = name
    return name


def chosen() -> dict[str, str]:
    """Operation -> back end of its latest call, in traced programs too: what a run should print and record."""
    return dict(_chosen)
