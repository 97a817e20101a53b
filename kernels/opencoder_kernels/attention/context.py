"""Attention over a sequence that is cut over a mesh axis: keys and values are gathered, queries dealt out evenly.

With causal masks the device that holds the end of the sequence would have nearly all the work. The sequence is seen as
2 C chunks for C devices; device i holds chunks 2i and 2i + 1 and computes for chunks i and 2C - 1 - i instead, which
together see 2C + 1 chunks of keys on every device (the zig-zag order). Queries travel there and results back by one
permutation of half the queries each; keys and values, fewer by the grouping of heads, are gathered whole, as for
Llama 3 (arXiv 2407.21783, section 3.3.2). What is computed is chunk by chunk the same as on one device.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def _owners(count: int) -> list[int]:
    """Device that computes each of 2 x count chunks."""
    return [min(chunk, 2 * count - 1 - chunk) for chunk in range(2 * count)]


def _deal(x, axis: str, count: int):
    """Local chunks 2i, 2i + 1 of x along dim 1 -> chunks i, 2 count - 1 - i."""
    owners = _owners(count)
    i = jax.lax.axis_index(axis)
    even, odd = jnp.split(x, 2, axis=1)
    even = jax.lax.ppermute(even, axis, [(d, owners[2 * d]) for d in range(count)])
    odd = jax.lax.ppermute(odd, axis, [(d, owners[2 * d + 1]) for d in range(count)])
    # Chunk i is even on devices of even index.
    low, high = jnp.where(i % 2 == 0, even, odd), jnp.where(i % 2 == 0, odd, even)
    return low, high


def _collect(low, high, axis: str, count: int):
    """The way back of `_deal`."""
    owners = _owners(count)
    i = jax.lax.axis_index(axis)
    even, odd = jnp.where(i % 2 == 0, low, high), jnp.where(i % 2 == 0, high, low)
    even = jax.lax.ppermute(even, axis, [(owners[2 * d], d) for d in range(count)])
    odd = jax.lax.ppermute(odd, axis, [(owners[2 * d + 1], d) for d in range(count)])
    return jnp.concatenate([even, odd], axis=1)


def merge(a, b):
    """Attention over the keys of both of two disjoint sets, from (out, lse) over each."""
    (out_a, lse_a), (out_b, lse_b) = a, b
    lse = jnp.logaddexp(lse_a, lse_b)
    weight_a, weight_b = jnp.exp(lse_a - lse)[..., None], jnp.exp(lse_b - lse)[..., None]
    out = weight_a * out_a.astype(lse.dtype) + weight_b * out_b.astype(lse.dtype)
    return out.astype(out_a.dtype), lse


def attention(run, q, k, v, *, q_segment_ids, kv_segment_ids, causal, scale, axis: str, count: int):
    """Within shard_map over `axis` of `count` devices: each array is this device's part of the sequence.

    Args: run: attention of one device, (q, k, v, **masks) -> (out, lse).
    Returns: (out, lse) of this device's queries.
    """
    k, v = (jax.lax.all_gather(x, axis, axis=1, tiled=True) for x in (k, v))
    if kv_segment_ids is not None:
        kv_segment_ids = jax.lax.all_gather(kv_segment_ids, axis, axis=1, tiled=True)

    def attend(q, q_segments, start: int, end: int, causal: bool):
        keys = None if kv_segment_ids is None else kv_segment_ids[:, start:end]
        return run(
            q, k[:, start:end], v[:, start:end], q_segment_ids=q_segments, kv_segment_ids=keys,
            q_positions=None, kv_positions=None, causal=causal, scale=scale,
        )  # fmt: skip

    if not causal:
        return attend(q, q_segment_ids, 0, k.shape[1], False)
    size = q.shape[1] // 2

    def chunk(q, q_segments, index: int):
        own = attend(q, q_segments, index * size, (index + 1) * size, True)
        return own if index == 0 else merge(attend(q, q_segments, 0, index * size, False), own)

    low, high = _deal(q, axis, count)
    segments = (None, None) if q_segment_ids is None else _deal(q_segment_ids, axis, count)

    def device(i: int):
        return lambda: (chunk(low, segments[0], i), chunk(high, segments[1], 2 * count - 1 - i))

    parts = jax.lax.switch(jax.lax.axis_index(axis), [device(i) for i in range(count)])
    return tuple(_collect(a, b, axis, count) for a, b in zip(*parts, strict=True))
