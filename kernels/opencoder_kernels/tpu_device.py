"""What the kernels for TPUs share: the device check, compiler parameters, precision.

What the interpreter leaves unproven of all of them: it multiplies in the precision of the operands, where a TPU takes fp32
in one bf16 pass unless `precision` says otherwise; it knows neither tiles of memory nor how much VMEM there is. That the
compiler accepts them is checked ahead of time (tests, `aot`).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.experimental.pallas import tpu as pltpu

from opencoder_kernels.dispatch import device_kind, platform
from opencoder_kernels.interpret import is_interpreted

# VMEM that a kernel may use: of 64 MiB on v5p, 128 on v6e.
VMEM_BYTES = 56 * 2**20


def unsupported() -> str | None:
    """Why this device cannot run a Pallas TPU kernel, or None."""
    if platform() != "tpu" and not is_interpreted("tpu"):
        return f"it needs a TPU; the device is {device_kind()!r}; use 'xla'"
    return None


def params(dims: int) -> pltpu.CompilerParams:
    """Compiler parameters of a grid whose blocks do not depend on one another."""
    return pltpu.CompilerParams(dimension_semantics=("parallel",) * dims, vmem_limit_bytes=VMEM_BYTES)


def precision(x: jax.Array) -> jax.lax.Precision | None:
    """Matmuls of fp32 in fp32, of bf16 in one pass."""
    return jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
