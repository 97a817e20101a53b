"""The training step: what `train` runs and `plan` compiles for machines that are not there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from opencoder_jax import model as lm
from opencoder_jax import sharding
from opencoder_jax.config import RunConfig
from opencoder_jax.input import BATCH_FIELDS
from opencoder_jax.optimizer import learning_rate, make_optimizer

State = dict[str, Any]  # params, opt_state, step, nonfinite (updates skipped in a row), skipped (in all)


@dataclass(frozen=True)
class TrainStep:
    """The compiled step's parts: `step(state, batch) -> (state, metrics)`, the state donated.

    Abstract values carry their shardings, so that `step.lower(abstract_state, abstract_batch)` needs no memory.
    """

    mesh: Mesh
    step: Any
    init: Any  # key -> state, already sharded
    abstract_state: State
    abstract_batch: dict[str, jax.ShapeDtypeStruct]


def make_train_step(config: RunConfig, mesh: Mesh) -> TrainStep:
    """Builds the step for a mesh. Raises: ValueError when model, batch and mesh do not fit."""
    lm.check(config.model)
    sharding.check_fits(config, mesh)
    optimizer = make_optimizer(config)
    schedule = learning_rate(config.schedule, config.num_steps)

    def init(key: jax.Array) -> State:
        params = lm.init(config.model, key)
        zero = jnp.zeros((), jnp.int32)
        return {"params": params, "opt_state": optimizer.init(params), "step": zero, "nonfinite": zero, "skipped": zero}

    def loss_sum(params, micro):
        total, z_sum = lm.bind(config.model, params).loss(micro, z_loss=config.z_loss)
        return total, {"z_loss": z_sum, "tokens": micro["loss_mask"].sum(dtype=jnp.int32)}

    def gradients(params, batch):
        """Sums over all tokens of the step; micro-batches [A, B, T] one after another."""
        value_and_grad = jax.value_and_grad(loss_sum, has_aux=True)
        if config.grad_accum == 1:
            return value_and_grad(params, jax.tree.map(lambda x: x[0], batch))

        def accumulate(params, batch):
            shapes = jax.eval_shape(value_and_grad, params, jax.tree.map(lambda x: x[0], batch))
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, _wide(x.dtype)), shapes)

            def add(total, micro):
                return jax.tree.map(lambda t, x: t + x.astype(t.dtype), total, value_and_grad(params, micro)), None

            return jax.lax.scan(add, zeros, batch)[0]

        if not sharding.data_groups_meet_once(mesh.shape, config.grad_accum):
            return accumulate(params, batch)

        # Unchecked: tracked as varying over data, weights would have their gradients summed over it in every layer, which is
        # what this avoids.
        @partial(jax.shard_map, in_specs=(P(), P(None, "data")), out_specs=P(), axis_names={"data"}, check_vma=False)
        def by_data_group(params, batch):
            return jax.lax.psum(accumulate(params, batch), "data")

        return by_data_group(params, batch)

    def updated(grads, state: State, lr):
        updates, opt_state = optimizer.update(grads, state["opt_state"], state["params"])
        return jax.tree.map(lambda p, u: p - (lr * u).astype(p.dtype), state["params"], updates), opt_state

    def train_step(state: State, batch: dict[str, jax.Array]) -> tuple[State, dict[str, jax.Array]]:
        (loss, aux), grads = gradients(state["params"], batch)
        tokens = jnp.maximum(aux["tokens"], 1)
        grads = jax.tree.map(lambda g: g.astype(_wide(g.dtype)) / tokens, grads)
        grad_norm = optax.tree.norm(grads)
        lr = schedule(state["step"])
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm) & all_finite(updated(grads, state, lr))
        # The update is computed twice, once for its finiteness alone: kept until that is known it would need the state's
        # memory once more. The barrier keeps the two apart.
        grads, state = jax.lax.optimization_barrier((grads, state))
        params, opt_state = updated(grads, state, lr)
        keep = lambda new, old: jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)  # noqa: E731
        skipped = jnp.where(finite, 0, 1)
        new_state = {
            "params": keep(params, state["params"]),
            "opt_state": keep(opt_state, state["opt_state"]),
            "step": state["step"] + 1,
            "nonfinite": (state["nonfinite"] + 1) * skipped,
            "skipped": state["skipped"] + skipped,
        }
        metrics = {
            "loss": (loss - aux["z_loss"]) / tokens,
            "z_loss": aux["z_loss"] / tokens,
            "tokens": aux["tokens"],
            "learning_rate": lr,
            "grad_norm": grad_norm,
            "nonfinite": new_state["nonfinite"],
            "skipped": new_state["skipped"],
        }
        return new_state, metrics

    abstract_state = _with_shardings(config, mesh, jax.eval_shape(lambda: init(jax.random.key(0))))
    shardings = jax.tree.map(lambda x: x.sharding, abstract_state)
    abstract_batch = batch_shapes(config, mesh)
    replicated = NamedSharding(mesh, P())
    jitted = jax.jit(
        train_step,
        donate_argnums=0,
        in_shardings=(shardings, jax.tree.map(lambda x: x.sharding, abstract_batch)),
        out_shardings=(shardings, replicated),
    )
    return TrainStep(mesh, jitted, jax.jit(init, out_shardings=shardings), abstract_state, abstract_batch)


def all_finite(tree) -> jax.Array:
    """Whether every number of every array is finite."""
    return jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]).all()


def _wide(dtype) -> jnp.dtype:
    """Sums over tokens and micro-batches are kept in fp32 at least; counts stay integers."""
    return jnp.promote_types(dtype, jnp.float32) if jnp.issubdtype(dtype, jnp.floating) else jnp.dtype(dtype)


def batch_shapes(config: RunConfig, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Abstract batch, [grad_accum, global_batch_size / grad_accum, T] each, with shardings."""
    shape = (config.grad_accum, config.data.global_batch_size // config.grad_accum, config.data.seq_len)
    layout = NamedSharding(mesh, P(None, *sharding.spec("batch", "time")))
    dtypes = {name: jnp.bool_ if name == "loss_mask" else jnp.int32 for name in BATCH_FIELDS}
    return {name: jax.ShapeDtypeStruct(shape, dtypes[name], sharding=layout) for name in BATCH_FIELDS}


def _with_shardings(config: RunConfig, mesh: Mesh, state: State) -> State:
    """Optimizer moments lie where their parameters lie; scalars are replicated."""
    specs = {
        tuple(k.key for k in path): spec
        for path, spec in jax.tree_util.tree_leaves_with_path(
            lm.param_specs(config.model), is_leaf=lambda x: isinstance(x, P)
        )
    }

    def place(path, x):
        keys = tuple(k.key for k in path if isinstance(k, jax.tree_util.DictKey))
        layout = specs.get(keys[1:], P())
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, layout))

    return jax.tree_util.tree_map_with_path(place, state)
