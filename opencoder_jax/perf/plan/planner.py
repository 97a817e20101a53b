"""One plan: compile, read, simulate, and say it in figures."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from opencoder_jax.config import RunConfig
from opencoder_jax.metrics import flops_per_token, mfu
from opencoder_jax.perf.plan import collectives, hlo
from opencoder_jax.perf.plan.collectives import Collective
from opencoder_jax.perf.plan.compile import Compiled, Memory, compile_step
from opencoder_jax.perf.plan.cost import product_flops
from opencoder_jax.perf.plan.kernels import KernelCosts, find
from opencoder_jax.perf.plan.roofline import Simulator, Times
from opencoder_jax.perf.plan.topology import Topology


@dataclass(frozen=True)
class Plan:
    """What one step of `config` needs on `topology`; times in seconds, sizes in bytes, per device."""

    config: str
    topology: str
    compiler: str  # device, or cpu: then memory and times are those of another program and indicative only
    mesh: dict[str, int]
    seq_len: int
    global_batch_size: int
    grad_accum: int
    records: int  # of a micro-batch, on one device (or the devices of a tensor and context group)
    remat: str
    backends: dict[str, str]
    compiler_options: dict[str, bool | int | str]
    memory: Memory
    collectives: tuple[Collective, ...]
    times: Times
    flops_per_token: dict[str, float]  # causal and full convention, without recomputation
    executed_flops_per_token: float
    tokens_per_step: int
    tokens_per_second_per_device: float
    mfu_causal: float
    mfu_full: float
    token_budget: int
    hours: float
    device_hours: float
    lower_seconds: float
    compile_seconds: float
    notes: tuple[str, ...]

    def as_dict(self) -> dict:
        return dataclasses.asdict(self)


def make_plan(config: RunConfig, topology: Topology, compiler: str = "device") -> tuple[Plan, Compiled]:
    """Compiles and evaluates. Raises: ValueError, OutOfMemory as `compile_step` does."""
    compiled = compile_step(config, topology, compiler)
    return evaluate(config, topology, compiler, compiled), compiled


def evaluate(config: RunConfig, topology: Topology, compiler: str, compiled: Compiled) -> Plan:
    module = hlo.parse(compiled.hlo)
    kernels = KernelCosts(config.model)
    times = Simulator(module, compiled.mesh_shape, topology, kernels).run()
    found = collectives.find(module, compiled.mesh_shape, topology)
    seq_len, tokens = config.data.seq_len, config.data.global_batch_size * config.data.seq_len
    rate = tokens / times.step / topology.num_devices
    kind = topology.spec.device_kind
    seconds = config.num_steps * times.step
    notes = []
    if compiler == "cpu":
        notes.append(
            "compiled for fake CPU devices: collectives are those of the step, memory and times only indicative"
        )
    if unknown := module.unknown_loops():
        notes.append(f"{len(unknown)} loops of unknown length counted once: {', '.join(unknown[:3])}")
    if again := compiler_recomputes(module):
        notes.append(
            f"short of memory, XLA runs {again:,} kernels and products a step again by itself: more accumulation, or a stronger remat policy, may be faster"
        )
    if kernels.unknown:
        listed = ", ".join(f"{count} of {target}" for target, count in kernels.unknown.items())
        notes.append(
            f"kernels of the program in which no matmul is known (norms, say) count by memory traffic alone: {listed}"
        )
    mfu_of = {causal: mfu(rate, config.model, seq_len, kind, causal=causal) for causal in (True, False)}
    return Plan(
        config=config.name,
        topology=str(topology),
        compiler=compiler,
        mesh=compiled.mesh_shape,
        seq_len=seq_len,
        global_batch_size=config.data.global_batch_size,
        grad_accum=config.grad_accum,
        records=config.data.global_batch_size
        // config.grad_accum
        // (compiled.mesh_shape["data"] * compiled.mesh_shape["fsdp"]),
        remat=config.model.remat,
        backends=compiled.backends,
        compiler_options=compiled.compiler_options,
        memory=compiled.memory,
        collectives=tuple(found),
        times=times,
        flops_per_token={
            "causal": flops_per_token(config.model, seq_len, causal=True),
            "full": flops_per_token(config.model, seq_len, causal=False),
        },
        executed_flops_per_token=times.flops * topology.num_devices / tokens,
        tokens_per_step=tokens,
        tokens_per_second_per_device=rate,
        mfu_causal=mfu_of[True] or 0.0,
        mfu_full=mfu_of[False] or 0.0,
        token_budget=config.num_steps * tokens,
        hours=seconds / 3600,
        device_hours=seconds / 3600 * topology.num_devices,
        lower_seconds=compiled.lower_seconds,
        compile_seconds=compiled.compile_seconds,
        notes=tuple(notes),
    )


def compiler_recomputes(module: hlo.Module) -> int:
    """Kernels and matmuls of a step that XLA added to save memory: it names them after the first with `.remat`."""
    return sum(
        times
        for computation, instruction, times in module.walk()
        if ".remat" in instruction.name
        and (find(module, computation, instruction) or product_flops(computation, instruction)[0])
    )
