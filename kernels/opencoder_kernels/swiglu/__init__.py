"""silu(x W_gate) * (x W_up): the gated half of the feed-forward block. D model, F feed-forward."""

from __future__ import annotations

import jax

from opencoder_kernels.arrays import check_floats
from opencoder_kernels.dispatch import Backend, choose
from opencoder_kernels.swiglu import mosaic_gpu, reference, tpu, xla

BACKENDS = {
    "reference": Backend(reference.swiglu),
    "xla": Backend(xla.swiglu),
    "mosaic_gpu": Backend(mosaic_gpu.swiglu, mosaic_gpu.unsupported, one_device=True),
    "tpu": Backend(tpu.swiglu, tpu.unsupported, one_device=True),
}


def swiglu(x: jax.Array, w_gate: jax.Array, w_up: jax.Array, *, implementation: str = "auto") -> jax.Array:
    """silu(x W_gate) * (x W_up) (Shazeer 2020, arXiv 2002.05202).

    Every backend but "reference" saves x and the weights for its gradient and recomputes gate and up.

    Args:
      x: [..., D], any float dtype.
      w_gate, w_up: [D, F] in x's dtype.
      implementation: "auto" or a name of `BACKENDS`.

    Returns:
      [..., F] in x's dtype.

    Raises:
      ValueError: shapes or dtypes that do not fit, or an implementation that does not support them.
    """
    if w_gate.ndim != 2 or w_gate.shape != w_up.shape or x.shape[-1:] != w_gate.shape[:1]:
        D = x.shape[-1] if x.ndim else "D"
        raise ValueError(f"swiglu: x {x.shape} needs w_gate and w_up [{D}, F]; got {w_gate.shape}, {w_up.shape}")
    check_floats("swiglu", x=x, w_gate=w_gate, w_up=w_up)
    if not x.dtype == w_gate.dtype == w_up.dtype:
        raise ValueError(f"swiglu: x, w_gate, w_up must share a dtype; got {x.dtype}, {w_gate.dtype}, {w_up.dtype}")
    name = choose("swiglu", BACKENDS, implementation, x, w_gate, w_up)
    return BACKENDS[name].run(x, w_gate, w_up)
