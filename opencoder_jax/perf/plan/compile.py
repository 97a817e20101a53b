"""Compiles the training step for a target without hardware and reads memory and program out of the result."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass

from opencoder_jax.config import ModelConfig, RunConfig
from opencoder_jax.perf.plan import topology as machines
from opencoder_jax.perf.plan.topology import Topology


@dataclass(frozen=True)
class Memory:
    """Bytes on one device while a step runs."""

    params: int
    optimizer: int
    batch: int
    activations: int  # kept by the forward pass for the backward pass; analytical estimate, from the remat policy
    temporaries: int  # everything else the step allocates: gradients, gathered weights, workspaces
    peak: int  # arguments + results that reuse no argument + all temporaries
    limit: int

    @property
    def fits(self) -> bool:
        return self.peak <= self.limit


@dataclass(frozen=True)
class Compiled:
    memory: Memory
    hlo: str  # optimised and scheduled
    mesh_shape: dict[str, int]
    backends: dict[str, str]  # kernel -> backend that the step uses on this machine
    compiler_options: dict[str, bool | int | str]
    lower_seconds: float
    compile_seconds: float


class OutOfMemory(Exception):
    """The device's compiler found no way to fit the step (TPU; the GPU compiler does not look)."""

    def __init__(self, needed: int | None, message: str):
        super().__init__(message)
        self.needed = needed


def compile_step(config: RunConfig, topology: Topology, compiler: str) -> Compiled:
    """Lowers and compiles the step that training runs, on `topology`.

    Raises: ValueError when mesh, model and batch do not fit; OutOfMemory when the compiler gives up.
    """
    import jax
    import opencoder_kernels

    from opencoder_jax import sharding
    from opencoder_jax.step import make_train_step
    from opencoder_jax.xla_flags import compile_lowered

    mesh = sharding.make_mesh(config.mesh, machines.devices(topology, compiler))
    with jax.set_mesh(mesh):
        built = make_train_step(config, mesh)
        start = time.monotonic()
        lowered = built.step.lower(built.abstract_state, built.abstract_batch)
        lowered_at = time.monotonic()
        platform = "cpu" if compiler == "cpu" else topology.spec.platform
        try:
            compiled, options = compile_lowered(lowered, platform, config.xla_flags)
        except jax.errors.JaxRuntimeError as error:
            raise _rejected(error, topology) from error
    done = time.monotonic()
    stats = compiled.memory_analysis()
    state = built.abstract_state
    sizes = {
        "params": shard_bytes(state["params"]),
        "optimizer": shard_bytes(state["opt_state"]),
        "batch": shard_bytes(built.abstract_batch),
    }
    shape = dict(zip(mesh.axis_names, mesh.devices.shape, strict=True))
    activations = min(activation_bytes(config, shape), stats.temp_size_in_bytes)
    fresh = stats.output_size_in_bytes - stats.alias_size_in_bytes
    memory = Memory(
        **sizes,
        activations=activations,
        temporaries=stats.temp_size_in_bytes - activations,
        peak=stats.argument_size_in_bytes + fresh + stats.temp_size_in_bytes,
        limit=topology.memory_limit,
    )
    return Compiled(
        memory, compiled.as_text(), shape, opencoder_kernels.chosen(), options, lowered_at - start, done - lowered_at
    )


def _rejected(error: Exception, topology: Topology) -> Exception:
    """What the compiler's error means: OutOfMemory, a kernel too large for the device (ValueError), or the error itself."""
    text = str(error)
    first = text.splitlines()[0]
    if "vmem" in text.lower() and "hbm" not in text.lower():
        return ValueError(
            f"a kernel needs more on-chip memory (VMEM) than a {topology.spec.name} has; try --model.implementation=xla. "
            f"The compiler says: {first}"
        )
    if "RESOURCE_EXHAUSTED" not in text and "out of memory" not in text.lower():
        if "RET_CHECK" not in text:
            return error
        return ValueError(
            f"the compiler for {topology.spec.name} fails on this step, a flaw of its own; another --grad_accum, --mesh or "
            f"--model.implementation may avoid it. It says: {first}"
        )
    # The second form speaks of temporaries alone: that much at least.
    used = re.search(r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm", text) or re.search(
        r"required for HLO temporaries \(([\d.]+)([KMGT])\)", text
    )
    unit = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    needed = int(float(used.group(1)) * unit[used.group(2)]) if used else None
    return OutOfMemory(needed, first)


def shard_bytes(tree) -> int:
    """Bytes of a tree of sharded abstract arrays on one device."""
    import jax

    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def activation_bytes(config: RunConfig, mesh_shape: dict[str, int]) -> int:
    """Bytes per device that the forward pass keeps for the backward pass, from shapes and remat policy alone."""
    import jax.numpy as jnp

    m = config.model
    tokens = config.data.global_batch_size // config.grad_accum * config.data.seq_len
    tokens_here = tokens / (mesh_shape["data"] * mesh_shape["fsdp"] * mesh_shape["context"])
    values = m.num_layers * saved_per_token(m, mesh_shape["tensor"])
    return int(values * jnp.dtype(m.compute_dtype).itemsize * tokens_here)


def saved_per_token(m: ModelConfig, tensor: int) -> float:
    """Values that a layer keeps of one token for the backward pass.

    The layer's input (all policies); attention's result and the residual after it (minimal, offload: there in host
    memory); q, k, v and the gated product (dots). Without remat XLA keeps what it likes: counted as dots and the two
    normed inputs.
    """
    heads, groups = m.num_query_heads * m.head_dim / tensor, 2 * m.num_kv_heads * m.head_dim / tensor
    return {
        "full": m.embed_dim,
        "offload": m.embed_dim,
        "minimal": 2 * m.embed_dim + heads,
        "dots": 2 * m.embed_dim + 2 * heads + groups + m.ffn_dim / tensor,
        "none": 4 * m.embed_dim + 2 * heads + groups + m.ffn_dim / tensor,
    }[m.remat]
