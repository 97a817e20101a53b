"""The OpenCoder decoder (paper table 4): Llama's block with RMSNorm, RoPE, grouped-query attention and SwiGLU.

Every weight is declared once, on one line: shape, logical axes, initializer, Hugging Face name. Counts, shardings,
initial values and conversions derive from that line. Layers are stacked along a leading dim and scanned.

Shapes: B batch, T time, D model, N query heads, K key/value heads, H head dim, F feed-forward, V vocabulary, L layers,
S cache length.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from opencoder_kernels import attention, linear_cross_entropy, rms_norm, swiglu

from opencoder_jax import sharding
from opencoder_jax.config import ModelConfig
from opencoder_jax.precision import look_up, project
from opencoder_jax.sharding import RULES, constrain, gather, per_shard

Array = jax.Array
Arrays = dict[str, Any]  # nested: a layer's slices of its weights, or a key/value cache

ACTIVATION = ("batch", "time", "hidden")

# What the backward pass keeps of a layer; the rest is computed again. Names are the checkpoint_name's below, and
# "attention" that of the kernels: the result and the log-sum-exp, so that it is not run again.
_SAVED = ("qkv", "attention", "residual", "gated")
REMAT: dict[str, Callable[..., Any] | None] = {
    "none": None,  # everything
    "dots": jax.checkpoint_policies.save_only_these_names(*_SAVED),  # every matmul's result
    "minimal": jax.checkpoint_policies.save_only_these_names("attention", "residual"),  # attention is not run again
    "full": jax.checkpoint_policies.nothing_saveable,  # the layer's input alone
    "offload": jax.checkpoint_policies.save_and_offload_only_these_names(  # as minimal, in host memory
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=["attention", "residual"],
        offload_src="device",
        offload_dst="pinned_host",
    ),
}


class Weight(nnx.Param):
    """A parameter with its logical axes, its Hugging Face name and how many leading dims are inputs there."""


class Transformer(nnx.Module):
    """Token ids in, hidden states after the final norm out; `loss` and `logits` apply the output matrix."""

    def __init__(self, cfg: ModelConfig, *, rngs: nnx.Rngs):
        check(cfg)
        self.cfg = cfg
        L, D, N, K = cfg.num_layers, cfg.embed_dim, cfg.num_query_heads, cfg.num_kv_heads
        H, F, V = cfg.head_dim, cfg.ffn_dim, cfg.vocab_size
        dtype = jnp.dtype(cfg.param_dtype)

        def weight(shape: tuple[int, ...], axes: str, init: str, hf: str, in_dims: int = 0) -> Weight:
            """in_dims > 0: a matrix whose first in_dims dims (after layers) are its input; Hugging Face keeps [out, in]."""
            value = (
                jnp.ones(shape, dtype)
                if init == "ones"
                else cfg.init_std * jax.random.normal(rngs.params(), shape, dtype)
            )
            return Weight(value, axes=tuple(axes.split()), hf=hf, in_dims=in_dims)

        layer = "model.layers.{}."
        self.embed = weight((V, D), "vocab embed", "normal", "model.embed_tokens.weight")
        self.layers = nnx.Dict(
            attention_norm=weight((L, D), "layers norm", "ones", layer + "input_layernorm.weight"),
            q=weight((L, D, N, H), "layers embed q_heads head_dim", "normal", layer + "self_attn.q_proj.weight", 1),
            k=weight((L, D, K, H), "layers embed kv_heads head_dim", "normal", layer + "self_attn.k_proj.weight", 1),
            v=weight((L, D, K, H), "layers embed kv_heads head_dim", "normal", layer + "self_attn.v_proj.weight", 1),
            o=weight((L, N, H, D), "layers q_heads head_dim embed", "normal", layer + "self_attn.o_proj.weight", 2),
            ffn_norm=weight((L, D), "layers norm", "ones", layer + "post_attention_layernorm.weight"),
            gate=weight((L, D, F), "layers embed ffn", "normal", layer + "mlp.gate_proj.weight", 1),
            up=weight((L, D, F), "layers embed ffn", "normal", layer + "mlp.up_proj.weight", 1),
            down=weight((L, F, D), "layers ffn embed", "normal", layer + "mlp.down_proj.weight", 1),
        )
        self.final_norm = weight((D,), "norm", "ones", "model.norm.weight")
        self.output = weight((D, V), "embed vocab", "normal", "lm_head.weight", 1)

    def __call__(self, tokens: Array, positions: Array, segment_ids: Array | None = None) -> Array:
        """Hidden states of packed documents.

        Args: tokens, positions (restarting with each document), segment_ids: int32 [B, T].
        Returns: [B, T, D] in the compute dtype.
        """
        attend = partial(_attend, segment_ids=segment_ids, implementation=self.cfg.implementation)

        def body(x, w):
            return self._layer(w, x, positions, attend), None

        if self.cfg.remat != "none":
            body = jax.checkpoint(body, policy=REMAT[self.cfg.remat], prevent_cse=self.cfg.scan_unroll > 1)
        x, _ = jax.lax.scan(body, self._embed(tokens), self._stacked(), unroll=self.cfg.scan_unroll)
        return self._norm(x, self.final_norm[...])

    def decode(self, tokens: Array, positions: Array, cache: Arrays, segment_ids: Array) -> tuple[Array, Arrays]:
        """Continues a batch by the given tokens, reading and extending a key/value cache.

        Args:
          tokens, positions: int32 [B, T]: T prompt tokens, or 1.
          cache: of `init_cache`; its slots from cache["length"] on are free.
          segment_ids: int32 [B, S]: 1 where a slot holds, or will hold, a token, 0 for left padding.
        Returns: hidden [B, T, D], the cache with T more slots filled.
        """
        T, start = tokens.shape[1], cache["length"]
        q_segments = jax.lax.dynamic_slice_in_dim(segment_ids, start, T, axis=1)

        def body(x, layer):
            w, k_cache, v_cache = layer
            updated = []

            def attend(q, k, v) -> Any:
                updated.extend(
                    jax.lax.dynamic_update_slice_in_dim(old, new, start, axis=1)
                    for old, new in ((k_cache, k), (v_cache, v))
                )
                return attention(
                    q, *updated, q_segment_ids=q_segments, kv_segment_ids=segment_ids, q_positions=start + jnp.arange(T),
                    implementation="xla",
                )  # fmt: skip

            x = self._layer(w, x, positions, attend)
            return x, tuple(updated)

        x, (k, v) = jax.lax.scan(body, self._embed(tokens), (self._stacked(), cache["k"], cache["v"]))
        return self._norm(x, self.final_norm[...]), {"k": k, "v": v, "length": start + T}

    def loss(self, batch: dict[str, Array], *, z_loss: float = 0.0) -> tuple[Array, Array]:
        """Summed next-token cross-entropy of a batch of packed records, and the z-loss in it (both fp32 scalars).

        Args: batch: tokens, targets, positions, segment_ids int32 [B, T], loss_mask bool [B, T].
        """
        hidden = self(batch["tokens"], batch["positions"], batch["segment_ids"])
        args = (hidden, self.output[...], batch["targets"], batch["loss_mask"])
        ce = partial(linear_cross_entropy, z_loss=z_loss, implementation=self.cfg.implementation)
        if jax.sharding.get_abstract_mesh().empty:
            return ce(hidden, self.output[...].astype(hidden.dtype), *args[2:])
        return _sharded_loss(partial(ce, vocab_axis="tensor"), *args)

    def logits(self, hidden: Array) -> Array:
        """[..., D] -> fp32 [..., V]."""
        return jnp.dot(hidden, self.output[...].astype(hidden.dtype), preferred_element_type=jnp.float32)

    def _embed(self, tokens: Array) -> Array:
        mesh = jax.sharding.get_abstract_mesh()

        def local(table, tokens):
            # Gathered over fsdp before the look-up: a table is smaller than the activations of a step.
            table = gather(table, self.cfg.compute_dtype, "fsdp", 1)
            if mesh.empty:
                return look_up(table, tokens)
            first = jax.lax.axis_index("tensor") * table.shape[0]  # row of this device's part of the vocabulary
            return jax.lax.psum(look_up(table, tokens - first), "tensor")

        return per_shard(local, [("vocab", "embed"), ("batch", "time")], ACTIVATION)(self.embed[...], tokens)

    def _norm(self, x: Array, weight: Array) -> Array:
        norm = partial(rms_norm, eps=self.cfg.norm_eps, implementation=self.cfg.implementation)
        return per_shard(norm, [ACTIVATION, ("norm",)], ACTIVATION)(x, weight)

    def _swiglu(self, x: Array, gate: Array, up: Array) -> Array:
        def local(x, gate, up):
            gate, up = (gather(w, x.dtype, "fsdp", 0) for w in (gate, up))
            return swiglu(x, gate, up, implementation=self.cfg.implementation)

        weight = ("embed", "ffn")
        return per_shard(local, [ACTIVATION, weight, weight], ("batch", "time", "ffn"))(x, gate, up)

    def _stacked(self) -> Arrays:
        return {name: weight[...] for name, weight in self.layers.items()}

    def _layer(self, w: Arrays, x: Array, positions: Array, attend: Callable[[Array, Array, Array], Array]) -> Array:
        """One block: x [B, T, D] -> [B, T, D]; w holds this layer's slices in the parameter dtype."""
        h = self._norm(x, w["attention_norm"])
        q, k, v = (project("btd,dnh->btnh", h, w[name]) for name in "qkv")
        q, k = rope(q, positions, self.cfg.rope_theta), rope(k, positions, self.cfg.rope_theta)
        q = constrain(checkpoint_name(q, "qkv"), "batch", "time", "q_heads", "head_dim")
        k, v = (constrain(checkpoint_name(a, "qkv"), "batch", "time", "kv_heads", "head_dim") for a in (k, v))
        with jax.named_scope("attention"):  # profiles and plans find it by this name
            h = attend(q, k, v)  # what its backward pass needs the kernels themselves name "attention"
        x = x + constrain(project("btnh,nhd->btd", h, w["o"]), *ACTIVATION)
        x = checkpoint_name(x, "residual")
        h = checkpoint_name(self._swiglu(self._norm(x, w["ffn_norm"]), w["gate"], w["up"]), "gated")
        return x + constrain(project("btf,fd->btd", h, w["down"]), *ACTIVATION)


