"""Ring attention: attention over a sequence that is sharded over a mesh axis, without any device holding all of it.

Each of C devices keeps its query block; key/value blocks travel around the ring of devices, C - 1 steps, while the block
that is present is attended to, and the partial results are merged by their log-sum-exps (Ring Attention, arXiv 2310.01889).

With a causal mask the device that holds the end of the sequence would do nearly all the work. So the sequence is seen as
2 C chunks; device i holds chunks 2i and 2i + 1 and computes chunks i and 2C - 1 - i instead: the zig-zag order of Megatron's
and TransformerEngine's context parallelism (Striped Attention, arXiv 2311.09431, distributes single tokens to the same
end). Step 0, a device's own keys: plain causal attention over its two chunks. Later steps: keys of an earlier device are
seen by both query chunks, but only its low chunk; keys of a later device are seen by the high query chunk, both of them.

              keys of an earlier device        keys of a later device
                  low     high                     low     high
    low query     full    masked        low query  masked  masked
    high query    full    masked        high query full    full

Either way two blocks of chunk x chunk without a mask: every device runs the same program, no masked block is computed,
and the program does not grow with C.

The backward pass is a ring of its own. A step is FlashAttention's backward pass of its blocks with the log-sum-exp over
*all* keys (arXiv 2205.14135, section 3.1), so that q, k, v, out and the log-sum-exp are all that is saved, whatever C,
and nothing is computed twice. Sums over steps are fp32; a step's summands have the kernels' precision.

Keys and values travel as one array, their gradients as another, so that one message of each is in flight at a time;
segment ids, 4 bytes a token, are all-gathered. Bytes that a device sends, S/C the keys it holds, K x H values each, bf16:
forward 4 S/C K H (C - 1), backward as many and 8 S/C K H C of fp32 gradients. All-gathering keys and values instead
(Llama 3, arXiv 2407.21783, section 3.3.2) sends 4 S/C K H (C - 1) each way, with gradients summed in bf16, but waits for
the keys before the first matmul and for the gradients after the last, and holds 4 S K H forward, 8 S K H backward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from opencoder_kernels.attention import residuals

# Named scope of the steps after the first, by which a profile or a plan knows that their kernels skip no block.
UNMASKED = "unmasked"


@dataclass(frozen=True)
class Ring:
    """Attributes:
    run: attention of one device, (q, k, v, *, q_segment_ids, kv_segment_ids, causal) -> (out, lse).
    gradients: (q, k, v, d_out, lse, delta, *, q_segment_ids, kv_segment_ids, causal) -> (dq, dk, dv); see `xla.gradients`.
    axis, count: mesh axis that is manual here, and its size C.
    causal: queries and keys are the same positions of the sequence, and a query sees no key after its own.
    """

    run: Callable[..., Any]
    gradients: Callable[..., Any]
    axis: str
    count: int
    causal: bool

    def shift(self, x: jax.Array) -> jax.Array:
        """x one device further; what device i gets at step s set out from device i - s."""
        return jax.lax.ppermute(x, self.axis, [(d, (d + 1) % self.count) for d in range(self.count)])

    def shard(self, *arrays: jax.Array) -> jax.Array:
        """Arrays of one shape [B, T, ...], stacked, and zig-zag sharded where causal: chunks 2i, 2i + 1 -> i, 2 count - 1 - i."""
        x = jnp.stack(arrays)
        return zigzag_shard(x, self.axis, self.count) if self.causal else x

    def unshard(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """The inverse of `shard`."""
        return tuple(zigzag_unshard(x, self.axis, self.count) if self.causal else x)

    def segments(self, ids: jax.Array | None) -> Callable[[jax.Array], jax.Array | None]:
        """Function of a device: segment ids [B, T] of what `shard` gives it, from those [B, T] that each holds; or None."""
        if ids is None:
            return lambda device: None
        chunks = 2 * self.count if self.causal else self.count
        everywhere = jax.lax.all_gather(ids, self.axis, axis=1, tiled=True).reshape(ids.shape[0], chunks, -1)

        def of(device):
            indices = [device, chunks - 1 - device] if self.causal else [device]
            return jnp.concatenate([jax.lax.dynamic_index_in_dim(everywhere, i, 1, False) for i in indices], axis=1)

        return of

    def steps(self, step: Callable[..., Any], carry: Any) -> Any:
        """carry after step(s, carry, is_last) for s = 1 ... count - 1; all but the last in a loop."""
        last, step = self.count - 1, jax.named_scope(UNMASKED)(step)
        if last > 1:
            carry = jax.lax.fori_loop(1, last, lambda s, carry: step(s, carry, False), carry)
        return step(last, carry, True)


def attention(
    ring: Ring,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    q_segment_ids: jax.Array | None,
    kv_segment_ids: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """Within shard_map over the ring's axis: each array is this device's part of the sequence.

    Args: q [B, T, N, H]; k, v [B, S, K, H]; segment ids int32 [B, T], [B, S], or None; T and S divisible by 2 if causal.
    Returns: (out [B, T, N, H] in q's dtype, lse [B, T, N]) of this device's queries over the keys of all devices.
    """
    return _attention(ring, q, k, v, q_segment_ids, kv_segment_ids)


def _run(ring: Ring, q, k, v, q_segments, kv_segments):
    device = jax.lax.axis_index(ring.axis)
    q_segments, kv_segments = ring.segments(q_segments)(device), ring.segments(kv_segments)
    queries, keys = ring.shard(q), ring.shard(k, v)

    def attend(queries, keys, q_segments, kv_segments, causal=False):
        return ring.run(
            queries[0], keys[0], keys[1], q_segment_ids=q_segments, kv_segment_ids=kv_segments, causal=causal
        )

    out, lse = attend(queries, keys, q_segments, kv_segments(device), ring.causal)

    def step(s, carry, is_last):
        keys, total = carry
        # Sent while the keys that are present are attended to.
        following = keys if is_last else ring.shift(keys)
        here = kv_segments((device - s) % ring.count)
        if not ring.causal:
            return following, merge(total, attend(queries, keys, q_segments, here))
        earlier = s <= device
        out, lse = attend(*_blocks(queries, keys, q_segments, here, earlier))
        return following, merge(total, *_by_chunk(out, lse, earlier))

    _, (out, lse) = ring.steps(step, (ring.shift(keys), (out.astype(lse.dtype), lse)))
    return *ring.unshard(out.astype(q.dtype)[None]), *ring.unshard(lse[None])


def _gradients(ring: Ring, q, k, v, d_out, lse, delta, q_segments, kv_segments):
    device = jax.lax.axis_index(ring.axis)
    q_segments, kv_segments = ring.segments(q_segments)(device), ring.segments(kv_segments)
    queries, statistics, keys = ring.shard(q, d_out), ring.shard(lse, delta), ring.shard(k, v)

    def differentiate(queries, statistics, keys, q_segments, kv_segments, causal=False):
        masks = {"q_segment_ids": q_segments, "kv_segment_ids": kv_segments, "causal": causal}
        dq, dk, dv = ring.gradients(queries[0], *keys, queries[1], *statistics, **masks)
        return dq.astype(lse.dtype), jnp.stack([dk, dv]).astype(lse.dtype)

    dq, d_keys = differentiate(queries, statistics, keys, q_segments, kv_segments(device), ring.causal)

    def step(s, carry, is_last):
        keys, d_keys, dq = carry
        # The gradient sums follow the keys they belong to, one step behind: both are sent while this step computes.
        following, d_keys = keys if is_last else ring.shift(keys), ring.shift(d_keys)
        here = kv_segments((device - s) % ring.count)
        if not ring.causal:
            dq_part, d_keys_part = differentiate(queries, statistics, keys, q_segments, here)
        else:
            earlier = s <= device
            both, keys, q_ids, kv_ids = _blocks(queries, keys, q_segments, here, earlier)
            dq_part, d_keys_part = differentiate(both, _seeing(statistics, earlier), keys, q_ids, kv_ids)
            dq_part, d_keys_part = _summed(dq_part[None], earlier, 1)[0], _summed(d_keys_part, earlier, 0)
        return following, d_keys + d_keys_part, dq + dq_part

    _, d_keys, dq = ring.steps(step, (ring.shift(keys), d_keys, dq))
    d_keys = ring.shift(d_keys)  # back to the device that holds these keys
    return *ring.unshard(dq.astype(q.dtype)[None]), *ring.unshard(d_keys.astype(k.dtype))


_attention = residuals.with_gradient(_run, _gradients)


def merge(*parts: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """(out, lse) over all of several disjoint sets of keys, from (out, lse) over each; out comes in lse's dtype."""
    outs, lses = zip(*parts, strict=True)
    lse = jax.nn.logsumexp(jnp.stack(lses), axis=0)
    total = jnp.zeros_like(outs[0], lse.dtype)
    for out, part in zip(outs, lses, strict=True):
        total += jnp.exp(part - lse)[..., None] * out.astype(lse.dtype)
    return total, lse


# A step after the first has two blocks, one after the other along the batch: high queries x low keys always; then low
# queries x low keys when the keys are of an earlier device, else high queries x high keys. Arrays are [n, B, T, ...].


def _seeing(x, earlier):
    """Of queries: [n, B, low and high, ...] -> [n, 2 B, chunk, ...] of the two blocks."""
    low, high = jnp.split(x, 2, axis=2)
    return jnp.concatenate([high, jnp.where(earlier, low, high)], axis=1)


def _seen(x, earlier):
    """Of keys, as `_seeing`."""
    low, high = jnp.split(x, 2, axis=2)
    return jnp.concatenate([low, jnp.where(earlier, low, high)], axis=1)


def _blocks(queries, keys, q_segments, kv_segments, earlier):
    """queries, keys and their segment ids ([B, T], or None) as the two blocks."""
    if q_segments is not None:
        q_segments, kv_segments = _seeing(q_segments[None], earlier)[0], _seen(kv_segments[None], earlier)[0]
    return _seeing(queries, earlier), _seen(keys, earlier), q_segments, kv_segments


def _by_chunk(out, lse, earlier):
    """Two parts (out, lse) [B, low and high, ...] from those of the two blocks; lse is -inf where a chunk has no part."""
    (high, either), (lse_high, lse_either) = jnp.split(out, 2), jnp.split(lse, 2)
    lse_low, lse_high_too = jnp.where(earlier, lse_either, -jnp.inf), jnp.where(earlier, -jnp.inf, lse_either)
    nothing = jnp.full_like(lse_high, -jnp.inf)
    return (
        (jnp.concatenate([either, high], axis=1), jnp.concatenate([lse_low, lse_high], axis=1)),
        (jnp.concatenate([either, either], axis=1), jnp.concatenate([nothing, lse_high_too], axis=1)),
    )


def _summed(x, earlier, always: int):
    """Gradients [n, 2 B, chunk, ...] of the two blocks -> [n, B, low and high, ...]; the first block's chunk is `always`."""
    first, second = jnp.split(x, 2, axis=1)
    chunks = [jnp.where(earlier, second, 0), jnp.where(earlier, 0, second)]
    chunks[always] += first
    return jnp.concatenate(chunks, axis=2)


def _owners(count: int) -> list[int]:
    """Device that computes each of 2 x count chunks."""
    return [min(chunk, 2 * count - 1 - chunk) for chunk in range(2 * count)]


def zigzag_shard(x: jax.Array, axis: str, count: int) -> jax.Array:
    """[n, B, T, ...], each device's chunks 2i and 2i + 1 -> chunks i and 2 count - 1 - i, in order of position."""
    owners = _owners(count)
    i = jax.lax.axis_index(axis)
    even, odd = jnp.split(x, 2, axis=2)
    even = jax.lax.ppermute(even, axis, [(d, owners[2 * d]) for d in range(count)])
    odd = jax.lax.ppermute(odd, axis, [(d, owners[2 * d + 1]) for d in range(count)])
    # Chunk i is even on devices of even index.
    return jnp.where(i % 2 == 0, jnp.concatenate([even, odd], axis=2), jnp.concatenate([odd, even], axis=2))


def zigzag_unshard(x: jax.Array, axis: str, count: int) -> jax.Array:
    """The inverse of `zigzag_shard`."""
    owners = _owners(count)
    i = jax.lax.axis_index(axis)
    low, high = jnp.split(x, 2, axis=2)
    even, odd = jnp.where(i % 2 == 0, low, high), jnp.where(i % 2 == 0, high, low)
    even = jax.lax.ppermute(even, axis, [(owners[2 * d], d) for d in range(count)])
    odd = jax.lax.ppermute(odd, axis, [(owners[2 * d + 1], d) for d in range(count)])
    return jnp.concatenate([even, odd], axis=2)
