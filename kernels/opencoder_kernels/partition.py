"""Kernels on a mesh: XLA does not know how to cut a kernel, so shard_map does, along the axes named here.

Activations are cut over `BATCH` along the batch, over `TIME` along the sequence, over `HEADS` along heads or features:
the layout of the trainer's rule table. An axis that the mesh does not have, or that is manual already (inside another
shard_map), is left alone.
"""

from __future__ import annotations

from functools import partial

import jax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

BATCH, TIME, HEADS = ("data", "fsdp"), "context", "tensor"


def automatic() -> dict[str, int]:
    """Axis -> size of the current mesh's axes that XLA, not the program, takes care of."""
    mesh = jax.sharding.get_abstract_mesh()
    return {
        name: size
        for name, size, kind in zip(mesh.axis_names, mesh.axis_sizes, mesh.axis_types, strict=True)
        if kind != AxisType.Manual
    }


def spec(*dims: str | tuple[str, ...] | None) -> P:
    """PartitionSpec of these axes as far as the current mesh has them; None dims are not cut."""
    have = automatic()

    def present(dim):
        names = (dim,) if isinstance(dim, str) else dim or ()
        names = tuple(name for name in names if name in have)
        return names[0] if len(names) == 1 else names or None

    return P(*map(present, dims))


def refuses(operation: str, **dims: tuple[int, str | tuple[str, ...]]) -> str | None:
    """Why arrays whose dims have these (size, axes) cannot be cut over the current mesh, or None."""
    have = automatic()
    for name, (size, axes) in dims.items():
        for_axes = [a for a in ((axes,) if isinstance(axes, str) else axes) if a in have]
        parts = 1
        for axis in for_axes:
            parts *= have[axis]
        if size % parts:
            return f"{operation}: {name} of {size} is not divisible by mesh {' x '.join(for_axes)}={parts}; use 'xla'"
    return None


def activation(ndim: int) -> tuple[str | tuple[str, ...] | None, ...]:
    """Axes of the leading dims of activations [B, T, ..., D]: all but the last."""
    return (BATCH, TIME, *(None,) * (ndim - 3))[: ndim - 1]


def refuses_activation(operation: str, x) -> str | None:
    """Why x [B, T, ..., D] cannot be cut over the current mesh, or None."""
    names = ("batch", "time")[: x.ndim - 1]
    return refuses(
        operation, **{name: (size, axes) for name, size, axes in zip(names, x.shape, (BATCH, TIME), strict=False)}
    )


def over_mesh(f, in_specs, out_specs):
    """f on every device's part of its arguments; f itself where there is no mesh to care for."""
    names = frozenset(automatic())
    if not names:
        return f
    return partial(jax.shard_map, in_specs=in_specs, out_specs=out_specs, axis_names=names, check_vma=False)(f)
