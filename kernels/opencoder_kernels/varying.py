"""Cotangents inside shard_map: a value that is the same on every device of an axis has one gradient, the sum."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def axes(x) -> frozenset[str]:
    """Mesh axes over which x differs from device to device, as shard_map tracks them."""
    aval = jax.typeof(x)
    kind = getattr(aval, "manual_axis_type", None)  # jax 0.12; in 0.11 the set stands on the type itself
    return aval.vma if kind is None else kind.varying


def like(cotangent, primal):
    """`cotangent` summed over the mesh axes over which it varies and `primal` does not.

    A custom gradient must return each cotangent with the type of its argument: where a norm's weight is replicated
    and its activations are cut over an axis, the sum over that axis belongs to the gradient.
    """
    extra = tuple(sorted(axes(cotangent) - axes(primal)))
    return jax.lax.psum(cotangent, extra) if extra else cotangent


def zeros(shape, dtype, *like_these):
    """Zeros that vary over every mesh axis over which one of the given arrays does: the start of a loop's sum."""
    varying = tuple(sorted(frozenset[str]().union(*(axes(x) for x in like_these))))
    x = jnp.zeros(shape, dtype)
    return jax.lax.pcast(x, varying, to="varying") if varying else x
