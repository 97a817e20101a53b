"""What a gradient keeps of attention's forward pass, named for rematerialisation policies."""

from __future__ import annotations

import jax
from jax.ad_checkpoint import checkpoint_name

from opencoder_kernels import partition

NAME = "attention"


def named(out, lse):
    """(out, lse) under `NAME`: a policy that saves the result alone would run the kernel again for its log-sum-exp.

    Over a mesh axis `context` a kernel sees a part of the keys: there the whole result is named, by `attention`.
    """
    return (out, lse) if in_parts() else (checkpoint_name(out, NAME), checkpoint_name(lse, NAME))


def in_parts() -> bool:
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and mesh.shape.get(partition.TIME, 1) > 1
