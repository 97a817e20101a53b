"""Root-mean-square norm (Zhang and Sennrich 2019), with the residual addition before it."""

from __future__ import annotations

from opencoder_kernels.arrays import check_floats
from opencoder_kernels.dispatch import Backend, choose
from opencoder_kernels.rms_norm import mosaic_gpu, reference, tpu, xla


def _adding(norm):
    """The norm of x + residual from a plain norm; XLA fuses the addition into it."""

    def run(x, weight, eps, residual):
        if residual is None:
            return norm(x, weight, eps)
        x = x + residual
        return norm(x, weight, eps), x

    return run


BACKENDS = {
    "reference": Backend(_adding(reference.rms_norm)),
    "xla": Backend(_adding(xla.rms_norm)),
    "mosaic_gpu": Backend(mosaic_gpu.rms_norm, mosaic_gpu.refuses),
    "tpu": Backend(tpu.rms_norm, tpu.refuses),
}


def rms_norm(x, weight, *, eps: float, residual=None, implementation: str = "auto"):
    """x / sqrt(mean(x^2) + eps) * weight over the last dim; statistics in fp32, the product in x's dtype.

    Args: x [..., D], weight [D], residual like x or None.
    Returns: y like x; with a residual (y, s) where s = x + residual is what was normalised.
    Raises: ValueError when shapes or dtypes do not fit, or the named implementation cannot do it.
    """
    like_x = residual is None or (residual.shape == x.shape and residual.dtype == x.dtype)
    if weight.ndim != 1 or weight.shape != x.shape[-1:] or not like_x:
        raise ValueError(
            f"rms_norm: x {x.shape} {x.dtype} needs weight {x.shape[-1:] or '[D]'} and residual like x; got weight "
            f"{weight.shape}, residual {None if residual is None else (residual.shape, str(residual.dtype))}"
        )
    check_floats("rms_norm", x=x, weight=weight)
    name = choose("rms_norm", BACKENDS, implementation, x, weight, eps, residual)
    return BACKENDS[name].run(x, weight, eps, residual)
