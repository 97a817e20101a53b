"""Choice of a backend: one rule for all operations, and the record of what was chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import AxisType

# What "auto" prefers on a platform, best first; the last one supports every request. On a GPU that is by prediction: no
# speed has been measured there yet (docs/experiments/2026-11-21-kernels.md).
ORDER = {"gpu": ("cudnn", "mosaic_gpu", "xla"), "tpu": ("tpu", "xla"), "cpu": ("xla",)}

_chosen: dict[str, str] = {}


@dataclass(frozen=True)
class Backend:
    """One implementation of an operation.

    Attributes:
      run: the function, called with the operation's (checked) arguments.
      unsupported: called with the same arguments; why it does not support them, and what would work, or None.
      one_device: whether it is a program for one device, which XLA cannot partition: on a mesh it runs inside shard_map.
    """

    run: Callable[..., Any]
    unsupported: Callable[..., str | None] = lambda *_, **__: None
    one_device: bool = False

    def reason(self, *args: Any, **kwargs: Any) -> str | None:
        """Why the arguments, or the current mesh, are not supported, or None."""
        return self.unsupported(*args, **kwargs) or (_partitioned_by_xla() if self.one_device else None)


def _partitioned_by_xla() -> str | None:
    mesh = jax.sharding.get_abstract_mesh()
    axes = {
        name: size
        for name, size, kind in zip(mesh.axis_names, mesh.axis_sizes, mesh.axis_types, strict=True)
        if kind != AxisType.Manual and size > 1
    }
    return f"the mesh axes {axes} are not manual here; call it inside shard_map, or use 'xla'" if axes else None


def platform() -> str:
    """cpu, gpu or tpu: of the abstract device when compiling for a target without hardware, else of the default device."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    name = device.platform if device is not None and device.platform else jax.default_backend()
    return {"cuda": "gpu", "rocm": "gpu"}.get(name, name)


def device_kind() -> str:
    """Name of the device that a program built now is for, such as "NVIDIA H200"."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.device_kind if device is not None else jax.devices()[0].device_kind


def choose(operation: str, backends: Mapping[str, Backend], implementation: str, *args: Any, **kwargs: Any) -> str:
    """Returns the name of the backend that `implementation` resolves to with these arguments, and records it.

    "auto" is the first of the platform's `ORDER` that the operation has and that supports the arguments.

    Raises:
      ValueError: an unknown name (lists the known ones), or a named one that does not support the arguments (says why).
    """
    if implementation == "auto":
        order = ORDER.get(platform(), ("xla",))
        name = next(n for n in order if n in backends and backends[n].reason(*args, **kwargs) is None)
    elif implementation not in backends:
        raise ValueError(
            f"{operation}: implementation={implementation!r} does not exist; choose auto, {', '.join(backends)}"
        )
    else:
        name = implementation
        if reason := backends[name].reason(*args, **kwargs):
            raise ValueError(f"{operation}: implementation={name!r} is not supported: {reason}")
    _chosen[operation] = name
    return name


def chosen() -> dict[str, str]:
    """Operation -> backend of its latest call, in traced programs too: what a run should print and record."""
    return dict(_chosen)
