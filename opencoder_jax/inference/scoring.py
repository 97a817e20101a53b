"""Log-probabilities of given tokens: teacher-forced, through the packed forward pass of training and not through decode.

Sequences are packed into rows with segment ids, as training packs documents; the vocabulary's logits are made for a few
positions at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import jax
import jax.numpy as jnp
import numpy as np

from opencoder_jax import model as lm
from opencoder_jax.config import ModelConfig
from opencoder_jax.inference.programs import TOP
from opencoder_jax.inference.sampling import log_probs
from opencoder_jax.inference.shapes import PREFILL_TOKENS
from opencoder_jax.inference.weights import Weights

Array = jax.Array
# Positions whose logits are in memory at once.
CHUNK = 128
ROWS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Scores:
    """Of one sequence of n tokens. log_probs: fp32 [n], the first NaN (nothing foretells it). top_ids, top_log_probs:
    [n, TOP] likeliest tokens at each place, or None; equal tokens have equal numbers in both."""

    log_probs: np.ndarray
    top_ids: np.ndarray | None = None
    top_log_probs: np.ndarray | None = None


@partial(jax.jit, static_argnames=("cfg", "top"))
def forward(cfg: ModelConfig, weights: Weights, tokens: Array, positions: Array, segments: Array, *, top: bool):
    """All int32 [B, T]; the last three as of a training batch. Returns: [B, T(, TOP)] of each place's next token."""
    model = lm.bind(cfg, weights.outer)

    def attend(_: int, q: Array, k: Array, v: Array) -> Array:
        return lm.packed_attention(q, k, v, segments, cfg.implementation)

    hidden = model.extend(tokens, positions, weights.layers, attend)
    B, T, _ = hidden.shape
    targets = jnp.roll(tokens, -1, axis=1)
    size = min(CHUNK, T)
    chunks = -(-T // size)

    def split(x: Array) -> Array:
        x = jnp.pad(x, [(0, 0), (0, chunks * size - T)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(B, chunks, size, *x.shape[2:]), 1, 0)

    def score(chunk):
        hidden, targets = chunk
        found = log_probs(model.logits(hidden).reshape(B * size, -1), targets.reshape(-1), TOP)
        return tuple(x.reshape(B, size, *x.shape[1:]) for x in found[: 3 if top else 1])

    found = jax.lax.map(score, (split(hidden), split(targets)))
    return tuple(jnp.moveaxis(x, 0, 1).reshape(B, chunks * size, *x.shape[3:])[:, :T] for x in found)


def score(
    cfg: ModelConfig, weights: Weights, sequences: Sequence[Sequence[int]], *, top: bool = False, multiple: int = 1
) -> list[Scores]:
    """Scores of each sequence, in their order. Set the mesh before (`jax.set_mesh`) when the weights are on one.

    Args: sequences: token ids, one or more each. top: the likeliest tokens at each place, too. multiple: rows of a batch
    are a multiple of this (data x fsdp of the mesh).
    Raises: ValueError when log-probabilities are not finite, or a sequence exceeds the context.
    """
    for sequence in sequences:
        if not 0 < len(sequence) <= cfg.max_seq_len:
            raise ValueError(
                f"{len(sequence)} tokens to score: must be at least 1 and at most model.max_seq_len={cfg.max_seq_len}"
            )
    out: list[Scores | None] = [None] * len(sequences)
    for batch in _batches([len(s) for s in sequences]):
        for i, scores in zip(
            chain.from_iterable(batch), _score_rows(cfg, weights, sequences, batch, top, multiple), strict=True
        ):
            out[i] = scores
    return [s for s in out if s is not None]


def row_length(tokens: int) -> int:
    """Length of the rows that sequences of so many tokens at most are packed into."""
    return max(64, 1 << (tokens - 1).bit_length())


def _batches(lengths: list[int]) -> list[list[list[int]]]:
    """Batches of rows of sequences' indices: longest first, each into the first row with space."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    batches: list[list[list[int]]] = []
    while order:
        T = row_length(lengths[order[0]])
        rows: list[list[int]] = []
        space: list[int] = []
        left: list[int] = []
        for i in order:
            at = next((r for r, free in enumerate(space) if free >= lengths[i]), None)
            if at is None and (len(rows) < ROWS[-1] and (len(rows) + 1) * T <= max(PREFILL_TOKENS, T)):
                at = len(rows)
                rows.append([])
                space.append(T)
            if at is None:
                left.append(i)
                continue
            rows[at].append(i)
            space[at] -= lengths[i]
        batches.append(rows)
        order = left
    return batches


def _score_rows(cfg, weights, sequences, rows, top, multiple) -> list[Scores]:
    T = row_length(max(len(sequences[i]) for row in rows for i in row))
    B = next(n for n in ROWS if n >= len(rows))
    B = -(-B // multiple) * multiple
    tokens, positions, segments = (np.zeros((B, T), np.int32) for _ in range(3))
    places = []
    for r, row in enumerate(rows):
        at = 0
        for n, i in enumerate(row):
            part = slice(at, at + len(sequences[i]))
            tokens[r, part], positions[r, part], segments[r, part] = sequences[i], np.arange(len(sequences[i])), n + 1
            places.append((r, part))
            at = part.stop
    found = jax.device_get(forward(cfg, weights, tokens, positions, segments, top=top))
    return [_of_sequence(found, r, part) for r, part in places]


def _of_sequence(found: tuple[np.ndarray, ...], row: int, part: slice) -> Scores:
    """A place's scores are those of the token after it: moved by one."""
    moved = []
    for x in found:
        x = x[row, part]
        blank = np.full_like(x[:1], np.nan if x.dtype.kind == "f" else 0)
        moved.append(np.concatenate([blank, x[:-1]]))
    if not np.isfinite(moved[0][1:]).all():
        raise ValueError(
            "log-probabilities are not finite; the checkpoint's parameters are not, or too large for the dtype (try "
            "--dtype=float32, or an earlier checkpoint)"
        )
    return Scores(*moved)
