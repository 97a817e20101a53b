"""Attention for any platform: blocks of queries against the keys that they can see, nothing of size T x S kept.

The gradient recomputes the probabilities of a block from the log-sum-exp (FlashAttention, arXiv 2205.14135, section
3.1), so that q, k, v, out and lse are all that a layer saves. Query blocks are laid out when the program is built: for
plain causal attention a block is multiplied with the keys up to its own end only, which halves the work.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from opencoder_kernels.attention import reference, residuals
from opencoder_kernels.varying import zeros

# Query blocks written out in the program; each one costs compile time and saves causal work, (1 + 1/n)/2 of T x S left.
MAX_BLOCKS = 16
MIN_BLOCK = 128
# Scores alive at once (fp32: 256 MB); a block with more is split again, in a loop.
MAX_SCORES = 2**26
# lse of a padded row: its probabilities come out as 0.
PADDED = 1e30


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    q_segment_ids: jax.Array | None,
    kv_segment_ids: jax.Array | None,
    q_positions: jax.Array | None,
    kv_positions: jax.Array | None,
    causal: bool,
    scale: float,
) -> tuple[jax.Array, jax.Array]:
    """See `opencoder_kernels.attention`; positions None mean 0, 1, ..., and let causal blocks be skipped."""
    return _attention((causal, scale), q, k, v, q_segment_ids, kv_segment_ids, q_positions, kv_positions)


def _blocks(T: int, S: int, skip: bool) -> list[tuple[int, int, int]]:
    """(first query, end, end of its keys) of every query block."""
    if not skip:
        return [(0, T, S)]
    size = -(-T // min(MAX_BLOCKS, -(-T // MIN_BLOCK)))
    return [(i, min(i + size, T), min(i + size, T, S)) for i in range(0, T, size)]


def _pieces(rows_per_call: int, rows, pads):
    """rows (each [B, n, ...] or None) split along dim 1 into pieces of a size: [pieces, B, size, ...]."""
    n = next(x.shape[1] for x in rows if x is not None)
    num = -(-n // rows_per_call)
    size = -(-n // num)

    def split(x, pad):
        if x is None:
            return None
        x = jnp.pad(x, [(0, 0), (0, num * size - n)] + [(0, 0)] * (x.ndim - 2), constant_values=pad)
        return jnp.moveaxis(x.reshape(x.shape[0], num, size, *x.shape[2:]), 1, 0)

    return tuple(split(x, pad) for x, pad in zip(rows, pads, strict=True))


def _joined(x, n: int):
    """The inverse of `_pieces` for a result, n long."""
    x = jnp.moveaxis(x, 0, 1)
    return x.reshape(x.shape[0], -1, *x.shape[3:])[:, :n]


def _chunked(rows_per_call: int, f, rows, pads):
    """f over pieces of `rows` (each [B, n, ...] or None) along dim 1; results are joined along dim 1 again."""
    n = next(x.shape[1] for x in rows if x is not None)
    if n <= rows_per_call:
        return f(rows)
    return jax.tree.map(lambda x: _joined(x, n), jax.lax.map(f, _pieces(rows_per_call, rows, pads)))


def _mask(q_positions, kv_positions, q_segments, kv_segments, causal):
    """Which key each query of a block sees, bool [B or 1, t, s], or None for all; positions [1, t] and [s]."""
    mask = q_positions[:, :, None] >= kv_positions[None, None, :] if causal else None
    if q_segments is None:
        return mask
    same = q_segments[:, :, None] == kv_segments[:, None, :]
    return same if mask is None else mask & same


def _setup(q, k, q_positions, kv_positions, causal):
    T, S = q.shape[1], k.shape[1]
    blocks = _blocks(T, S, causal and q_positions is None and kv_positions is None)
    q_positions = (jnp.arange(T) if q_positions is None else q_positions)[None]
    kv_positions = jnp.arange(S) if kv_positions is None else kv_positions
    return blocks, q_positions, kv_positions


def _rows(q, keys: int) -> int:
    """Queries whose scores against `keys` keys may be alive at once."""
    return max(MIN_BLOCK, MAX_SCORES // (q.shape[0] * q.shape[2] * keys))


def _cut(x, start, end):
    return None if x is None else x[:, start:end]


def _run(static, q, k, v, q_segments, kv_segments, q_positions, kv_positions):
    causal, scale = static
    blocks, q_positions, kv_positions = _setup(q, k, q_positions, kv_positions, causal)
    parts = []
    for start, end, keys in blocks:
        k_seen, v_seen, segments = k[:, :keys], v[:, :keys], _cut(kv_segments, 0, keys)

        def block(rows, k_seen=k_seen, v_seen=v_seen, segments=segments, keys=keys):
            q_rows, positions, q_segment_rows = rows
            mask = _mask(positions, kv_positions[:keys], q_segment_rows, segments, causal)
            return reference.attend(q_rows, k_seen, v_seen, mask, scale)

        q_rows = q[:, start:end]
        if parts:  # one block after another: without this order all of their scores are alive at once
            q_rows, _ = jax.lax.optimization_barrier((q_rows, parts[-1]))
        rows = (q_rows, q_positions[:, start:end], _cut(q_segments, start, end))
        parts.append(_chunked(_rows(q, keys), block, rows, (0, 0, 0)))
    if len(parts) == 1:
        return parts[0]
    return tuple(jnp.concatenate(x, axis=1) for x in zip(*parts, strict=True))


def gradients(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    d_out: jax.Array,
    lse: jax.Array,
    delta: jax.Array,
    *,
    q_segment_ids: jax.Array | None,
    kv_segment_ids: jax.Array | None,
    causal: bool,
    scale: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The backward pass for these keys alone, of queries that may see others too.

    Args:
      lse: log-sum-exp of each query's scores over all its keys, fp32 (or wider) [B, T, N].
      delta: out . d out - d lse of each query, out being over all its keys; like lse. d score is p (d out . v - delta):
        what it takes of the other keys is in these two.
      The others: as for `opencoder_kernels.attention`.
    Returns: (dq, dk, dv) in lse's dtype; dq is these keys' part.
    """
    return _gradients((causal, scale), q, k, v, d_out, lse, delta, q_segment_ids, kv_segment_ids, None, None)


