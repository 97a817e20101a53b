"""Which blocks of keys a block of queries has to visit: computed by XLA beside a kernel, read by the kernel.

A range is exact at its ends and conservative inside: a block between the ends may be wholly masked only when the segment
ids of a row do not increase, and is then computed and masked, never left out wrongly.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def visibility(
    q_segments: jax.Array | None,
    kv_segments: jax.Array | None,
    T: int,
    S: int,
    block_q: int,
    block_kv: int,
    causal: bool,
) -> tuple[jax.Array, jax.Array]:
    """(some, every), bool [B, T / block_q, S / block_kv]: some query of a block sees some key of another; all see all.

    B is 1 without segment ids (None).
    """
    num_q, num_kv = T // block_q, S // block_kv
    q_start = (jnp.arange(num_q) * block_q)[None, :, None]
    kv_start = (jnp.arange(num_kv) * block_kv)[None, None, :]
    some = every = jnp.ones((1, num_q, num_kv), bool)
    if causal:
        some &= kv_start <= q_start + block_q - 1
        every &= kv_start + block_kv - 1 <= q_start
    if q_segments is not None and kv_segments is not None:
        q_rows = q_segments.reshape(-1, num_q, 1, block_q)
        kv_rows = kv_segments.reshape(-1, 1, num_kv, block_kv)
        q_low, q_high, kv_low, kv_high = q_rows.min(-1), q_rows.max(-1), kv_rows.min(-1), kv_rows.max(-1)
        some &= (q_low <= kv_high) & (kv_low <= q_high)
        every &= (q_low == kv_high) & (kv_low == q_high)
    return some, every & some


def ranges(some: jax.Array, every: jax.Array, B: int) -> jax.Array:
    """(first, full_first, full_end, end) along the last dim of two masks [B or 1, rows, n], int32 [B, rows, 4].

    Blocks first ... end - 1 have something to see; full_first ... full_end - 1 need no mask.
    """
    n = some.shape[-1]
    first = jnp.argmax(some, -1)
    end = jnp.where(some.any(-1), n - jnp.argmax(some[..., ::-1], -1), first)
    full_first = jnp.where(every.any(-1), jnp.argmax(every, -1), end)
    # The first run of full blocks; a later one is masked, which changes nothing.
    after = (jnp.arange(n) >= full_first[..., None]) & ~every
    full_end = jnp.where(after.any(-1), jnp.minimum(jnp.argmax(after, -1), end), end)
    full_end = jnp.maximum(full_end, full_first)
    bounds = jnp.stack([first, full_first, full_end, end], -1).astype(jnp.int32)
    return jnp.broadcast_to(bounds, (B, *bounds.shape[1:]))
