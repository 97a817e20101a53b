"""What a gradient of attention takes from the forward pass; the names are for rematerialisation policies."""

from __future__ import annotations

from jax.ad_checkpoint import checkpoint_name

NAME = "attention"


def named(out, lse):
    """(out, lse) under `NAME`, for a custom gradient that saves them: kept, the forward pass is not run again.

    lse adds 4 bytes to the 2 H of each query and head.
    """
    return checkpoint_name(out, NAME), checkpoint_name(lse, NAME)


def named_result(out, lse):
    """The result alone under `NAME`: what it was computed from is computed again."""
    return checkpoint_name(out, NAME), lse


def delta(out, d_out, d_lse):
    """What the gradient of a query's scores takes of all its keys: out . d out - d lse, [B, T, N] like d_lse (fp32 or wider)."""
    return (out.astype(d_lse.dtype) * d_out.astype(d_lse.dtype)).sum(-1) - d_lse
