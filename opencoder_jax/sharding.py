"""Where every dim of every array lives: the mesh, and the one table from logical axes to mesh axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from opencoder_kernels import varying

if TYPE_CHECKING:
    from opencoder_jax.config import MeshConfig, RunConfig

MESH_AXES = ("data", "fsdp", "tensor", "context")
TOKEN_AXES = ("data", "fsdp", "context")  # along which devices hold other tokens

# Logical axis -> mesh axes. Weights are sharded over fsdp along the model dim and over tensor along heads, ffn, vocabulary;
# activations over data and fsdp along the batch, over context along time, over tensor inside a layer.
RULES: dict[str, str | tuple[str, ...] | None] = {
    # weights
    "layers": None,
    "embed": "fsdp",
    "norm": None,
    "q_heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "ffn": "tensor",
    "vocab": "tensor",
    # activations
    "batch": ("data", "fsdp"),
    "time": "context",
    "hidden": None,
}


def spec(*logical_axes: str | None) -> P:
    """PartitionSpec of an array whose dims have these logical axes (None: replicated)."""
    return P(*(None if name is None else RULES[name] for name in logical_axes))


def constrain(x, *logical_axes: str | None):
    """Pins the layout of an activation to the rule table; nothing to do without a mesh."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, _open(spec(*logical_axes)))


def per_shard(f: Callable[..., Any], in_axes: Sequence[tuple | None], out_axes: tuple) -> Callable[..., Any]:
    """f on each device's part of its arguments: kernels are opaque to the partitioner. Without a mesh, f itself.

    Every argument is declared different on every device that holds other tokens, weights too: their gradients are summed
    over those axes where they leave f's gradient, after what f itself does with them (`gather` scatters them).

    Args: in_axes: logical axes of each argument, None where the argument is None. out_axes: of the result, or a tuple
    of such tuples.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return f
    several = bool(out_axes) and isinstance(out_axes[0], tuple)
    out_specs = tuple(_open(spec(*axes)) for axes in out_axes) if several else _open(spec(*out_axes))
    in_specs, left = tuple(_open(spec(*(axes or ()))) for axes in in_axes), open_axes()

    def differs(x):
        same = tuple(a for a in TOKEN_AXES if a in left and a not in varying.axes(x))
        return jax.lax.pcast(x, same, to="varying") if same else x

    def local(*args):
        return f(*jax.tree.map(differs, args))

    return jax.shard_map(local, in_specs=in_specs, out_specs=out_specs, axis_names=set(left))


def open_axes() -> tuple[str, ...]:
    """Mesh axes that no shard_map around has taken for itself."""
    mesh = jax.sharding.get_abstract_mesh()
    return tuple(a for a, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind != AxisType.Manual)


def _open(partition: P) -> P:
    """What is left of a layout inside a shard_map over some of its axes."""
    left = open_axes()
    groups = ((axes,) if isinstance(axes, str) else axes or () for axes in partition)
    return P(*(tuple(a for a in axes if a in left) or None for axes in groups))


def defers_data_all_reduce(sizes: Mapping[str, int], grad_accum: int) -> bool:
    """Whether the data-parallel all-reduce is deferred to the end of accumulation: once a step, not in every micro-batch.

    They do where weights are whole. Sharded over fsdp, what travels over data is small beside the scatters, and XLA hides
    those worse when nothing follows them (docs/experiments/2026-11-21-plan-topologies.md).
    Args: sizes: of the mesh axes.
    """
    return grad_accum > 1 and sizes["data"] > 1 and sizes["fsdp"] == 1


def gather(x, dtype, mesh_axis: str, axis: int):
    """Inside `per_shard`: the whole of a weight in the given dtype, its dim `axis` being sharded over `mesh_axis`.

    Its gradient is scattered over `mesh_axis` again, in fp32 at least: sums over hundreds of devices in bf16 would lose
    what they add. It is scattered first and summed over the other axes as a part (`per_shard`); the other way round, a
    whole matrix per layer would be summed between nodes.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return jnp.asarray(x, dtype)
    return _gather(x, jnp.dtype(dtype), mesh_axis, axis) if mesh.shape[mesh_axis] > 1 else x.astype(dtype)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _gather(x, dtype, mesh_axis: str, axis: int):
    return jax.lax.all_gather(x.astype(dtype), mesh_axis, axis=axis, tiled=True)


def _gather_forward(x, dtype, mesh_axis: str, axis: int):
    return _gather(x, dtype, mesh_axis, axis), jnp.zeros((), x.dtype)


def _gather_backward(dtype, mesh_axis: str, axis: int, like, d_whole):
    wide = jnp.promote_types(like.dtype, jnp.float32)
    d_part = jax.lax.psum_scatter(d_whole.astype(wide), mesh_axis, scatter_dimension=axis, tiled=True)
    return (d_part.astype(like.dtype),)


