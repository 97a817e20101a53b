"""What every operation requires of its arguments, besides shapes."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def check_floats(operation: str, **arrays: jax.Array) -> None:
    """Raises ValueError for an array that is not of floats, or has no elements."""
    for name, x in arrays.items():
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"{operation}: {name} must be floats; got {x.dtype}; cast it")
        if 0 in x.shape:
            raise ValueError(f"{operation}: {name} {x.shape} has no elements; every dim must be at least 1")


def check_integers(operation: str, **arrays: jax.Array | None) -> None:
    """Raises ValueError for an array that is not of integers; None is left out."""
    for name, x in arrays.items():
        if x is not None and not jnp.issubdtype(x.dtype, jnp.integer):
            raise ValueError(f"{operation}: {name} must be integers; got {x.dtype}; cast it")


def axis_size(operation: str, argument: str, axis: str) -> int:
    """Size of a mesh axis over which the caller's shard_map is manual. Raises ValueError where there is none of that name."""
    try:
        return jax.lax.axis_size(axis)
    except NameError:
        raise ValueError(
            f"{operation}: {argument}={axis!r} is not a manual mesh axis here; call it inside shard_map over a mesh that has it"
        ) from None
