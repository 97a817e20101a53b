"""Attention on TPU: the splash kernels that JAX ships, with this package's masks, padding and log-sum-exp gradient.

A thin use and no kernel of our own: splash attention has grouped heads, segment ids, causal blocks left out and any head
dim (lanes are padded to 128 in registers, not in memory), and is what MaxText trains with. It reads which blocks to
compute from an array, which it makes of the causal mask alone; here that array is made on the device, of the segment ids
too, so that blocks of documents that share no segment are not computed. Its own gradient has no log-sum-exp cotangent, so its
two backward kernels are called here with d out . out - d lse in the place of d out . out.

Its kernels take no scale: q is scaled before them and rounded to its dtype again. In bf16, with a scale that is not a power of
2, the log-sum-exp is that of the rounded q, off by some 1e-3 where 'xla' errs by 1e-7, so that it is not given out; the ring
of `context.py` may use it, all of whose parts round alike. Out and gradients stay within 1.5 times the error of 'xla'
(tests). The interpreter leaves unproven, besides what `tpu_device.py` says, the matmul of
probabilities and values, which are fp32 in those kernels, and the batched kernels: there rows go one after another.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from opencoder_kernels import tpu_device
from opencoder_kernels.attention import blocks, padding, residuals
from opencoder_kernels.interpret import is_interpreted
from opencoder_kernels.varying import unchecked

# Queries and keys to a block, largest first; every one divides the padded lengths or the next is taken.
BLOCKS = (1024, 512, 256, 128)
# Below this a log-sum-exp is that of a row without any visible key.
BLIND = -1e20


def unsupported(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    q_positions: jax.Array | None,
    kv_positions: jax.Array | None,
    causal: bool,
    scale: float,
    return_lse: bool = False,
    **_: Any,
) -> str | None:
    if q.dtype not in (jnp.bfloat16, jnp.float32):
        return f"q, k, v are {q.dtype}; it takes bfloat16 and float32; cast them, or use 'xla'"
    if q_positions is not None or kv_positions is not None:
        return "q_positions and kv_positions are given; it counts from 0; use 'xla'"
    if causal and q.shape[1] != k.shape[1]:
        return f"causal with {q.shape[1]} queries and {k.shape[1]} keys; it wants as many of each; use 'xla'"
    if return_lse and q.dtype == jnp.bfloat16 and math.frexp(scale)[0] != 0.5:
        return (
            f"return_lse is set, bfloat16 q is rounded with the scale {scale:.4g}, which is not a power of 2, and the "
            "log-sum-exp would be off by 1e-3; cast q, k, v to float32, or use 'xla'"
        )
    return tpu_device.unsupported()


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    q_positions: jax.Array | None,
    kv_positions: jax.Array | None,
    **masks: Any,
) -> tuple[jax.Array, jax.Array]:
    """See `opencoder_kernels.attention`."""
    del q_positions, kv_positions
    return padding.padded(_attention, q, k, v, **masks)


def _kernels(q, k, causal: bool):
    """segment ids of one row -> splash kernels for q [B, T, N, H], k [B, S, K, H]."""
    T, S = q.shape[1], k.shape[1]
    # Wide heads take two rows of lanes: with the largest blocks the ring's kernels ask for more VMEM than a v5p grants.
    largest = BLOCKS[0] if q.shape[3] <= 128 else BLOCKS[1]
    block_q, block_kv = (next(b for b in BLOCKS if b <= largest and n % b == 0) for n in (T, S))
    mask = masks.MultiHeadMask([masks.CausalMask((T, S)) if causal else masks.FullMask((T, S))] * q.shape[2])
    sizes = splash.BlockSizes(
        block_q=block_q, block_kv=block_kv, block_kv_compute=block_kv, block_q_dkv=block_q, block_kv_dkv=block_kv,
        block_kv_dkv_compute=block_kv, block_q_dq=block_q, block_kv_dq=block_kv,
    )  # fmt: skip
    every = splash.make_splash_mha(mask, block_sizes=sizes, head_shards=1, q_seq_shards=1, save_residuals=True)

    def for_row(segments: splash.SegmentIds | None):
        if segments is None:
            return every
        some = blocks.visibility(segments.q, segments.kv, T, S, block_q, block_kv, causal)[0][0]
        num_q, num_kv = some.shape
        by_queries = _available(some.reshape(1, -1), num_kv).reshape(some.shape)
        by_keys = _available(some.T, num_q).T

        def where_computed(info, available):
            return info._replace(data_next=available[None], block_mask=some[None].astype(jnp.int8), mask_next=None)

        return splash.SplashAttentionKernel(
            where_computed(every.fwd_mask_info, by_queries),
            where_computed(every.dq_mask_info, by_queries),
            where_computed(every.dkv_mask_info, by_keys),
            **every.kwargs,
        )

    return for_row


def _available(computed, num: int):
    """Block to hold at each step, of `num`: the one computed then, or the next that is; after a row's last its first.

    Args: computed: bool [rows, steps], in the order of a kernel's grid; step i is block i % num.
    Returns: [rows, steps], as small as splash attention makes it, since it is kept in scalar memory.
    """
    steps = computed.shape[1]
    following = jnp.where(computed, jnp.arange(steps), steps)
    following = jax.lax.cummin(following, axis=1, reverse=True)
    following = jnp.where(following < steps, following, following[:, :1]) % num
    return following.astype(jnp.int8 if num <= 128 else jnp.int16)


def _segments(q_segments, kv_segments):
    return None if q_segments is None else splash.SegmentIds(q_segments, kv_segments)


def _each_row(f, segments, *args):
    """f(segments, *args) over the batch; one row after another where each has blocks of its own, or is interpreted."""
    if segments is not None or is_interpreted("tpu"):
        return unchecked(lambda *args: jax.lax.map(lambda row: f(*row), args))(segments, *args)
    return unchecked(jax.vmap(f))(segments, *args)


def _heads_first(x):
    return x.swapaxes(1, 2)


def _run(static, q, k, v, q_segments, kv_segments):
    causal, scale = static
    kernels = _kernels(q, k, causal)
    out, (lse,) = _each_row(
        lambda segments, *qkv: kernels(segments)(*qkv, segments),
        _segments(q_segments, kv_segments),
        *map(_heads_first, ((q * scale).astype(q.dtype), k, v)),
    )
    out, lse = _heads_first(out), _heads_first(lse)
    # A row for which no block was computed comes out as NaN, its log-sum-exp as minus infinity.
    return jnp.where((lse > BLIND)[..., None], out, 0), jnp.maximum(lse, splash.DEFAULT_MASK_VALUE)


def gradients(
    q: jax.Array, k: jax.Array, v: jax.Array, d_out: jax.Array, lse: jax.Array, delta: jax.Array, **masks: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """See `xla.gradients`; the results have the inputs' dtype."""
    return padding.padded_gradients(_gradients, q, k, v, d_out, lse, delta, **masks)


