"""Weights as an engine holds them: cast once, one set of arrays per layer, laid out on the mesh.

Training keeps layers stacked and scans them; a decode step that did so would copy every layer's weights out of the stack
before using them, which doubles what it reads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from opencoder_jax import model as lm
from opencoder_jax import sharding
from opencoder_jax.config import ModelConfig


class Weights(NamedTuple):
    """outer: the model's state with empty layers. layers: the weights of each layer by name. Norms keep their dtype."""

    outer: nnx.State
    layers: tuple[lm.Arrays, ...]


def unstack(cfg: ModelConfig, params: nnx.State, mesh: Mesh | None = None) -> Weights:
    """Matrices in the compute dtype. Args: params: on the host (numpy) or on devices."""

    def place(x: Any, axes: tuple[str, ...]) -> jax.Array:
        x = x if "norm" in axes else x.astype(cfg.compute_dtype)
        return jax.device_put(x, None if mesh is None else NamedSharding(mesh, sharding.spec(*axes)))

    def outer(weight: nnx.Variable) -> nnx.Variable:
        value = weight.get_value()
        if weight.axes[0] == "layers":
            return weight.replace(jnp.zeros((0, *value.shape[1:]), cfg.compute_dtype))
        return weight.replace(place(value, weight.axes))

    stacked: dict[str, nnx.Variable] = dict(params["layers"].items())  # pyright: ignore
    layers = tuple(
        {name: place(w.get_value()[i], w.axes[1:]) for name, w in stacked.items()} for i in range(cfg.num_layers)
    )
    return Weights(jax.tree.map(outer, params, is_leaf=lambda x: isinstance(x, nnx.Variable)), layers)


def num_bytes(weights: Weights) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(weights))
