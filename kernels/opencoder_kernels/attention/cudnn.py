"""Attention by cuDNN, through `jax.nn.dot_product_attention`: the baseline on GPUs.

Its public interface has no segment ids, so packed documents are not supported; it drops the gradient of the log-sum-exp
in silence, so that is not given out.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from opencoder_kernels.attention import residuals
from opencoder_kernels.dispatch import device_kind, platform


def unsupported(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    q_segment_ids: jax.Array | None,
    q_positions: jax.Array | None,
    kv_positions: jax.Array | None,
    causal: bool,
    return_lse: bool = False,
    **_: Any,
) -> str | None:
    if platform() != "gpu":
        return f"it needs an NVIDIA GPU; the device is {device_kind()!r}; use 'xla'"
    if q.dtype not in (jnp.bfloat16, jnp.float16):
        return f"q, k, v are {q.dtype}; it takes bfloat16 and float16; cast them, or use 'xla'"
    if q.shape[3] % 8 or q.shape[3] > 256:
        return f"head dim {q.shape[3]} of q {q.shape}; it takes multiples of 8 up to 256; use 'xla'"
    if q_segment_ids is not None:
        return "segment ids are given, which its public route does not know; use 'mosaic_gpu' or 'xla'"
    if return_lse:
        return "return_lse is set, whose gradient it drops; use 'mosaic_gpu' or 'xla'"
    if q_positions is not None or kv_positions is not None:
        return "q_positions and kv_positions are given; it counts from 0; use 'xla'"
    if causal and q.shape[1] != k.shape[1]:
        return f"causal with {q.shape[1]} queries and {k.shape[1]} keys; it wants as many of each; use 'xla'"
    return None


def attention(
    q: jax.Array, k: jax.Array, v: jax.Array, *, causal: bool, scale: float, **_: Any
) -> tuple[jax.Array, jax.Array]:
    """See `opencoder_kernels.attention`."""
    out, lse = jax.nn.dot_product_attention(
        q, k, v, is_causal=causal, scale=scale, implementation="cudnn", return_residual=True
    )
    return residuals.named_result(out, lse)