def rope(x: Array, positions: Array, theta: float) -> Array:
    """Rotary embedding (Su et al. 2021) in Hugging Face's half-split layout: dim i turns with dim i + H/2.

    Args: x [B, T, N, H], positions int32 [B, T]. Returns: like x; angles in fp32.
    """
    half = x.shape[-1] // 2
    wide = jnp.promote_types(x.dtype, jnp.float32)
    frequency = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = positions[:, :, None, None].astype(jnp.float32) * frequency
    cos, sin = jnp.cos(angle).astype(wide), jnp.sin(angle).astype(wide)
    a, b = x[..., :half].astype(wide), x[..., half:].astype(wide)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def _attend(q: Array, k: Array, v: Array, segment_ids: Array | None, implementation: str) -> Array:
    """Attention over packed documents, each device on its part; where time is sharded over `context`, as a ring."""

    def attend(q, k, v, segments):
        ring_axis = None if jax.sharding.get_abstract_mesh().empty else RULES["time"]
        masks = {"q_segment_ids": segments, "kv_segment_ids": segments, "ring_axis": ring_axis}
        return attention(q, k, v, **masks, implementation=implementation)

    queries, keys = ("batch", "time", "q_heads", "head_dim"), ("batch", "time", "kv_heads", "head_dim")
    segments = None if segment_ids is None else ("batch", "time")
    return per_shard(attend, [queries, keys, keys, segments], queries)(q, k, v, segment_ids)