def _gradients(static, q, k, v, d_out, lse, delta, q_segments, kv_segments):
    causal, scale = static
    seen = lse > BLIND
    d_out, delta = jnp.where(seen[..., None], d_out, 0), jnp.where(seen, delta, 0)
    kernels = _kernels(q, k, causal)

    def one(segments, q, k, v, lse, d_out, delta):
        kernel = kernels(segments)
        sizes = kernel.kwargs["block_sizes"]
        args = (q, k, v, segments, None, lse, d_out, delta)
        common = {
            name: kernel.kwargs[name]
            for name in ("is_mqa", "mask_value", "attn_logits_soft_cap", "mask_function", "interpret")
        } | {"q_layout": sizes.q_layout, "k_layout": sizes.k_layout, "v_layout": sizes.v_layout}
        assert kernel.dq_mask_info is not None
        assert kernel.dkv_mask_info is not None
        _, dk, dv = splash._splash_attention_bwd_dkv(
            *args, bq=sizes.block_q_dkv, bkv=sizes.block_kv_dkv, bkv_compute=sizes.block_kv_dkv_compute,
            mask_info=kernel.dkv_mask_info, use_fused_bwd_kernel=False, **common,
        )  # fmt: skip
        dq = splash._splash_attention_bwd_dq(
            *args, bq=sizes.block_q_dq, bkv=sizes.block_kv_dq, mask_info=kernel.dq_mask_info, **common
        )
        return dq, dk, dv

    dq, dk, dv = _each_row(
        one,
        _segments(q_segments, kv_segments),
        *map(_heads_first, ((q * scale).astype(q.dtype), k, v, lse, d_out, delta)),
    )
    return (_heads_first(dq) * scale).astype(q.dtype), _heads_first(dk), _heads_first(dv)


_attention = residuals.with_gradient(_run, _gradients)
