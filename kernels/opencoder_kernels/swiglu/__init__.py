"""silu(x W_gate) * (x W_up): the gated half of the feed-forward block. D model, F feed-forward."""

from __future__ import annotations

from opencoder_kernels.arrays import check_floats
from opencoder_kernels.dispatch import Backend, choose
from opencoder_kernels.swiglu import mosaic_gpu, reference, tpu, xla

BACKENDS = {
    "reference": Backend(reference.swiglu),
    "xla": Backend(xla.swiglu),
    "mosaic_gpu": Backend(mosaic_gpu.swiglu, mosaic_gpu.refuses),
    "tpu": Backend(tpu.swiglu, tpu.refuses),
}


def swiglu(x, w_gate, w_up, *, implementation: str = "auto"):
    """Args: x [..., D], w_gate and w_up [D, F], one dtype. Returns [..., F] in x's dtype.

    Every back end but "reference" saves x and the matrices for its gradient and computes gate and up again.

    Raises: ValueError when shapes or dtypes do not fit, or the named implementation cannot do it.
    """
    if w_gate.ndim != 2 or w_gate.shape != w_up.shape or x.shape[-1:] != w_gate.shape[:1]:
        D = x.shape[-1] if x.ndim else "D"
        raise ValueError(f"swiglu: x {x.shape} needs w_gate and w_up [{D}, F]; got {w_gate.shape}, {w_up.shape}")
    check_floats("swiglu", x=x, w_gate=w_gate, w_up=w_up)
    if not x.dtype == w_gate.dtype == w_up.dtype:
        raise ValueError(f"swiglu: x, w_gate, w_up must share a dtype; got {x.dtype}, {w_gate.dtype}, {w_up.dtype}")
    name = choose("swiglu", BACKENDS, implementation, x, w_gate, w_up)
    return BACKENDS[name].run(x, w_gate, w_up)
