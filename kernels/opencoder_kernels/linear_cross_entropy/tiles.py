"""Softmax over a vocabulary that a kernel walks over in tiles, which the Pallas backends share.

The kernel multiplies and, in its epilogue, keeps per row and tile of the vocabulary: the largest logit, the sum of
p = exp(logit - largest) and the target's logit; p goes to memory in the dtype of the hidden states. fp32 logits are
never in memory. What is left, d logits = weight (1 + 2 z lse) p exp(largest - lse) - weight [target], is one
elementwise pass in place of p. p is rounded once more there than if its scale had been known before: the price of not
multiplying twice, and within the bound that the tests set against 'xla'.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from opencoder_kernels.linear_cross_entropy import chunked
from opencoder_kernels.varying import unchecked

# p (or d logits in its place) of a chunk: 4,096 tokens x 96,640 in bf16 are 792 MB.
GRADIENT_BYTES = 800_000_000


@dataclass(frozen=True)
class TiledSoftmax:
    """A `chunked.Softmax.run` from the two kernels of a backend.

    Attributes:
      matmul: (h [M, D], w [D, C], targets int32 [M], vocab, gradient) -> [peak, total, hit] each fp32 [tiles, M], then p
        [M, C] if gradient, 0 from column vocab on; M a multiple of `chunked.ROWS`; a target of -1 hits nothing.
      gradient_from: (p [M, C], scale [tiles, M], targets, weights [M]) -> p scale - weights [target], in place of p.
      vocab: V, the words (of one device); the columns of w may be more, C, which are not words.
    """

    matmul: Callable[..., Any]
    gradient_from: Callable[..., Any]
    vocab: int

    def __call__(self, h, w, targets, weights, z_loss, vocab_axis, gradient: bool):
        """See `chunked.Softmax.run`."""
        B, n, D = h.shape
        M, V = B * n, self.vocab
        pad = -M % chunked.ROWS
        rows = jnp.pad(h.reshape(M, D), ((0, pad), (0, 0)))
        if vocab_axis is not None:
            targets = targets - jax.lax.axis_index(vocab_axis) * V
            # -1 is not a word, nor any of the masked columns beyond V either.
            targets = jnp.where((targets >= 0) & (targets < V), targets, -1)
        targets, weights = (jnp.pad(x.reshape(M), (0, pad)) for x in (targets.astype(jnp.int32), weights))
        run = unchecked(lambda h, w, targets: self.matmul(h, w, targets, V, gradient))
        peaks, totals, hits, *p = run(rows, w, targets)
        peak = peaks.max(0)
        if vocab_axis is not None:
            peak = jax.lax.pmax(peak, vocab_axis)
        shrink = jnp.exp(peaks - peak)
        sums, scale = chunked.loss(peak, (totals * shrink).sum(0), hits.sum(0), weights, z_loss, vocab_axis)
        if not gradient:
            return *sums, None
        dlogits = unchecked(self.gradient_from)(p[0], shrink * scale, targets, weights)
        return *sums, dlogits[:M].reshape(B, n, -1)
