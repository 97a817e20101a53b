"""The key/value cache of an engine: slots of a fixed capacity, sharded like the weights, optionally in int8.

One array per layer, [S, K, C, H] (S slots, K key/value heads, C capacity in tokens, H head dim): batch dims of the
attention's matmuls lead, so that nothing is transposed. A block of decode steps reads a window of it (some slots, the first
so many tokens) and keeps its own tokens apart (`Recent`); they are added at the end of the block. The cost of
a step so depends on the window and not on the capacity.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from opencoder_jax import sharding
from opencoder_jax.config import ModelConfig

Array = jax.Array
AXES = ("batch", "kv_heads", None, "head_dim")
MASKED = -1e30


class Store(NamedTuple):
    """Keys or values of one layer. data [S, K, C, H] in the compute dtype or int8; scale fp32 [S, K, C] of int8, else None."""

    data: Array
    scale: Array | None


class Layer(NamedTuple):
    k: Store
    v: Store


Cache = tuple[Layer, ...]


def make(cfg: ModelConfig, slots: int, capacity: int, *, int8: bool = False, mesh: Mesh | None = None) -> Cache:
    """An empty cache; on a mesh slots are sharded over data and fsdp, heads over tensor."""
    shape = (slots, cfg.num_kv_heads, capacity, cfg.head_dim)
    layout = None if mesh is None else NamedSharding(mesh, sharding.spec(*AXES))
    scales = None if mesh is None else NamedSharding(mesh, sharding.spec(*AXES[:3]))

    def store() -> Store:
        data = jnp.zeros(shape, jnp.int8 if int8 else cfg.compute_dtype, device=layout)
        return Store(data, jnp.zeros(shape[:3], jnp.float32, device=scales) if int8 else None)

    return tuple(Layer(store(), store()) for _ in range(cfg.num_layers))


def bytes_per_token(cfg: ModelConfig, *, int8: bool = False) -> int:
    """Of all layers, keys and values."""
    each = cfg.head_dim + 4 if int8 else cfg.head_dim * jnp.dtype(cfg.compute_dtype).itemsize
    return 2 * cfg.num_layers * cfg.num_kv_heads * each


def pack(x: Array, like: Store) -> Store:
    """x [..., H] as `like` stores it: int8 with one scale per token and head, or as it is.

    What is not finite becomes 0: it is reported through the logits, and the slot's next tenant multiplies it by 0.
    """
    x = jnp.where(jnp.isfinite(x), x, 0)
    if like.scale is None:
        return Store(x.astype(like.data.dtype), None)
    wide = x.astype(jnp.float32)
    scale = jnp.maximum(jnp.abs(wide).max(-1), jnp.finfo(jnp.float32).tiny) / 127
    return Store(jnp.round(wide / scale[..., None]).astype(jnp.int8), scale)


def write_prompts(layer: Layer, slots: Array, k: Array, v: Array) -> Layer:
    """Prompts into the beginnings of slots. Args: slots int32 [R], those that do not exist are left out; k, v [R, T, K, H]."""

    def put(store: Store, x: Array) -> Store:
        new = pack(x.transpose(0, 2, 1, 3), store)
        T = x.shape[1]
        return jax.tree.map(lambda old, part: old.at[slots, :, :T].set(part, mode="drop"), store, new)

    return Layer(put(layer.k, k), put(layer.v, v))


def window(layer: Layer, slots: Array | None, span: int) -> Layer:
    """The first `span` tokens of some slots (None: of all, in their order)."""
    take = lambda x: x[:, :, :span] if slots is None else x.at[slots, :, :span].get(mode="clip")  # noqa: E731
    return jax.tree.map(take, layer)


def append(layer: Layer, slots: Array | None, lengths: Array, recent: Layer) -> Layer:
    """A block's tokens [W, K, T, H] after the first `lengths` [W] tokens of their slots; what exceeds them is left out."""
    W, _, T = recent.k.data.shape[:3]
    rows = jnp.arange(W) if slots is None else slots
    at = lengths[:, None] + jnp.arange(T)

    def put(old: Array, new: Array) -> Array:  # indices [W, T] before the sliced heads: new as [W, T, K, ...]
        return old.at[rows[:, None], :, at].set(jnp.moveaxis(new, 2, 1), mode="drop")

    return jax.tree.map(put, layer, recent)


def attend(q: Array, old: Layer, recent: Layer, lengths: Array, step: Array) -> Array:
    """One token's attention over a window and the tokens of its block so far, its own included.

    Args:
      q: [W, 1, N, H]. old: window [W, K, span, H], valid below `lengths` [W]. recent: [W, K, T, H], valid up to `step`.
    Returns: [W, 1, N, H] in q's dtype, softmax in fp32.
    """
    W, _, N, H = q.shape
    K, span, T = old.k.data.shape[1], old.k.data.shape[2], recent.k.data.shape[2]
    q = q.reshape(W, K, N // K, H)

    def scores(store: Store, valid: Array) -> Array:
        s = jnp.einsum("wkgh,wkth->wkgt", q, store.data.astype(q.dtype), preferred_element_type=jnp.float32)
        s = s if store.scale is None else s * store.scale[:, :, None]
        return jnp.where(valid, s * H**-0.5, MASKED)

    before = scores(old.k, (jnp.arange(span) < lengths[:, None])[:, None, None])
    now = scores(recent.k, jnp.arange(T) <= step)
    peak = jnp.maximum(before.max(-1, keepdims=True), now.max(-1, keepdims=True))
    before, now = jnp.exp(before - peak), jnp.exp(now - peak)
    total = before.sum(-1, keepdims=True) + now.sum(-1, keepdims=True)

    def values(p: Array, store: Store) -> Array:
        p = p if store.scale is None else p * store.scale[:, :, None]
        data = store.data.astype(q.dtype)
        return jnp.einsum("wkgt,wkth->wkgh", p.astype(q.dtype), data, preferred_element_type=jnp.float32)

    out = (values(before, old.v) + values(now, recent.v)) / total
    return out.reshape(W, 1, N, H).astype(q.dtype)