_gather.defvjp(_gather_forward, _gather_backward)


def mesh_shape(config: MeshConfig, num_devices: int) -> tuple[int, ...]:
    """Axis sizes in the order of MESH_AXES, with the -1 filled in.

    Raises:
      ValueError: more than one -1, or a product that is not `num_devices`.
    """
    sizes = [getattr(config, name) for name in MESH_AXES]
    known = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise ValueError(f"mesh: {dict(zip(MESH_AXES, sizes, strict=True))} needs sizes >= 1 and at most one -1")
    if -1 in sizes and num_devices % known == 0:
        sizes[sizes.index(-1)] = num_devices // known
    if math.prod(sizes) != num_devices:
        said = f"mesh: {dict(zip(MESH_AXES, sizes, strict=True))} does not make {num_devices} devices; axis sizes must multiply to {num_devices}"
        choices = []
        for name, size in zip(MESH_AXES, sizes, strict=True):
            rest, more = divmod(num_devices * max(size, 1), known)  # what the other sizes leave
            if size > 1 and not more:
                choices.append(f"{name} {f'of {divisors(rest)}' if -1 in sizes else rest}")
        hint = (
            f"with the others as they are, {' or '.join(choices)} fits" if choices else f"from {divisors(num_devices)}"
        )
        raise ValueError(f"{said}; {hint}")
    return tuple(sizes)


def divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def make_mesh(config: MeshConfig, devices=None) -> Mesh:
    """The mesh over all devices (or the given ones), in Auto mode: XLA fills in what is not pinned."""
    devices = jax.devices() if devices is None else devices
    shape = mesh_shape(config, len(devices))
    auto = (AxisType.Auto,) * len(MESH_AXES)
    if any(d.platform != "cpu" for d in devices):
        return jax.make_mesh(shape, MESH_AXES, axis_types=auto, devices=devices)  # topology-aware order
    return Mesh(np.asarray(devices).reshape(shape), MESH_AXES, axis_types=auto)


def check_fits(config: RunConfig, mesh: Mesh) -> None:
    """Rejects a model or batch that the mesh does not divide.

    Raises:
      ValueError: names the field, the mesh axis and the sizes that would fit.
    """
    size = dict(zip(mesh.axis_names, mesh.devices.shape, strict=True))
    model, data, num_devices = config.model, config.data, mesh.devices.size
    batch, ways = data.global_batch_size, size["data"] * size["fsdp"]

    def choices(value: int) -> list[int]:
        return divisors(math.gcd(value, num_devices))

    def divides(field: str, value: int, axis: str) -> None:
        if value % size[axis]:
            raise ValueError(
                f"{field}={value} is not divisible by mesh {axis}={size[axis]}; sizes that fit: {choices(value)}"
            )

    for field in ("num_query_heads", "num_kv_heads", "ffn_dim", "vocab_size"):
        divides(f"model.{field}", getattr(model, field), "tensor")
    divides("model.embed_dim", model.embed_dim, "fsdp")
    if size["context"] > 1 and data.seq_len % (2 * size["context"]):
        raise ValueError(
            f"data.seq_len={data.seq_len} is not divisible by 2 x mesh context={size['context']} (ring attention deals two "
            f"chunks to a device); sizes that fit: {choices(data.seq_len // 2)}"
        )
    accumulations = [n for n in divisors(batch) if batch // n % ways == 0]
    other = f"; grad_accum that fits: {accumulations}" if accumulations else ""
    if batch % config.grad_accum:
        raise ValueError(
            f"data.global_batch_size={batch} is not divisible by grad_accum={config.grad_accum}"
            + (other or f"; sizes that fit: {divisors(batch)}")
        )
    micro = batch // config.grad_accum
    if micro % ways:
        near = sorted({max(micro // ways, 1) * ways, -(-micro // ways) * ways})
        raise ValueError(
            f"data.global_batch_size / grad_accum={micro} is not divisible by mesh data x fsdp={ways}; sizes that fit: "
            f"{choices(micro)}; or a data.global_batch_size of {' or '.join(str(b * config.grad_accum) for b in near)}{other}"
        )


def shardings(mesh: Mesh, tree: Any) -> Any:
    """A NamedSharding for every array of a tree: of weights, their gradients or moments by their declared axes, replicated
    for all others. The tree's structure stays."""

    def of(leaf: Any) -> Any:
        layout = NamedSharding(mesh, spec(*leaf.axes) if isinstance(leaf, nnx.Variable) else P())
        return jax.tree.map(lambda _: layout, leaf)

    return jax.tree.map(of, tree, is_leaf=lambda x: isinstance(x, nnx.Variable))
