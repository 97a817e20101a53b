"""Grouped-query attention with causal and packed-document masks.

Shapes: B batch, T queries, S keys, N query heads, K key/value heads, H head dim.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, overload

import jax

from opencoder_kernels.arrays import axis_size, check_floats, check_integers
from opencoder_kernels.attention import cudnn, mosaic_gpu, reference, ring, tpu, xla
from opencoder_kernels.dispatch import Backend, choose


def _unless_ring(unsupported):
    """What a backend without a gradient for part of the keys does not support: `unsupported`, and a ring."""

    def with_ring(q, k, v, *, ring_axis, **masks):
        if ring_axis is not None:
            return f"ring_axis={ring_axis!r} is given, and it has no gradient for a part of the keys; use 'mosaic_gpu' or 'xla'"
        return unsupported(q, k, v, **masks)

    return with_ring


def _in_a_ring(unsupported):
    """What a backend does not support on one device or as part of a ring."""

    def with_ring(q, k, v, *, ring_axis, **masks):
        return unsupported(q, k, v, **masks) or (_ring_unsupported(q, k, masks) if ring_axis is not None else None)

    return with_ring


def _ring_unsupported(q, k, masks) -> str | None:
    if masks["q_positions"] is not None or masks["kv_positions"] is not None:
        return "q_positions or kv_positions are given with ring_axis, which counts from 0; leave them out"
    T, S = q.shape[1], k.shape[1]
    if masks["causal"] and T != S:
        return f"causal with {T} queries and {S} keys on each device of a ring; it takes as many of each"
    if masks["causal"] and T % 2:
        return f"causal with {T} tokens on each device of a ring; its zig-zag order takes an even number"
    return None


def _nothing(*_, **__) -> None:
    return None


BACKENDS = {
    "reference": Backend(reference.attention, _unless_ring(_nothing)),
    "xla": Backend(xla.attention, _in_a_ring(_nothing)),
    "mosaic_gpu": Backend(mosaic_gpu.attention, _in_a_ring(mosaic_gpu.unsupported), one_device=True),
    "cudnn": Backend(cudnn.attention, _unless_ring(cudnn.unsupported)),
    "tpu": Backend(tpu.attention, _in_a_ring(tpu.unsupported), one_device=True),
}
# What a ring of devices needs besides the above: the gradient for a part of the keys.
GRADIENTS = {"xla": xla.gradients, "mosaic_gpu": mosaic_gpu.gradients, "tpu": tpu.gradients}


@overload
def attention(
    q: jax.Array, k: jax.Array, v: jax.Array, *, return_lse: Literal[False] = False, **kwargs: Any
) -> jax.Array: ...
@overload
def attention(
    q: jax.Array, k: jax.Array, v: jax.Array, *, return_lse: Literal[True], **kwargs: Any
) -> tuple[jax.Array, jax.Array]: ...
def attention(  # pyright: ignore[reportInconsistentOverload]  # they say what return_lse changes; the rest is below
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    q_segment_ids: jax.Array | None = None,
    kv_segment_ids: jax.Array | None = None,
    q_positions: jax.Array | None = None,
    kv_positions: jax.Array | None = None,
    causal: bool = True,
    scale: float | None = None,
    ring_axis: str | None = None,
    implementation: str = "auto",
    return_lse: bool = False,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """softmax(scale q k^T + mask) v.

    Args:
      q: [B, T, N, H], any float dtype; query heads n attend with key/value head n // (N / K).
      k, v: [B, S, K, H] in q's dtype.
      q_segment_ids, kv_segment_ids: int32 [B, T] and [B, S], or neither; a query sees keys of its own segment only.
      q_positions, kv_positions: int32 [T], [S], positions in the sequence for the causal mask (default 0, 1, ...; they
        differ when T != S, as in decoding, or when a shard holds another part of the sequence).
      causal: a query sees no key after its own position.
      scale: default H ** -0.5.
      ring_axis: inside shard_map, the mesh axis over which the sequence is sharded: every array is this device's part,
        and queries see the keys of all devices on that axis (ring attention, `ring.py`). T and S are then equal and even
        where causal.
      implementation: "auto" or a name of `BACKENDS`.
      return_lse: also return the log-sum-exp of the scores.

    Returns:
      out [B, T, N, H] in q's dtype, accumulated in fp32; with return_lse also fp32 [B, T, N]. A query that sees
      no key gives zeros. For checkpoint policies, what the gradient saves of it is named "attention".

    Raises:
      ValueError: shapes, dtypes, ring_axis or an implementation that do not fit.
    """
    if q.ndim != 4 or k.ndim != 4 or k.shape != v.shape:
        raise ValueError(f"attention: q must be [B,T,N,H], k and v [B,S,K,H]; got {q.shape}, {k.shape}, {v.shape}")
    check_floats("attention", q=q, k=k, v=v)
    B, T, N, H = q.shape
    if k.shape[0] != B or k.shape[3] != H:
        raise ValueError(f"attention: q {q.shape} and k {k.shape} differ in batch or head dim")
    if N % k.shape[2]:
        raise ValueError(f"attention: {N} query heads are not a multiple of {k.shape[2]} key/value heads")
    if not q.dtype == k.dtype == v.dtype:
        raise ValueError(f"attention: q, k, v must share a dtype; got {q.dtype}, {k.dtype}, {v.dtype}")
    if q_segment_ids is None or kv_segment_ids is None:
        if q_segment_ids is not kv_segment_ids:
            raise ValueError("attention: give q_segment_ids and kv_segment_ids, or neither")
    elif q_segment_ids.shape != (B, T) or kv_segment_ids.shape != k.shape[:2]:
        raise ValueError(
            f"attention: segment ids must be {(B, T)}, {k.shape[:2]}; got {q_segment_ids.shape}, {kv_segment_ids.shape}"
        )
    for name, positions, length in (("q_positions", q_positions, T), ("kv_positions", kv_positions, k.shape[1])):
        if positions is not None and positions.shape != (length,):
            raise ValueError(f"attention: {name} must be {(length,)}; got {positions.shape}")
    check_integers(
        "attention", q_segment_ids=q_segment_ids, kv_segment_ids=kv_segment_ids, q_positions=q_positions,
        kv_positions=kv_positions,
    )  # fmt: skip
    count = 1 if ring_axis is None else axis_size("attention", "ring_axis", ring_axis)
    masks = {
        "q_segment_ids": q_segment_ids,
        "kv_segment_ids": kv_segment_ids,
        "q_positions": q_positions,
        "kv_positions": kv_positions,
        "causal": causal,
        "scale": H**-0.5 if scale is None else scale,
    }
    in_ring = ring_axis if count > 1 else None
    name = choose("attention", BACKENDS, implementation, q, k, v, **masks, ring_axis=in_ring, return_lse=return_lse)
    run = BACKENDS[name].run
    if in_ring is None:
        out, lse = run(q, k, v, **masks)
    else:
        scale = masks["scale"]
        one_device = partial(run, q_positions=None, kv_positions=None, scale=scale)
        over = ring.Ring(one_device, partial(GRADIENTS[name], scale=scale), in_ring, count, causal)
        out, lse = ring.attention(over, q, k, v, q_segment_ids, kv_segment_ids)
    return (out, lse) if return_lse else out
