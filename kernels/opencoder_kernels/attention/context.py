"""Ring attention: attention over a sequence that is cut over a mesh axis, without any device seeing all of it.

Each of C devices keeps its queries; keys and values travel around the ring of devices, C - 1 steps, while the part that
is at hand is attended to, and the results are merged by their log-sum-exps (Ring Attention, arXiv 2310.01889). With a
causal mask the device that holds the end of the sequence would do nearly all the work: the sequence is seen as 2 C
chunks, device i holds chunks 2i and 2i + 1 and takes chunks i and 2C - 1 - i instead (the zig-zag order of Megatron's and
TransformerEngine's context parallelism; Striped Attention, arXiv 2311.09431, deals out single tokens to the same end).
Own pair: plain causal attention of two chunks. Keys of an earlier device: low and high queries see its low chunk; of a
later one: high queries see both of its chunks. Either is two blocks of chunk x chunk without a mask, so that every
device runs one and the same program, no masked block is computed, and the program does not grow with C.

The backward pass is a ring of its own. A step is FlashAttention's backward pass of its blocks with the log-sum-exp over
*all* keys (arXiv 2205.14135, section 3.1), so that q, k, v, out and the log-sum-exp are all that is saved, whatever C,
and nothing is computed twice. Sums over steps are fp32; a step's summands have the kernels' precision.

Bytes that a device sends, S/C the keys it holds, K x H values each, bf16: forwards 4 S/C K H (C - 1), backwards (keys,
values and their fp32 gradients) 4 S/C K H (C - 1) + 8 S/C K H C. Gathering keys and values whole instead (Llama 3, arXiv
2407.21783, section 3.3.2) sends as many forwards, but waits for them before the first product and holds 4 S K H.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Ring:
    """Attributes:
    run: attention of one device, (q, k, v, *, q_segment_ids, kv_segment_ids, causal) -> (out, lse).
    gradients: (q, k, v, d_out, lse, delta, *, q_segment_ids, kv_segment_ids, causal) -> (dq, dk, dv); see `xla.gradients`.
    axis, count: mesh axis that is manual here, and its size C.
    causal: queries and keys are the same places of the sequence, and a query sees no key behind its own.
    """

    run: Callable[..., Any]
    gradients: Callable[..., Any]
    axis: str
    count: int
    causal: bool

    def attend(self, keys, queries, causal: bool):
        (k, v, kv_segments), (q, q_segments) = keys, queries
        return self.run(q, k, v, q_segment_ids=q_segments, kv_segment_ids=kv_segments, causal=causal)

    def differentiate(self, keys, queries, causal: bool):
        """(dk, dv), dq."""
        (k, v, kv_segments), (q, q_segments, d_out, lse, delta) = keys, queries
        masks = {"q_segment_ids": q_segments, "kv_segment_ids": kv_segments, "causal": causal}
        dq, dk, dv = self.gradients(q, k, v, d_out, lse, delta, **masks)
        return _cast((dk, dv), lse.dtype), dq.astype(lse.dtype)

    def shift(self, tree):
        """Everything one device further; what device i gets at step s set out from device i - s."""
        return jax.lax.ppermute(tree, self.axis, [(d, (d + 1) % self.count) for d in range(self.count)])

    def deal(self, tree):
        """Local chunks 2i, 2i + 1 along dim 1 -> chunks i, 2 count - 1 - i; as it is without a causal mask."""
        return jax.tree.map(lambda x: _deal(x, self.axis, self.count), tree) if self.causal else tree

    def collect(self, tree):
        """The way back of `deal`."""
        return jax.tree.map(lambda x: _collect(x, self.axis, self.count), tree) if self.causal else tree

    def steps(self, step, carry):
        """carry after step(s, carry, is_last) for s = 1 ... count - 1; all but the last in a loop."""
        last = self.count - 1
        if last > 1:
            carry = jax.lax.fori_loop(1, last, lambda s, carry: step(s, carry, False), carry)
        return step(last, carry, True)

    def is_earlier(self, s):
        """Whether the keys that are here at step s belong before this device's low queries, or between low and high."""
        return jax.lax.axis_index(self.axis) >= s


def attention(ring: Ring, q, k, v, q_segment_ids, kv_segment_ids):
    """Within shard_map over the ring's axis: each array is this device's part of the sequence.

    Args: q [B, T, N, H]; k, v [B, S, K, H]; segment ids int32 [B, T], [B, S], or None; T and S divisible by 2 if causal.
    Returns: (out [B, T, N, H] in q's dtype, lse [B, T, N]) of this device's queries over the keys of all devices.
    """
    return _attention(ring, q, k, v, q_segment_ids, kv_segment_ids)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(ring: Ring, q, k, v, q_segments, kv_segments):
    keys, queries = ring.deal(((k, v, kv_segments), (q, q_segments)))
    out, lse = ring.attend(keys, queries, ring.causal)
    total = out.astype(lse.dtype), lse

    def step(s, carry, is_last):
        keys, total = carry
        # On its way while the keys that are here are attended to.
        following = keys if is_last else ring.shift(keys)
        if not ring.causal:
            return following, merge(total, ring.attend(keys, queries, False))
        earlier = ring.is_earlier(s)
        part = ring.attend(_seen(keys, earlier), _seeing(queries, earlier), False)
        return following, merge(total, *_by_chunk(part, earlier))

    _, (out, lse) = ring.steps(step, (ring.shift(keys), total))
    return ring.collect((out.astype(q.dtype), lse))


