"""What an engine compiles: prefill, first draw, decode block. Everything here runs on the devices.

Each is compiled for a bounded set of shapes (`shapes.Shapes`); what differs between requests comes as arrays.
Shapes: R prompts of a prefill, P their padded length, S slots, W rows of a decode block, V vocabulary.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from opencoder_kernels import attention

from opencoder_jax import model as lm
from opencoder_jax.config import ModelConfig
from opencoder_jax.inference import cache as kv
from opencoder_jax.inference.sampling import Kind, keys_at, log_probs, sample
from opencoder_jax.inference.weights import Weights

Array = jax.Array
# Steps of a decode block at most: between blocks the host looks at what was drawn.
BLOCK = 16
# Alternatives whose log-probabilities are reported when any are asked for.
TOP = 20
# Not a token: the row had ended.
NOTHING = -2


class Rows(NamedTuple):
    """What a draw needs of each row; all [B] unless stated. min_length: positions below it take no end token."""

    seed: Array  # uint32 [B, 2]
    sample: Array  # uint32
    temperature: Array  # fp32
    top_p: Array  # fp32
    top_k: Array  # int32
    min_p: Array  # fp32
    min_length: Array  # int32
    ignore_end: Array  # bool


class Drawn(NamedTuple):
    """tokens int32 (-1: logits not finite, NOTHING: the row had ended); the others as of `log_probs`, or None."""

    tokens: Array
    log_probs: Array | None = None
    top_ids: Array | None = None
    top_log_probs: Array | None = None


@partial(jax.jit, static_argnames=("cfg",), donate_argnames=("cache",))
def prefill(cfg: ModelConfig, weights: Weights, cache: kv.Cache, tokens: Array, lengths: Array, slots: Array):
    """Prompts into their slots. tokens int32 [R, P] (padded at the end), lengths and slots [R]; a slot that does not exist
    makes a row padding. Returns: cache, logits fp32 [R, V] after each prompt."""
    model = lm.bind(cfg, weights.outer)
    layers = list(cache)
    # Kernels of one device see whole arrays; on a mesh the partitioner splits XLA's.
    on_mesh = not jax.sharding.get_abstract_mesh().empty
    implementation = "xla" if on_mesh else cfg.implementation

    def attend(i: int, q: Array, k: Array, v: Array) -> Array:
        layers[i] = kv.write_prompts(layers[i], slots, k, v)
        return attention(q, k, v, implementation=implementation)  # causal: no token sees the padding behind it

    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    hidden = model.extend(tokens, positions, weights.layers, attend)
    last = hidden[jnp.arange(tokens.shape[0]), lengths - 1]
    return tuple(layers), model.logits(last)


@partial(jax.jit, static_argnames=("kind", "top"))
def first(logits: Array, rows: Rows, positions: Array, ends: Array, *, kind: Kind, top: bool) -> Drawn:
    """The first token of each row [R]; positions: its index in the sequence, the prompt's length."""
    return _draw(logits, rows, positions, ends, kind, top)


@partial(jax.jit, static_argnames=("cfg", "span", "kind", "top"), donate_argnames=("cache",))
def decode(
    cfg: ModelConfig,
    weights: Weights,
    cache: kv.Cache,
    slots: Array | None,
    tokens: Array,
    lengths: Array,
    left: Array,
    rows: Rows,
    ends: Array,
    steps: Array,
    *,
    span: int,
    kind: Kind,
    top: bool,
) -> tuple[kv.Cache, Drawn]:
    """Up to `steps` (at most BLOCK) more tokens of each row; fewer when all rows have ended.

    Args:
      slots: int32 [W], of each row (one that does not exist: padding); None: W is S and row i is slot i.
      tokens, lengths: int32 [W]: last token of each row, not in the cache yet, and tokens in the cache.
      left: int32 [W]: how many the row may still draw; 0 for a row that has ended.
      ends: int32 [E]: end tokens.
      span: static; no less than any row's length.
    Returns: cache, and what was drawn [W, BLOCK]; a row ends with an end token, or with its last token.
    """
    model = lm.bind(cfg, weights.outer)
    W = tokens.shape[0]
    windows = [kv.window(layer, slots, span) for layer in cache]
    recent = tuple(jax.tree.map(lambda x: jnp.zeros((W, x.shape[1], BLOCK, *x.shape[3:]), x.dtype), x) for x in cache)

    def forward(tokens: Array, recent: kv.Cache, i: Array) -> tuple[Array, kv.Cache]:
        layers = list(recent)

        def attend(n: int, q: Array, k: Array, v: Array) -> Array:
            def put(store: kv.Store, x: Array) -> kv.Store:
                new = kv.pack(x.transpose(0, 2, 1, 3), store)
                return jax.tree.map(
                    lambda old, part: jax.lax.dynamic_update_slice_in_dim(old, part, i, axis=2), store, new
                )

            layers[n] = kv.Layer(put(layers[n].k, k), put(layers[n].v, v))
            return kv.attend(q, windows[n], layers[n], lengths, i)

        hidden = model.extend(tokens[:, None], (lengths + i)[:, None], weights.layers, attend)
        return model.logits(hidden[:, 0]), tuple(layers)

    def body(state):
        i, tokens, done, recent, drawn = state
        logits, recent = forward(tokens, recent, i)
        new = _draw(logits, rows, lengths + i + 1, ends, kind, top)
        shown = new._replace(tokens=jnp.where(done, NOTHING, new.tokens))
        drawn = jax.tree.map(lambda old, x: jax.lax.dynamic_update_index_in_dim(old, x, i, 1), drawn, shown)
        tokens = jnp.where(done, tokens, jnp.maximum(new.tokens, 0))
        done |= (i + 1 >= left) | (new.tokens < 0) | (_is_end(new.tokens, ends) & ~rows.ignore_end)
        return i + 1, tokens, done, recent, drawn

    def more(state):
        return (state[0] < steps) & ~state[2].all()

    state = (jnp.int32(0), tokens, left <= 0, recent, _nothing(W, top, min(TOP, cfg.vocab_size)))
    _, _, _, recent, drawn = jax.lax.while_loop(more, body, state)
    cache = tuple(kv.append(layer, slots, lengths, new) for layer, new in zip(cache, recent, strict=True))
    return cache, drawn


def _nothing(W: int, top: bool, count: int) -> Drawn:
    tokens = jnp.full((W, BLOCK), NOTHING, jnp.int32)
    if not top:
        return Drawn(tokens)
    some = (jnp.zeros((W, BLOCK)), jnp.zeros((W, BLOCK, count), jnp.int32), jnp.zeros((W, BLOCK, count)))
    return Drawn(tokens, *some)


def _draw(logits: Array, rows: Rows, positions: Array, ends: Array, kind: Kind, top: bool) -> Drawn:
    barred = (positions < rows.min_length)[:, None] & _is_end(jnp.arange(logits.shape[-1]), ends)
    allowed = jnp.where(barred, -jnp.inf, logits)
    keys = keys_at(rows.seed, rows.sample, positions)
    tokens = sample(allowed, keys, rows.temperature, rows.top_p, rows.top_k, rows.min_p, kind=kind)
    return Drawn(tokens, *log_probs(logits, tokens, TOP)) if top else Drawn(tokens)


def _is_end(tokens: Array, ends: Array) -> Array:
    return (tokens[..., None] == ends).any(-1)
