"""How a token is drawn from logits: temperature, top-k, top-p, min-p, and the key of each draw.

The key is a function of (seed, index of the sample among those of its prompt, position): a draw depends neither on the
slot nor on the neighbours of a row. Filters need no sort: the last value that is kept is found by bisection over the
bits of the probabilities, which for fp32 above 0 are ordered as the numbers are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
# Below this, logits of fp32 that differ at all have probabilities of 1 and 0.
GREEDY_BELOW = 1e-5
# Sums of probabilities in fp32 are exact to this.
SUM_ERROR = 1e-6
# A program is compiled for each: argmax alone; temperature; temperature and filters.
Kind = Literal["greedy", "plain", "filtered"]
KINDS: tuple[Kind, ...] = ("greedy", "plain", "filtered")


@dataclass(frozen=True)
class Sampling:
    """temperature 0 (and below 1e-5) is greedy, whatever the filters. top_k keeps the k likeliest tokens (0: all); of
    those, top_p keeps the fewest whose probabilities reach it (Holtzman et al. 2020), of equally likely ones those with the
    smaller ids; min_p keeps tokens at least that likely relative to the likeliest.

    Raises: ValueError for values that are out of range or not finite.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    top_k: int = 0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens}: must be at least 1")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature}: must be 0 (greedy) or a finite number above")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p}: must be above 0 and at most 1")
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed={self.seed}: must fit 64 bits")
        if not 0 <= self.top_k < 2**31:
            raise ValueError(f"top_k={self.top_k}: must be 0 (all) or a number of tokens")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p={self.min_p}: must be at least 0 and at most 1")

    @property
    def greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW

    @property
    def kind(self) -> Kind:
        """The least program that draws as this says."""
        if self.greedy:
            return "greedy"
        return "filtered" if self.top_p < 1 or self.top_k or self.min_p else "plain"

    def key(self) -> np.ndarray:
        """Key data of the seed, uint32 [2]: all of its 64 bits."""
        bits = self.seed & (2**64 - 1)
        return np.array([bits >> 32, bits & (2**32 - 1)], np.uint32)


def keys_at(seeds: Array, samples: Array, positions: Array) -> Array:
    """The key of each row's next draw. Args: seeds uint32 [B, 2] (`Sampling.key`), samples uint32 [B], positions int32 [B]."""
    keys = jax.random.wrap_key_data(seeds, impl="threefry2x32")
    return jax.vmap(jax.random.fold_in)(jax.vmap(jax.random.fold_in)(keys, samples), positions)


def sample(
    logits: Array, keys: Array, temperature: Array, top_p: Array, top_k: Array, min_p: Array, *, kind: Kind
) -> Array:
    """Token ids int32 [B] of logits fp32 [B, V]; keys, temperature, top_p, top_k and min_p: one per row.

    Rows with a temperature below GREEDY_BELOW take the likeliest token under every kind; the filters count under
    "filtered" only. Where logits are not finite the id is -1.
    """
    best = jnp.argmax(logits, -1).astype(jnp.int32)
    finite = jnp.isfinite(logits.max(-1))  # a NaN anywhere is the maximum
    if kind == "greedy":
        return jnp.where(finite, best, -1)
    greedy = temperature < GREEDY_BELOW
    # The largest becomes 0: nothing overflows, however small the temperature.
    scaled = (logits - logits.max(-1, keepdims=True)) / jnp.where(greedy, 1.0, temperature)[:, None]
    if kind == "filtered":
        p = jax.nn.softmax(scaled)
        kept = _fewest(jnp.ones_like(p), jnp.where(top_k > 0, top_k, p.shape[-1]).astype(jnp.float32), p)
        p = jnp.where(kept, p, 0)
        p = p / p.sum(-1, keepdims=True)
        # All of a row without top-p, also what the error of its sum would leave out.
        kept &= _fewest(p, top_p - SUM_ERROR, p) | (top_p >= 1)[:, None]
        kept &= p >= min_p[:, None] * p.max(-1, keepdims=True)
        scaled = jnp.where(kept, scaled, -jnp.inf)
    drawn = jax.vmap(jax.random.categorical)(keys, scaled).astype(jnp.int32)
    return jnp.where(finite, jnp.where(greedy, best, drawn), -1)


def _fewest(weights: Array, wanted: Array, p: Array) -> Array:
    """The fewest entries, by falling p and then by rising index, whose weights reach `wanted`; at least one: bool [B, V].

    Args: weights, p fp32 [B, V], not negative; equal p have equal weights. wanted fp32 [B].
    """
    bits = jax.lax.bitcast_convert_type(p, jnp.int32)

    def halve(_, bounds):
        low, high = bounds  # entries with bits >= low reach it, those with bits >= high do not
        middle = low + (high - low) // 2
        enough = jnp.where(bits >= middle[:, None], weights, 0).sum(-1) >= wanted
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    bounds = (jnp.zeros(p.shape[0], jnp.int32), bits.max(-1) + 1)
    low, _ = jax.lax.fori_loop(0, 31, halve, bounds)
    above, ties = bits > low[:, None], bits == low[:, None]
    missing = wanted - jnp.where(above, weights, 0).sum(-1)
    each = jnp.where(ties, weights, 0).max(-1)
    needed = jnp.maximum(jnp.ceil(missing / jnp.maximum(each, jnp.finfo(jnp.float32).tiny)), 1)
    return above | (ties & (jnp.cumsum(ties, -1) <= needed[:, None]))


def log_probs(logits: Array, tokens: Array, top: int) -> tuple[Array, Array, Array]:
    """Log-probabilities of the model itself (temperature 1, no filter), rounded once: equal numbers for equal tokens.

    Args: logits fp32 [B, V]; tokens int32 [B].
    Returns: of the tokens fp32 [B]; the `top` likeliest ids int32 [B, top] and theirs fp32 [B, top].
    """
    logits = logits - logits.max(-1, keepdims=True)  # a likely token's difference from the sum is then exact
    total = jnp.log(jnp.exp(logits).sum(-1, keepdims=True))
    values, ids = jax.lax.top_k(logits, min(top, logits.shape[-1]))
    chosen = jnp.take_along_axis(logits, jnp.maximum(tokens, 0)[:, None], -1)
    return (chosen - total)[:, 0], ids, values - total
