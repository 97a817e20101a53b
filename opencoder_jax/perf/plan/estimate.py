"""Memory and time of a step by analytical estimates alone: some microseconds a candidate, close enough to the compiled program to
rank candidates and to throw most of them away.

It counts what the compiled program is made of (matmuls, attention kernels, memory traffic, collectives) with the
same shares of the device's roofs as `roofline` does, for the fused kernels; what XLA makes of it is not foreseen.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from opencoder_jax.config import RunConfig
from opencoder_jax.metrics import peak_flops
from opencoder_jax.perf.plan.collectives import duration
from opencoder_jax.perf.plan.compile import activation_bytes, saved_per_token
from opencoder_jax.perf.plan.kernels import (
    ATTENTION_BACKWARD_EFFICIENCY,
    ATTENTION_FORWARD_EFFICIENCY,
    MATMUL_EFFICIENCY,
)
from opencoder_jax.perf.plan.roofline import MEMORY_EFFICIENCY
from opencoder_jax.perf.plan.topology import Topology
from opencoder_jax.sharding import defers_data_all_reduce

# Of the collectives of the layers, this share finds nothing to hide behind: what compiled programs leave, 0.3 to 0.8.
LAYER_EXPOSED = 0.4


@dataclass(frozen=True)
class Estimate:
    """Of one step on one device: bytes, and seconds as in `roofline.Times`."""

    memory: int
    products: float
    attention: float
    traffic: float  # bound by memory bandwidth
    network: float  # hidden or not
    exposed: float

    @property
    def step(self) -> float:
        return self.products + self.attention + self.traffic + self.exposed


def num_weights(config: RunConfig) -> tuple[int, int]:
    """Weights of one layer, and of embedding and output together."""
    m = config.model
    heads = m.embed_dim * m.head_dim * (2 * m.num_query_heads + 2 * m.num_kv_heads)
    return heads + 3 * m.embed_dim * m.ffn_dim + 2 * m.embed_dim, 2 * m.vocab_size * m.embed_dim


def estimate(config: RunConfig, mesh: dict[str, int], topology: Topology) -> Estimate:
    """Args: mesh: axis sizes whose product is the topology's device count."""
    tokens = config.data.global_batch_size // config.grad_accum * config.data.seq_len
    tokens_here = tokens / (mesh["data"] * mesh["fsdp"] * mesh["context"])
    products, attention, traffic = (config.grad_accum * tokens_here * x for x in _token_seconds(config, mesh, topology))
    traffic += _state_traffic(config, mesh) / (topology.spec.memory_bandwidth * MEMORY_EFFICIENCY)
    network, exposed = _network(config, mesh, topology, tokens_here, products + attention + traffic)
    memory = _memory(config, mesh, tokens_here)
    return Estimate(int(memory), products, attention, traffic, network, exposed)


def _memory(config: RunConfig, mesh: dict[str, int], tokens_here: float) -> float:
    """State and gradients as parts; two layers, embedding and output whole in bf16; what the forward pass keeps, gathered
    matrices included; working space of one layer; the output matrix's gradient in fp32 and a chunk of logits."""
    m, tensor = config.model, mesh["tensor"]
    layer, ends = num_weights(config)
    sizes = _bytes_per_weight(config)
    state = (sum(sizes) + max(sizes[0], 4 if config.grad_accum > 1 else 0)) * (m.num_layers * layer + ends)
    gathered = (2 * 2 * layer + 2 * ends) / tensor + 4 * ends / 2 / tensor + 2 * m.num_layers * _kept(config, mesh)
    layer_work = tokens_here * 2 * (6 * m.embed_dim + 6 * m.ffn_dim / tensor)
    logits = 1024 * m.vocab_size / tensor * 8
    return state / (mesh["fsdp"] * tensor) + gathered + activation_bytes(config, mesh) + layer_work + logits


def _kept(config: RunConfig, mesh: dict[str, int]) -> float:
    """Weights of a layer that stay gathered from the forward to the backward pass: without remat SwiGLU's gate and up."""
    m = config.model
    return 2 * m.embed_dim * m.ffn_dim / mesh["tensor"] if m.remat == "none" and mesh["fsdp"] > 1 else 0.0


def _bytes_per_weight(config: RunConfig) -> tuple[int, int, int]:
    """Of the weight itself, Adam's first moment and its second."""
    weight = 2 if config.model.param_dtype == "bfloat16" else 4
    return weight, 2 if config.optimizer.moment_dtype == "bfloat16" else 4, weight


