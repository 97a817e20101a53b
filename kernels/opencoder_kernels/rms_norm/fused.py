"""What the Pallas backends share: rows and gradient around two kernels that each pass over their rows once.

The gradient computes the statistics again from x. The gradient of the weight leaves the kernel as one fp32 partial sum
per block of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from opencoder_kernels.varying import like, unchecked


@dataclass(frozen=True)
class Kernels:
    """The two kernels of a backend; M is a multiple of `rows(D)`.

    Attributes:
      forward: (x [M, D], weight [D], eps) -> y [M, D].
      backward: (x, weight, dy, eps) -> dx [M, D], d weight fp32 [parts, D].
      rows: D -> rows that the kernels take at a time.
    """

    forward: Callable[..., Any]
    backward: Callable[..., Any]
    rows: Callable[[int], int]


def rms_norm(kernels: Kernels, x: jax.Array, weight: jax.Array, eps: float) -> jax.Array:
    """See `opencoder_kernels.rms_norm`."""
    D = x.shape[-1]
    M = x.size // D
    rows = jnp.pad(x.reshape(M, D), ((0, -M % kernels.rows(D)), (0, 0)))
    return _rows(kernels, rows, weight, eps)[:M].reshape(x.shape)


@partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def _rows(kernels: Kernels, x, weight, eps):
    return unchecked(partial(kernels.forward, eps=eps))(x, weight)


def _forward(kernels: Kernels, x, weight, eps):
    return _rows(kernels, x, weight, eps), (x, weight)


def _backward(kernels: Kernels, eps, saved, dy):
    x, weight = saved
    dx, dw = unchecked(partial(kernels.backward, eps=eps))(x, weight, dy)
    return like(dx, x), like(dw.sum(0), weight).astype(weight.dtype)


_rows.defvjp(_forward, _backward)
