"""What every operation asks of its arrays, beside their shapes."""

from __future__ import annotations

import jax.numpy as jnp


def check_floats(operation: str, **arrays) -> None:
    """Raises ValueError for an array that is not of floats, or has no elements."""
    for name, x in arrays.items():
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"{operation}: {name} must be floats; got {x.dtype}; cast it")
        if 0 in x.shape:
            raise ValueError(f"{operation}: {name} {x.shape} has no elements; every dim must be at least 1")


def check_integers(operation: str, **arrays) -> None:
    """Raises ValueError for an array that is not of integers; None is left out."""
    for name, x in arrays.items():
        if x is not None and not jnp.issubdtype(x.dtype, jnp.integer):
            raise ValueError(f"{operation}: {name} must be integers; got {x.dtype}; cast it")
