"""What the Pallas backends share: rows and gradient around one kernel, which multiplies and activates.

The gradient runs the same two matmuls again and writes d gate and d up from their epilogue, so that gate and up are
never in memory, in either direction. The four matmuls that remain (dx twice, d w_gate, d w_up) are plain and XLA's.
Saved per token: D values (see `xla.py`).
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
class Kernel:
    """A backend's kernel.

    Attributes:
      run: (x [M, D], w_gate, w_up [D, F], d_out [M, F] or None) -> [silu(gate) * up], or [d_gate, d_up] with d_out.
      rows: M is brought to a multiple of it.
    """

    run: Callable[..., Any]
    rows: int


def swiglu(kernel: Kernel, x: jax.Array, w_gate: jax.Array, w_up: jax.Array) -> jax.Array:
    """See `opencoder_kernels.swiglu`."""
    rows = x.reshape(-1, x.shape[-1])
    M = rows.shape[0]
    out = _rows(kernel, jnp.pad(rows, ((0, -M % kernel.rows), (0, 0))), w_gate, w_up)
    return out[:M].reshape(*x.shape[:-1], w_gate.shape[1])


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _rows(kernel: Kernel, x, w_gate, w_up):
    return unchecked(kernel.run)(x, w_gate, w_up, None)[0]


def _forward(kernel: Kernel, x, w_gate, w_up):
    return _rows(kernel, x, w_gate, w_up), (x, w_gate, w_up)


def _backward(kernel: Kernel, saved, d_out):
    x, w_gate, w_up = saved
    d_gate, d_up = unchecked(kernel.run)(x, w_gate, w_up, d_out)
    dx = d_gate @ w_gate.T + d_up @ w_up.T
    return like(dx, x), like(x.T @ d_gate, w_gate), like(x.T @ d_up, w_up)


_rows.defvjp(_forward, _backward)


def epilogue(gate: jax.Array, up: jax.Array, d_out: jax.Array | None) -> list[jax.Array]:
    """What leaves the kernel, from fp32 gate and up: [silu(gate) * up], or with d_out [d_gate, d_up]."""
    sigmoid = 1 / (1 + jnp.exp(-gate))
    silu = gate * sigmoid
    if d_out is None:
        return [silu * up]
    return [d_out * up * (sigmoid + silu * (1 - sigmoid)), d_out * silu]
