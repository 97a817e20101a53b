"""Predicted step time: every instruction of the compiled, scheduled step against the device's roofs.

A device has two queues. Computation runs in the order of the schedule; an asynchronous collective starts when its
start instruction is reached and the network is free, and its done instruction waits for it. Time that computation
waits is exposed communication. Loop bodies are simulated once and multiplied by their trip count.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from opencoder_jax.metrics import peak_flops
from opencoder_jax.perf.plan import collectives
from opencoder_jax.perf.plan.cost import Cost, instruction_cost
from opencoder_jax.perf.plan.hlo import Computation, Instruction, Module
from opencoder_jax.perf.plan.kernels import MATMUL_EFFICIENCY, KernelCosts
from opencoder_jax.perf.plan.topology import Topology

# Share of the memory bandwidth that real kernels reach: a device copy ran at 4.3 of 4.8 TB/s on one H200; the same is
# assumed of the others, TPUs included.
MEMORY_EFFICIENCY = 0.9

# Peak relative to bf16, by the products' operand type.
_RELATIVE_PEAK = {"f64": 1 / 15, "f32": 0.5, "bf16": 1.0, "f16": 1.0, "s8": 2.0}


@dataclass
class Times:
    """Seconds of one step on one device, and what they are spent on."""

    step: float = 0.0
    matmul: float = 0.0  # instructions limited by the matrix units
    kernels: float = 0.0  # hand-written kernels
    memory: float = 0.0  # instructions limited by memory bandwidth
    network: float = 0.0  # collectives, hidden or not
    exposed: float = 0.0  # waiting for them
    flops: float = 0.0  # executed, recomputation included
    bytes: float = 0.0
    by_axes: dict[str, float] = field(default_factory=dict)  # network seconds by mesh axes

    def add(self, other: Times, times: int = 1) -> None:
        for name in ("step", "matmul", "kernels", "memory", "network", "exposed", "flops", "bytes"):
            setattr(self, name, getattr(self, name) + times * getattr(other, name))
        for axes, seconds in other.by_axes.items():
            self.by_axes[axes] = self.by_axes.get(axes, 0.0) + times * seconds


class Simulator:
    def __init__(self, module: Module, mesh_shape: dict[str, int], topology: Topology, kernels: KernelCosts):
        peak = peak_flops(topology.spec.device_kind)
        assert peak is not None, topology.spec.device_kind
        self.module, self.mesh_shape, self.topology, self.kernels = module, mesh_shape, topology, kernels
        self.peak = peak
        self._cache: dict[str, Times] = {}

    def run(self) -> Times:
        return self._computation(self.module.entry)

    def seconds(self, cost: Cost, efficiency: float = MATMUL_EFFICIENCY) -> tuple[float, bool]:
        """Time of one instruction alone, and whether the matrix units limit it."""
        relative = _RELATIVE_PEAK.get(cost.flops_dtype, 2.0 if cost.flops_dtype.startswith("f8") else 1.0)
        products = cost.flops / (self.peak * relative * efficiency)
        memory = cost.bytes / (self.topology.spec.memory_bandwidth * MEMORY_EFFICIENCY)
        return max(products, memory), products >= memory

    def _computation(self, name: str) -> Times:
        if name not in self._cache:
            self._cache[name] = self._simulate(self.module.computations[name])
        return self._cache[name]

    def _simulate(self, computation: Computation) -> Times:
        times, now, network_free = Times(), 0.0, 0.0
        finished: dict[str, float] = {}  # start instruction -> when its collective ends
        for instruction in computation.instructions:
            collective = collectives.describe(instruction, 1, self.mesh_shape, self.topology)
            if collective is not None:
                begin = max(now, network_free)
                network_free = begin + collective.seconds
                times.network += collective.seconds
                label = "+".join(collective.axes) or "other"
                times.by_axes[label] = times.by_axes.get(label, 0.0) + collective.seconds
                if collective.is_async:
                    finished[instruction.name] = network_free
                else:
                    times.exposed += network_free - now
                    now = network_free
            elif instruction.opcode.endswith("-done") and instruction.operands[0] in finished:
                end = finished.pop(instruction.operands[0])
                times.exposed += max(0.0, end - now)
                now = max(now, end)
            elif instruction.opcode in ("while", "call", "conditional"):
                now += self._nested(instruction, times)
            else:
                now += self._compute(computation, instruction, times)
        # What is still in progress when the computation ends (its done is elsewhere, or it is unused) is waited for.
        if finished and network_free > now:
            times.exposed += network_free - now
            now = network_free
        times.step = now
        return times

    def _nested(self, instruction: Instruction, times: Times) -> float:
        repeat = (instruction.trips or 1) if instruction.opcode == "while" else 1
        inner = [self._computation(name) for name in instruction.called()]
        if instruction.opcode == "conditional" and inner:
            inner = [max(inner, key=lambda t: t.step)]
        before = times.step
        for part in inner:
            times.add(part, repeat)
        times.step = before
        return repeat * sum(part.step for part in inner)

    def _compute(self, computation: Computation, instruction: Instruction, times: Times) -> float:
        kernel = self.kernels.cost(self.module, computation, instruction)
        cost, efficiency = kernel or (instruction_cost(self.module, computation, instruction), MATMUL_EFFICIENCY)
        seconds, is_product = self.seconds(cost, efficiency)
        times.flops += cost.flops
        times.bytes += cost.bytes
        if kernel is not None:
            times.kernels += seconds
        elif is_product and cost.flops:
            times.matmul += seconds
        else:
            times.memory += seconds
        return seconds