def _gradients(static, q, k, v, d_out, lse, delta, q_segments, kv_segments, q_positions, kv_positions):
    causal, scale = static
    wide = lse.dtype
    may_be_blind = q_segments is not None or (causal and (q_positions is not None or kv_positions is not None))
    blocks, q_positions, kv_positions = _setup(q, k, q_positions, kv_positions, causal)
    B, _, N, H = q.shape
    K, G = k.shape[2], N // k.shape[2]
    dk, dv = jnp.zeros(k.shape, wide), jnp.zeros(v.shape, wide)
    dqs = []
    for start, end, keys in blocks:
        k_seen, v_seen, segments = k[:, :keys], v[:, :keys], _cut(kv_segments, 0, keys)

        def block(rows, k_seen=k_seen, v_seen=v_seen, segments=segments, keys=keys):
            q_rows, do_rows, delta_rows, lse_rows, positions, q_segment_rows = rows
            t = q_rows.shape[1]
            mask = _mask(positions, kv_positions[:keys], q_segment_rows, segments, causal)
            q_rows, do_rows = (x.reshape(B, t, K, G, H) for x in (q_rows, do_rows))
            lse_rows, delta_rows = (
                x.reshape(B, t, K, G).transpose(0, 2, 3, 1)[..., None] for x in (lse_rows, delta_rows)
            )
            p = jnp.exp(reference.scores(q_rows, k_seen, scale, mask) - lse_rows)
            if may_be_blind and mask is not None:  # a row that sees no key has an lse as low as its masked scores
                p = jnp.where(mask[:, None, None], p, 0)
            dv_part = jnp.einsum("bkgts,btkgh->bskh", p.astype(do_rows.dtype), do_rows, preferred_element_type=wide)
            dp = jnp.einsum("btkgh,bskh->bkgts", do_rows, v_seen, preferred_element_type=wide)
            ds = (p * (dp - delta_rows) * scale).astype(q_rows.dtype)
            dq = jnp.einsum("bkgts,bskh->btkgh", ds, k_seen, preferred_element_type=wide)
            dk_part = jnp.einsum("bkgts,btkgh->bskh", ds, q_rows, preferred_element_type=wide)
            return dq.reshape(B, t, N, H), dk_part, dv_part

        q, dk, dv = jax.lax.optimization_barrier((q, dk, dv))  # one block after another, as above
        rows = tuple(_cut(x, start, end) for x in (q, d_out, delta, lse, q_positions, q_segments))
        if end - start <= _rows(q, keys):
            dq, dk_part, dv_part = block(rows)
        else:
            dq, dk_part, dv_part = _summed(_rows(q, keys), block, rows, (0, 0, 0, PADDED, 0, 0), (k, v))
        dk, dv = _add(dk, dk_part), _add(dv, dv_part)
        dqs.append(dq)
    return jnp.concatenate(dqs, axis=1) if len(dqs) > 1 else dqs[0], dk, dv


def _add(x, part):
    """x with `part` added to the start of dim 1.

    Not x.at[:, :n].add(part): where n is all of dim 1 its empty index becomes an argument of the shard_map around, and the
    compiler of jaxlib 0.11.2 crashes.
    """
    return jax.lax.dynamic_update_slice(x, x[:, : part.shape[1]] + part, (0,) * x.ndim)


def _summed(rows_per_call, block, rows, pads, closed_over):
    """`block` over pieces of the queries: dq joined, dk and dv summed over the pieces."""
    pieces = _pieces(rows_per_call, rows, pads)
    shapes = jax.eval_shape(block, jax.tree.map(lambda x: x[0], pieces))

    def step(sums, piece):
        dq, dk, dv = block(piece)
        return (sums[0] + dk, sums[1] + dv), dq

    arrays = jax.tree.leaves((pieces, *closed_over))
    start = tuple(zeros(x.shape, x.dtype, *arrays) for x in shapes[1:])
    (dk, dv), dq = jax.lax.scan(step, start, pieces)
    return _joined(dq, rows[0].shape[1]), dk, dv


_attention = residuals.with_gradient(_run, _gradients)
