"""What the Pallas back ends share: rows, mesh and gradient around two kernels that each pass over their rows once.

s = x + residual is written once and kept for the gradient, which takes the statistics again and returns one gradient for
x and residual both. The gradient of the weight leaves the kernel as one fp32 partial sum per block of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from opencoder_kernels import partition
from opencoder_kernels.varying import like, unchecked


@dataclass(frozen=True)
class Kernels:
    """The two kernels of a back end; M is a multiple of `rows(D)`.

    Attributes:
      forward: (x [M, D], weight [D], residual [M, D] or None, eps) -> y, or [y, s] with a residual.
      backward: (s, weight, dy, ds or None, eps) -> dx [M, D], d weight fp32 [parts, D].
      rows: D -> rows that the kernels take at a time.
    """

    forward: Callable[..., Any]
    backward: Callable[..., Any]
    rows: Callable[[int], int]


def rms_norm(kernels: Kernels, x, weight, eps: float, residual):
    """See `opencoder_kernels.rms_norm`; x [B, T, D] is cut over the mesh as the trainer does it."""
    activation = partition.spec(*partition.activation(x.ndim), None)
    args = (x, weight) if residual is None else (x, weight, residual)

    def local(x, weight, residual=None):
        shape, D = x.shape, x.shape[-1]
        M = x.size // D
        pad = -M % kernels.rows(D)

        def rows(x):
            return None if x is None else jnp.pad(x.reshape(M, D), ((0, pad), (0, 0)))

        out = _rows(kernels, rows(x), weight, rows(residual), eps)
        out = tuple(x[:M].reshape(shape) for x in out)
        return out[0] if residual is None else out

    specs = (activation, partition.spec(None), activation)[: len(args)]
    return partition.over_mesh(local, specs, activation if residual is None else (activation,) * 2)(*args)


@partial(jax.custom_vjp, nondiff_argnums=(0, 4))
def _rows(kernels: Kernels, x, weight, residual, eps):
    out = unchecked(partial(kernels.forward, eps=eps))(x, weight, residual)
    return out if residual is not None else [out]


def _forward(kernels: Kernels, x, weight, residual, eps):
    out = _rows(kernels, x, weight, residual, eps)
    return out, (x if residual is None else out[1], weight, residual is not None)


def _backward(kernels: Kernels, eps, saved, cotangents):
    s, weight, added = saved
    dx, dw = unchecked(partial(kernels.backward, eps=eps))(s, weight, cotangents[0], cotangents[1] if added else None)
    dx = like(dx, s)
    return dx, like(dw.sum(0), weight).astype(weight.dtype), dx if added else None


_rows.defvjp(_forward, _backward)
