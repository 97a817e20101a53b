"""RMSNorm whose gradient keeps x alone, in its own dtype; statistics are taken again (one pass over x)."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from opencoder_kernels.rms_norm import reference
from opencoder_kernels.varying import like


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def rms_norm(x: jax.Array, weight: jax.Array, eps: float) -> jax.Array:
    return reference.rms_norm(x, weight, eps)


def _forward(x, weight, eps):
    return reference.rms_norm(x, weight, eps), (x, weight)


def _backward(eps, saved, dy):
    x, weight = saved
    wide = jnp.promote_types(x.dtype, jnp.float32)
    x_wide, dy = x.astype(wide), dy.astype(wide)
    scale = jax.lax.rsqrt(jnp.mean(jnp.square(x_wide), axis=-1, keepdims=True) + eps)
    normed = x_wide * scale
    d_normed = dy * weight.astype(wide)
    dx = scale * (d_normed - normed * jnp.mean(d_normed * normed, axis=-1, keepdims=True))
    d_weight = (dy * normed).sum(tuple(range(x.ndim - 1)))
    return like(dx.astype(x.dtype), x), like(d_weight, weight).astype(weight.dtype)


rms_norm.defvjp(_forward, _backward)
