"""Memory and time of a step by arithmetic alone: microseconds a candidate, good enough to throw most of them away."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from opencoder_jax.config import RunConfig
from opencoder_jax.metrics import flops_per_token, peak_flops
from opencoder_jax.plan.collectives import duration
from opencoder_jax.plan.compile import activation_bytes
from opencoder_jax.plan.kernels import MATMUL_EFFICIENCY
from opencoder_jax.plan.topology import Topology

# Products of the forward pass that the backward pass repeats, as a share of forward and backward together (a third is
# forward): all of it, all but attention, or nothing that multiplies.
_RECOMPUTED = {"none": 0.0, "dots": 0.0, "minimal": 0.3, "offload": 0.3, "full": 1 / 3}


@dataclass(frozen=True)
class Estimate:
    memory: int  # bytes of one device
    compute: float  # seconds
    network: float  # that could hide behind computation
    exposed: float  # that cannot, or does not

    @property
    def step(self) -> float:
        return self.compute + self.exposed


def num_weights(config: RunConfig) -> tuple[int, int]:
    """Weights of one layer, and of embedding and output together."""
    m = config.model
    heads = m.embed_dim * m.head_dim * (2 * m.num_query_heads + 2 * m.num_kv_heads)
    return heads + 3 * m.embed_dim * m.ffn_dim + 2 * m.embed_dim, 2 * m.vocab_size * m.embed_dim


def estimate(config: RunConfig, mesh: dict[str, int], topology: Topology) -> Estimate:
    """Args: mesh: axis sizes whose product is the topology's device count."""
    m, micro_steps = config.model, config.grad_accum
    layer, ends = num_weights(config)
    weights = m.num_layers * layer + ends
    cut = mesh["fsdp"] * mesh["tensor"]
    tokens = config.data.global_batch_size // micro_steps * config.data.seq_len
    tokens_here = tokens / (mesh["data"] * mesh["fsdp"] * mesh["context"])

    # Memory: fp32 weights, gradients and two moments as parts; two layers, embedding and output whole in bf16; what the
    # forward pass keeps; working space of one layer; the output matrix's gradient in fp32 and a chunk of logits.
    state = 16 * weights / cut
    gathered = (2 * 2 * layer + 2 * ends) / mesh["tensor"] + 4 * ends / 2 / mesh["tensor"]
    layer_work = tokens_here * 2 * (6 * m.embed_dim + 6 * m.ffn_dim / mesh["tensor"])
    logits = 1024 * m.vocab_size / mesh["tensor"] * 8
    memory = state + gathered + activation_bytes(config, mesh) + layer_work + logits

    peak = peak_flops(topology.spec.device_kind)
    assert peak is not None
    flops = flops_per_token(m, config.data.seq_len, causal=True) * (1 + _RECOMPUTED[m.remat])
    compute = flops * tokens * micro_steps / topology.num_devices / (peak * MATMUL_EFFICIENCY)

    def seconds(kind: str, size: float, axes: tuple[str, ...]) -> float:
        group = math.prod(mesh[a] for a in axes)
        return 0.0 if group == 1 else duration(kind, int(size), group, nodes_of(axes, mesh, topology), topology)

    # Weights: gathered forwards and backwards and scattered, each micro-batch; then once a sum over data.
    share = 2 * weights / mesh["tensor"]
    network = micro_steps * (2 * seconds("all-gather", share, ("fsdp",)) + seconds("reduce-scatter", share, ("fsdp",)))
    network += seconds("all-reduce", share / mesh["fsdp"], ("data",))
    # Activations of tensor parallelism wait for one another: two sums forwards, two backwards, one or two once more.
    sums = 4 + (0 if m.remat in ("none", "dots") else 1)
    size = tokens_here * m.embed_dim * 2
    waiting = micro_steps * m.num_layers * sums * seconds("all-reduce", size, ("tensor",))
    # The ring over context (kernels' attention/context.py) hides behind attention: keys and values forwards and backwards,
    # their fp32 gradients backwards. Dealing out chunks does not: q, k, v and back out; q, k, v, d out and back dq, dk, dv.
    hops, keys = mesh["context"] - 1, tokens_here * 4 * m.num_kv_heads * m.head_dim / mesh["tensor"]
    queries = tokens_here * 2 * m.num_query_heads * m.head_dim / mesh["tensor"]
    rounds = micro_steps * m.num_layers
    network += rounds * 2 * hops * seconds("collective-permute", keys, ("context",))
    network += rounds * (hops + 1) * seconds("collective-permute", 2 * keys, ("context",))
    waiting += rounds * seconds("collective-permute", 5 * queries + 3 * keys, ("context",))
    return Estimate(int(memory), compute, network, waiting + max(0.0, network - compute))


def nodes_of(axes: tuple[str, ...], mesh: dict[str, int], topology: Topology) -> int:
    """Nodes that one group along `axes` touches; the mesh's last axis is the innermost."""
    return _nodes(tuple(name in axes for name in mesh), tuple(mesh.values()), topology.devices_per_node)


@functools.cache
def _nodes(inside: tuple[bool, ...], sizes: tuple[int, ...], per_node: int) -> int:
    members = [0]
    for i, size in enumerate(sizes):
        if inside[i]:
            stride = math.prod(sizes[i + 1 :])
            members = [m + k * stride for m in members for k in range(size)]
    return len({m // per_node for m in members})