def _token_seconds(config: RunConfig, mesh: dict[str, int], topology: Topology) -> tuple[float, float, float]:
    """Seconds of products, attention and memory traffic that one token of a device takes, forwards and backwards."""
    m, tensor = config.model, mesh["tensor"]
    D, F, V = m.embed_dim, m.ffn_dim / tensor, m.vocab_size / tensor
    heads, keys = m.num_query_heads * m.head_dim / tensor, m.num_kv_heads * m.head_dim / tensor
    qkv, out, gate_up, down = D * (heads + 2 * keys), heads * D, 2 * D * F, F * D
    # Run again before the backward pass; SwiGLU's gradient makes gate and up once more by itself.
    again = {"none": 0, "dots": 0, "full": qkv + out + gate_up}.get(m.remat, qkv + gate_up)
    flops = m.num_layers * (6 * (qkv + out + gate_up + down) + 2 * gate_up + 2 * again) + 6 * D * V
    # Two products forwards, and once more where nothing is kept; seven in the two kernels backwards. A causal one touches
    # half of the pairs.
    pairs = m.num_layers * heads * config.data.seq_len
    forward, backward = 4 if m.remat == "full" else 2, 7
    # Values written or read: norms, rotary embedding, residual sums and their gradients; what is kept passes through
    # memory on its way into the stack of layers and out of it, forwards and backwards.
    rotary = 2 * (heads + keys)
    repeated = {"none": 0, "dots": 4 * D, "full": 6 * D + rotary}.get(m.remat, 4 * D + rotary)
    values = m.num_layers * (22 * D + 2 * rotary + 2 * heads + repeated + 4 * saved_per_token(m, tensor))
    peak = peak_flops(topology.spec.device_kind)
    assert peak is not None, topology.spec.device_kind
    attention = pairs * (forward / ATTENTION_FORWARD_EFFICIENCY + backward / ATTENTION_BACKWARD_EFFICIENCY)
    bandwidth = topology.spec.memory_bandwidth * MEMORY_EFFICIENCY
    return flops / (peak * MATMUL_EFFICIENCY), attention / peak, 2 * values / bandwidth


def _state_traffic(config: RunConfig, mesh: dict[str, int]) -> float:
    """Bytes of weights, gradients and moments that a step reads and writes on a device.

    Each micro-batch casts the weights twice and clears and fills the gradients; several add them to a sum. The update
    reads gradients twice (their norm) and reads and writes the state.
    """
    layer, ends = num_weights(config)
    sizes = _bytes_per_weight(config)
    cast = 2 * (sizes[0] + 2) if sizes[0] > 2 else 0
    each = cast + 3 * sizes[0] + (8 + sizes[0] if config.grad_accum > 1 else 0)
    update = 2 * max(sizes[0], 4 if config.grad_accum > 1 else 0) + 2 * sum(sizes)
    weights = (config.model.num_layers * layer + ends) / (mesh["fsdp"] * mesh["tensor"])
    kept = 8 * config.model.num_layers * _kept(config, mesh)  # bf16, into the stack of layers and out of it
    return config.grad_accum * (weights * each + kept) + weights * update


def _network(
    config: RunConfig, mesh: dict[str, int], topology: Topology, tokens_here: float, compute: float
) -> tuple[float, float]:
    """(seconds of collectives, seconds of them that nothing hides)."""
    m, tensor, n = config.model, mesh["tensor"], config.grad_accum
    layer, ends = num_weights(config)
    once = defers_data_all_reduce(mesh, n)

    def seconds(kind: str, size: float, *axes: str) -> float:
        group = math.prod(mesh[a] for a in axes)
        return 0.0 if group == 1 else duration(kind, int(size), group, nodes_of(axes, mesh, topology), topology)

    def weights(count: float, again: float) -> float:
        """Gathered forwards, `again` of them backwards too, gradients scattered and, as they come, summed over data: in
        every micro-batch."""
        weight, gradient = 2 * count / tensor, 4 * count / tensor  # bf16, fp32
        moved = seconds("all-gather", weight, "fsdp") + seconds("reduce-scatter", gradient, "fsdp")
        moved += seconds("all-gather", 2 * again, "fsdp") if again else 0.0
        return moved + (0.0 if once else seconds("all-reduce", gradient / mesh["fsdp"], "data"))

    layers = m.num_layers * weights(layer, layer / tensor - _kept(config, mesh))
    # At both ends there is nothing else to do.
    end = weights(ends, 0)
    # Activations of tensor parallelism wait for one another: two sums forwards, two backwards, one or two once more.
    sums = {"none": 4, "dots": 4, "full": 6}.get(m.remat, 5)
    waiting = m.num_layers * sums * seconds("all-reduce", 2 * tokens_here * m.embed_dim, "tensor")
    # The ring over context hides behind attention: keys and values forwards and backwards, their fp32 gradients backwards.
    # Dealing out chunks does not: q, k, v and back out; q, k, v, d out and back dq, dk, dv.
    hops, keys = mesh["context"] - 1, 4 * tokens_here * m.num_kv_heads * m.head_dim / tensor
    queries = 2 * tokens_here * m.num_query_heads * m.head_dim / tensor
    ring = 2 * hops * seconds("collective-permute", keys, "context")
    ring += (hops + 1) * seconds("collective-permute", 2 * keys, "context")
    waiting += m.num_layers * seconds("collective-permute", 5 * queries + 3 * keys, "context")
    hiding = layers + m.num_layers * ring
    exposed = max(LAYER_EXPOSED * layers, hiding - compute / n) + end + waiting
    # Where the data-parallel all-reduce is deferred, it runs after the last micro-batch, with nothing beside it.
    weights_here = (m.num_layers * layer + ends) / tensor
    last = seconds("all-reduce", 4 * weights_here, "data") if once else 0.0
    return n * (hiding + end + waiting) + last, n * exposed + last


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