def _forward(ring: Ring, q, k, v, q_segments, kv_segments):
    out, lse = _attention(ring, q, k, v, q_segments, kv_segments)
    return (out, lse), (q, k, v, q_segments, kv_segments, out, lse)


def _backward(ring: Ring, saved, cotangents):
    q, k, v, q_segments, kv_segments, out, lse = saved
    d_out, d_lse = cotangents
    delta = (out.astype(lse.dtype) * d_out.astype(lse.dtype)).sum(-1) - d_lse
    keys, queries = ring.deal(((k, v, kv_segments), (q, q_segments, d_out, lse, delta)))
    d_keys, dq = ring.differentiate(keys, queries, ring.causal)

    def step(s, carry, is_last):
        keys, d_keys, dq = carry
        # The sums follow the keys they belong to, one computation behind: both travel while this step computes.
        following, d_keys = keys if is_last else ring.shift(keys), ring.shift(d_keys)
        if not ring.causal:
            d_keys_part, dq_part = ring.differentiate(keys, queries, False)
        else:
            earlier = ring.is_earlier(s)
            d_keys_part, dq_part = ring.differentiate(_seen(keys, earlier), _seeing(queries, earlier), False)
            d_keys_part = jax.tree.map(lambda x: _summed(x, earlier, always=0), d_keys_part)
            dq_part = _summed(dq_part, earlier, always=1)
        return following, jax.tree.map(jnp.add, d_keys, d_keys_part), dq + dq_part

    _, d_keys, dq = ring.steps(step, (ring.shift(keys), d_keys, dq))
    dk, dv = _cast(ring.shift(d_keys), k.dtype)  # the last step home
    return *ring.collect((dq.astype(q.dtype), dk, dv)), None, None


_attention.defvjp(_forward, _backward)


def merge(*parts):
    """(out, lse) over all of several disjoint sets of keys, from (out, lse) over each; out comes in lse's dtype."""
    outs, lses = zip(*parts, strict=True)
    lse = jax.nn.logsumexp(jnp.stack(lses), axis=0)
    return sum(
        jnp.exp(part - lse)[..., None] * out.astype(lse.dtype) for out, part in zip(outs, lses, strict=True)
    ), lse


# The two blocks of a step after the first stand one after another along the batch: high queries x low keys always; then
# low queries x low keys when the keys are earlier, else high queries x high keys.


def _seeing(queries, earlier):
    """Arrays [B, low and high, ...] of queries -> [2 B, chunk, ...] of the two blocks."""

    def blocks(x):
        low, high = jnp.split(x, 2, axis=1)
        return jnp.concatenate([high, jnp.where(earlier, low, high)])

    return jax.tree.map(blocks, queries)


def _seen(keys, earlier):
    """As `_seeing`, of keys."""

    def blocks(x):
        low, high = jnp.split(x, 2, axis=1)
        return jnp.concatenate([low, jnp.where(earlier, low, high)])

    return jax.tree.map(blocks, keys)


def _by_chunk(part, earlier):
    """(out, lse) of the two blocks [2 B, chunk, ...] as two parts [B, low and high, ...], lse -inf where a chunk has none."""
    (first, second), (lse_first, lse_second) = (jnp.split(x, 2) for x in part)
    none = jnp.full_like(lse_first, -jnp.inf)
    return (
        (
            jnp.concatenate([second, first], axis=1),
            jnp.concatenate([jnp.where(earlier, lse_second, none), lse_first], axis=1),
        ),
        (
            jnp.concatenate([second, second], axis=1),
            jnp.concatenate([none, jnp.where(earlier, none, lse_second)], axis=1),
        ),
    )


def _summed(x, earlier, always: int):
    """Gradient of the two blocks [2 B, chunk, ...] as [B, low and high, ...]; the first block is the chunk `always`."""
    first, second = jnp.split(x, 2)
    chunks = [jnp.where(earlier, second, 0), jnp.where(earlier, 0, second)]
    chunks[always] += first
    return jnp.concatenate(chunks, axis=1)


def _cast(tree, dtype):
    return jax.tree.map(lambda x: x.astype(dtype), tree)


def _owners(count: int) -> list[int]:
    """Device that computes each of 2 x count chunks."""
    return [min(chunk, 2 * count - 1 - chunk) for chunk in range(2 * count)]


def _deal(x, axis: str, count: int):
    owners = _owners(count)
    i = jax.lax.axis_index(axis)
    even, odd = jnp.split(x, 2, axis=1)
    even = jax.lax.ppermute(even, axis, [(d, owners[2 * d]) for d in range(count)])
    odd = jax.lax.ppermute(odd, axis, [(d, owners[2 * d + 1]) for d in range(count)])
    # Chunk i is even on devices of even index.
    return jnp.where(i % 2 == 0, jnp.concatenate([even, odd], axis=1), jnp.concatenate([odd, even], axis=1))


def _collect(x, axis: str, count: int):
    owners = _owners(count)
    i = jax.lax.axis_index(axis)
    low, high = jnp.split(x, 2, axis=1)
    even, odd = jnp.where(i % 2 == 0, low, high), jnp.where(i % 2 == 0, high, low)
    even = jax.lax.ppermute(even, axis, [(owners[2 * d], d) for d in range(count)])
    odd = jax.lax.ppermute(odd, axis, [(owners[2 * d + 1], d) for d in range(count)])
    return jnp.concatenate([even, odd], axis=1)