def _sharded_loss(ce, hidden, w_out, targets, mask):
    """Each device takes its tokens and its slice of the vocabulary; gradients of w_out are summed once, not per chunk."""
    tokens = ("batch", "time")
    summed = tuple(axis for axis in sharding.TOKEN_AXES if axis in sharding.open_axes())

    def local(hidden, w_out, targets, mask):
        w_out = gather(w_out, hidden.dtype, "fsdp", 0)
        return jax.lax.psum(ce(hidden, w_out, targets, mask), summed)

    args = [ACTIVATION, ("embed", "vocab"), tokens, tokens]
    return per_shard(local, args, ((), ()))(hidden, w_out, targets, mask)


def check(cfg: ModelConfig) -> None:
    """Raises ValueError, with the field, for a shape that no such model can have."""
    if cfg.num_query_heads % cfg.num_kv_heads:
        raise ValueError(
            f"model.num_query_heads={cfg.num_query_heads} is not a multiple of model.num_kv_heads={cfg.num_kv_heads}"
        )
    if cfg.head_dim % 2:
        raise ValueError(f"model.head_dim={cfg.head_dim} must be even: rotary embedding turns pairs")
    if cfg.remat not in REMAT:
        raise ValueError(f"model.remat={cfg.remat!r}: choose one of {', '.join(REMAT)}")
    if cfg.num_layers % cfg.scan_unroll:
        raise ValueError(f"model.scan_unroll={cfg.scan_unroll} does not divide model.num_layers={cfg.num_layers}")


def abstract(cfg: ModelConfig) -> tuple[nnx.GraphDef, nnx.State]:
    """Structure of the model and its weights as shapes, without memory: what `nnx.merge` makes a model of.

    The state is the one form in which weights travel: a pytree of `Weight`, each with its declaration. Gradients and
    optimizer moments have the same structure, so that layouts (`sharding.shardings`), names (`hf`) and masks are read off
    the declarations wherever a tree of weights is. Files hold the bare arrays (`checkpoint.plain`).
    """
    return nnx.split(nnx.eval_shape(lambda: Transformer(cfg, rngs=nnx.Rngs(0))))


def init(cfg: ModelConfig, key: Array) -> nnx.State:
    """Fresh weights; under jit with out_shardings each device makes its own part."""
    return nnx.state(Transformer(cfg, rngs=nnx.Rngs(params=key)))


def bind(cfg: ModelConfig, weights: nnx.State) -> Transformer:
    """The model over given weights."""
    return nnx.merge(abstract(cfg)[0], weights)


def num_params(cfg: ModelConfig) -> int:
    return sum(math.prod(x.shape) for x in jax.tree.leaves(abstract(cfg)[1]))


def init_cache(cfg: ModelConfig, batch: int, length: int) -> Arrays:
    """Empty key/value cache [L, B, S, K, H] in the compute dtype."""
    shape = (cfg.num_layers, batch, length, cfg.num_kv_heads, cfg.head_dim)
    return {"k": jnp.zeros(shape, cfg.compute_dtype), "v": jnp.zeros(shape, cfg.compute_dtype), "length": jnp.int32(0)}
