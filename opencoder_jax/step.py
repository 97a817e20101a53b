"""The training step: what `train` runs and `plan` compiles for targets without hardware."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from opencoder_data.shard_format import BATCH_FIELDS

from opencoder_jax import model as lm
from opencoder_jax import sharding
from opencoder_jax.config import RunConfig
from opencoder_jax.optimizer import learning_rate, make_optimizer

State = dict[str, Any]  # params (nnx.State), opt_state, step, nonfinite (updates skipped in a row), skipped (in all)


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
    gradients, update = _gradients(config, mesh), _update(config, optimizer)

    def init(key: jax.Array) -> State:
        params = lm.init(config.model, key)
        zero = jnp.zeros((), jnp.int32)
        return {"params": params, "opt_state": optimizer.init(params), "step": zero, "nonfinite": zero, "skipped": zero}

    def train_step(state: State, batch: dict[str, jax.Array]) -> tuple[State, dict[str, jax.Array]]:
        (loss, aux), grads = gradients(state["params"], batch)
        return update(state, loss, aux, grads)

    shapes = jax.eval_shape(lambda: init(jax.random.key(0)))
    shardings = sharding.shardings(mesh, shapes)
    abstract_state = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
    abstract_batch = batch_shapes(config, mesh)
    jitted = jax.jit(
        train_step,
        donate_argnums=0,
        in_shardings=(shardings, jax.tree.map(lambda x: x.sharding, abstract_batch)),
        out_shardings=(shardings, NamedSharding(mesh, P())),
    )
    return TrainStep(mesh, jitted, jax.jit(init, out_shardings=shardings), abstract_state, abstract_batch)


def _gradients(config: RunConfig, mesh: Mesh) -> Callable[..., Any]:
    """(params, batch [A, B, T]) -> ((loss, its parts), gradients), sums over all tokens of the step."""

    def loss_sum(params: nnx.State, micro: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        total, z_sum = lm.bind(config.model, params).loss(micro, z_loss=config.z_loss)
        return total, {"z_loss": z_sum, "tokens": micro["loss_mask"].sum(dtype=jnp.int32)}

    value_and_grad = jax.value_and_grad(loss_sum, has_aux=True)
    if config.grad_accum == 1:
        return lambda params, batch: value_and_grad(params, jax.tree.map(lambda x: x[0], batch))

    def accumulate(params: nnx.State, batch: dict[str, jax.Array]) -> Any:
        """Micro-batches one after another."""
        shapes = jax.eval_shape(value_and_grad, params, jax.tree.map(lambda x: x[0], batch))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, _wide(x.dtype)), shapes)

        def add(total, micro):
            return jax.tree.map(lambda t, x: t + x.astype(t.dtype), total, value_and_grad(params, micro)), None

        return jax.lax.scan(add, zeros, batch)[0]

    if not sharding.defers_data_all_reduce(mesh.shape, config.grad_accum):
        return accumulate

    # Unchecked: tracked as varying over data, weights would have their gradients summed over it in every layer, which is
    # what this avoids.
    @partial(jax.shard_map, in_specs=(P(), P(None, "data")), out_specs=P(), axis_names={"data"}, check_vma=False)
    def by_data_group(params, batch):
        return jax.lax.psum(accumulate(params, batch), "data")

    return by_data_group


def _update(config: RunConfig, optimizer: optax.GradientTransformation) -> Callable[..., Any]:
    """(state, loss, its parts, gradients) as sums over tokens -> (next state, metrics). A non-finite update is skipped."""
    schedule = learning_rate(config.schedule, config.num_steps)

    def updated(grads, state: State, lr):
        updates, opt_state = optimizer.update(grads, state["opt_state"], state["params"])
        return jax.tree.map(lambda p, u: p - (lr * u).astype(p.dtype), state["params"], updates), opt_state

    def update(state: State, loss, aux, grads) -> tuple[State, dict[str, jax.Array]]:
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

    return update


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
