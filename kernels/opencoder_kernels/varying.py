"""Cotangents inside shard_map: a value that is the same on every device of an axis has one gradient, the sum."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from opencoder_kernels.interpret import on_each_device


def axes(x: jax.Array) -> frozenset[str]:
    """Mesh axes over which x differs from device to device, as shard_map tracks them."""
    aval = jax.typeof(x)
    kind = getattr(aval, "manual_axis_type", None)  # jax 0.12; in 0.11 the set is on the type itself
    return aval.vma if kind is None else kind.varying


def like(cotangent: jax.Array, primal: jax.Array) -> jax.Array:
    """`cotangent` summed over the mesh axes over which it varies and `primal` does not.

    A custom gradient must return each cotangent with the type of its argument: where a norm's weight is replicated
    and its activations are sharded over an axis, the sum over that axis belongs to the gradient.
    """
    extra = tuple(sorted(axes(cotangent) - axes(primal)))
    return jax.lax.psum(cotangent, extra) if extra else cotangent


def zeros(shape: tuple[int, ...], dtype: Any, *like_these: jax.Array) -> jax.Array:
    """Zeros that vary over every mesh axis over which one of the given arrays does: the start of a loop's sum."""
    varying = tuple(sorted(frozenset[str]().union(*(axes(x) for x in like_these))))
    x = jnp.zeros(shape, dtype)
    return jax.lax.pcast(x, varying, to="varying") if varying else x


def unchecked(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """`kernel` for use inside a shard_map that tracks which values vary over which axes; Pallas programs do not track it.

    The kernel (a function of arrays and Nones, without collectives) sees arrays that vary over nothing; each of its
    results varies over every axis over which one of its arguments does. Without a mesh, the kernel itself.
    """
    kernel = on_each_device(kernel)

    @wraps(kernel)
    def run(*args):
        varies = tuple(sorted(frozenset[str]().union(*(axes(x) for x in jax.tree.leaves(args)))))
        if not varies:
            return kernel(*args)

        def untyped(x):  # any operation in an unchecked shard_map forgets the axes; these two cost nothing
            return jax.lax.squeeze(jax.lax.expand_dims(x, (0,)), (0,))

        inner = jax.shard_map(
            lambda *args: kernel(*jax.tree.map(untyped, args)),
            in_specs=P(),
            out_specs=P(),
            axis_names=set(),
            check_vma=False,
        )
        return jax.tree.map(lambda x: jax.lax.pcast(x, varies, to="varying"), inner(*args))

    return run
