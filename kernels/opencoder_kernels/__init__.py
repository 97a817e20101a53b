"""Fused operations of the decoder and their references; needs jax and nothing else.

Every public function takes `implementation=`: "auto" picks the fastest backend that supports the request on the
current platform (`chosen()` tells which), a named one that does not raises `ValueError` with the reason.
"""

from opencoder_kernels.attention import attention
from opencoder_kernels.dispatch import chosen
from opencoder_kernels.linear_cross_entropy import linear_cross_entropy
from opencoder_kernels.rms_norm import rms_norm
from opencoder_kernels.swiglu import swiglu

__all__ = ["attention", "chosen", "linear_cross_entropy", "rms_norm", "swiglu"]
