"""What attention saves for its backward pass, under a name that a rematerialisation policy can keep."""

from __future__ import annotations

from jax.ad_checkpoint import checkpoint_name

# `jax.checkpoint_policies.save_only_these_names(NAME, ...)`: the backward pass does not run the forward pass again. It has
# to stand where the custom gradient saves its residuals: a name given to the result outside keeps the result alone, and
# the log-sum-exp would be computed again, with everything before it.
NAME = "attention"


def named(out, lse):
    """out and log-sum-exp, both under `NAME`; lse adds 4 bytes to the 2 H of each query and head."""
    return checkpoint_name(out, NAME), checkpoint_name(lse, NAME)
