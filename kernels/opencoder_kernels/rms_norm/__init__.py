"""Root-mean-square norm (Zhang and Sennrich 2019, arXiv 1910.07467)."""

from __future__ import annotations

import jax

from opencoder_kernels.arrays import check_floats
from opencoder_kernels.dispatch import Backend, choose
from opencoder_kernels.rms_norm import mosaic_gpu, reference, tpu, xla

BACKENDS = {
    "reference": Backend(reference.rms_norm),
    "xla": Backend(xla.rms_norm),
    "mosaic_gpu": Backend(mosaic_gpu.rms_norm, mosaic_gpu.unsupported, one_device=True),
    "tpu": Backend(tpu.rms_norm, tpu.unsupported, one_device=True),
}


def rms_norm(x: jax.Array, weight: jax.Array, *, eps: float, implementation: str = "auto") -> jax.Array:
    """x / sqrt(mean(x^2) + eps) * weight over the last dim; statistics in fp32, the result in x's dtype.

    Args:
      x: [..., D], any float dtype.
      weight: [D], any float dtype.
      eps: added to the mean square.
      implementation: "auto" or a name of `BACKENDS`.

    Returns:
      [..., D] in x's dtype.

    Raises:
      ValueError: shapes or dtypes that do not fit, or an implementation that does not support them.
    """
    if weight.ndim != 1 or weight.shape != x.shape[-1:]:
        raise ValueError(f"rms_norm: x {x.shape} needs weight {x.shape[-1:] or '[D]'}; got weight {weight.shape}")
    check_floats("rms_norm", x=x, weight=weight)
    name = choose("rms_norm", BACKENDS, implementation, x, weight, eps)
    return BACKENDS[name].run(x, weight, eps)
