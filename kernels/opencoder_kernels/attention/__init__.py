"""Grouped-query attention with causal and packed-document masks.

Shapes: B batch, T queries, S keys, N query heads, K key/value heads, H head dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from opencoder_kernels import partition
from opencoder_kernels.arrays import check_floats, check_integers
from opencoder_kernels.attention import context, cudnn, mosaic_gpu, reference, tpu, xla
from opencoder_kernels.dispatch import PARTITIONED_BY_XLA, Backend, choose


def _for_one_device(refuses):
    """What a kernel refuses on one device, or else because of the mesh."""

    def refuses_here(q, k, v, **masks):
        return refuses(q, k, v, **masks) or _cannot_be_cut(q, k, masks)

    return refuses_here


BACKENDS = {
    "reference": Backend(reference.attention),
    "xla": Backend(xla.attention),
    "mosaic_gpu": Backend(mosaic_gpu.attention, _for_one_device(mosaic_gpu.refuses)),
    "cudnn": Backend(cudnn.attention, cudnn.refuses),
    "tpu": Backend(tpu.attention, _for_one_device(tpu.refuses)),
}
# What a ring of devices needs beside the above: the gradient for a part of the keys.
GRADIENTS = {"xla": xla.gradients, "mosaic_gpu": mosaic_gpu.gradients, "tpu": tpu.gradients}


def attention(
    q,
    k,
    v,
    *,
    q_segment_ids=None,
    kv_segment_ids=None,
    q_positions=None,
    kv_positions=None,
    causal: bool = True,
    scale: float | None = None,
    implementation: str = "auto",
    return_lse: bool = False,
):
    """softmax(scale q k^T + mask) v.

    Args:
      q: [B, T, N, H]; query heads n attend with key/value head n // (N / K).
      k, v: [B, S, K, H].
      q_segment_ids, kv_segment_ids: int32 [B, T] and [B, S], or neither; a query sees keys of its own segment only.
      q_positions, kv_positions: int32 [T], [S], places in the sequence for the causal mask (default 0, 1, ...; they
        differ when T != S, as in decoding, or when a shard holds another part of the sequence).
      causal: a query sees no key behind its own place.
      scale: default H ** -0.5.
      return_lse: also return the log-sum-exp of the scores.

    Returns:
      out [B, T, N, H] in q's dtype, accumulated in fp32; with return_lse also fp32 [B, T, N]. A query that sees
      no key gives zeros. For checkpoint policies, what the gradient keeps of it is named "attention".

    Raises:
      ValueError: shapes, dtypes or an implementation that do not fit.
    """
    if q.ndim != 4 or k.ndim != 4 or k.shape != v.shape:
        raise ValueError(f"attention: q must be [B,T,N,H], k and v [B,S,K,H]; got {q.shape}, {k.shape}, {v.shape}")
    check_floats("attention", q=q, k=k, v=v)
    B, T, N, H = q.shape
    if k.shape[0] != B or k.shape[3] != H:
        raise ValueError(f"attention: q {q.shape} and k {k.shape} differ in batch or head dim")
    if N % k.shape[2]:
        raise ValueError(f"attention: {N} query heads do not group over {k.shape[2]} key/value heads")
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
    masks = {
        "q_segment_ids": q_segment_ids,
        "kv_segment_ids": kv_segment_ids,
        "q_positions": q_positions,
        "kv_positions": kv_positions,
        "causal": causal,
        "scale": H**-0.5 if scale is None else scale,
    }
    name = choose("attention", BACKENDS, implementation, q, k, v, **masks, return_lse=return_lse)
    out, lse = _on_mesh(name, q, k, v, masks)
    return (out, lse) if return_lse else out


def _on_mesh(name: str, q, k, v, masks):
    """The back end on the current mesh: cut over batch and heads, and over the sequence when the mesh has `context`."""
    run, mesh = BACKENDS[name].run, partition.automatic()
    count = mesh.get(partition.TIME, 1)
    fits = _cannot_be_cut(q, k, masks) is None
    if not mesh or (name in PARTITIONED_BY_XLA and not (count > 1 and fits and name == "xla")):
        return run(q, k, v, **masks)
    segments = masks["q_segment_ids"], masks["kv_segment_ids"]
    fixed = {"causal": masks["causal"], "scale": masks["scale"]}

    def local(q, k, v, *segments):
        q_segments, kv_segments = segments or (None, None)
        if count == 1:
            return run(
                q, k, v, q_segment_ids=q_segments, kv_segment_ids=kv_segments,
                q_positions=None, kv_positions=None, **fixed,
            )  # fmt: skip
        ring = context.Ring(
            partial(run, q_positions=None, kv_positions=None, scale=masks["scale"]),
            partial(GRADIENTS[name], scale=masks["scale"]), partition.TIME, count, masks["causal"],
        )  # fmt: skip
        return context.attention(ring, q, k, v, q_segments, kv_segments)

    heads = partition.spec(partition.BATCH, partition.TIME, partition.HEADS, None)
    ids = partition.spec(partition.BATCH, partition.TIME)
    segments = () if segments[0] is None else segments
    in_specs = (heads, heads, heads, *(ids for _ in segments))
    lse = partition.spec(partition.BATCH, partition.TIME, partition.HEADS)
    return partition.over_mesh(local, in_specs, (heads, lse))(q, k, v, *segments)


def _cannot_be_cut(q, k, masks: Mapping[str, Any]) -> str | None:
    """Why the kernels cannot run on the current mesh, or None."""
    if masks["q_positions"] is not None or masks["kv_positions"] is not None:
        return "q_positions or kv_positions are given; use 'xla'" if partition.automatic() else None
    if masks["causal"] and q.shape[1] != k.shape[1] and partition.automatic().get(partition.TIME, 1) > 1:
        return f"causal with {q.shape[1]} queries and {k.shape[1]} keys over the mesh axis context; use 'xla'"
    count = partition.automatic().get(partition.TIME, 1)
    T = q.shape[1]
    chunks = T if count == 1 else T // 2 if T % 2 == 0 else 1  # two to a device
    return partition.refuses(
        "attention",
        batch=(q.shape[0], partition.BATCH),
        time=(chunks, partition.TIME),
        keys=(k.shape[1], partition.TIME),
        query_heads=(q.shape[2], partition.HEADS),
        kv_heads=(k.shape[2], partition.HEADS),
    )
