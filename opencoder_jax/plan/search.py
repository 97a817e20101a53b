"""`plan --search`: meshes, remat policies and micro-batches, first by arithmetic, then the best few by compilation.

--search=K   compiles the K most promising (default 4), each in a process of its own
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opencoder_jax.config import MeshConfig, RunConfig, replace
from opencoder_jax.plan.estimate import Estimate, estimate
from opencoder_jax.plan.topology import Topology

REMAT = ("none", "dots", "minimal", "full")


@dataclass
class Candidate:
    mesh: dict[str, int]
    remat: str
    grad_accum: int
    reason: str = ""  # why it lost
    estimate: Estimate | None = None
    plan: dict[str, Any] = field(default_factory=dict)

    @property
    def overrides(self) -> list[str]:
        axes = [f"--mesh.{name}={size}" for name, size in self.mesh.items()]
        return [*axes, f"--model.remat={self.remat}", f"--grad_accum={self.grad_accum}"]

    def applied(self, config: RunConfig) -> RunConfig:
        model = replace(config.model, remat=self.remat)
        return replace(config, mesh=MeshConfig(**self.mesh), model=model, grad_accum=self.grad_accum)

    def __str__(self) -> str:
        mesh = " ".join(f"{name} {size}" for name, size in self.mesh.items() if size > 1)
        return f"{mesh or 'one device'}, {self.remat}, accum {self.grad_accum}"


def candidates(config: RunConfig, topology: Topology) -> Iterator[Candidate]:
    """Every mesh, policy and accumulation that divides; tensor and context stay inside a node."""
    n, node = topology.num_devices, topology.devices_per_node
    m, batch = config.model, config.data.global_batch_size
    for tensor in _divisors(n):
        if tensor > node or m.num_kv_heads % tensor or m.num_query_heads % tensor or m.ffn_dim % tensor:
            continue
        for context in _divisors(n // tensor):
            if tensor * context > node or config.data.seq_len % context:
                continue
            for fsdp in _divisors(n // tensor // context):
                if m.embed_dim % fsdp:
                    continue
                data = n // tensor // context // fsdp
                for accum in _divisors(batch):
                    if (batch // accum) % (data * fsdp):
                        continue
                    mesh = {"data": data, "fsdp": fsdp, "tensor": tensor, "context": context}
                    for remat in REMAT:
                        yield Candidate(mesh, remat, accum)


def rank(config: RunConfig, topology: Topology) -> tuple[list[Candidate], list[Candidate]]:
    """(what fits by arithmetic, fastest first; what does not fit, with the reason)."""
    fitting, refused = [], []
    for c in candidates(config, topology):
        c.estimate = estimate(c.applied(config), c.mesh, topology)
        if c.estimate.memory > topology.memory_limit:
            over = (c.estimate.memory - topology.memory_limit) / 2**30
            c.reason = f"memory: {over:,.1f} GiB too much by arithmetic"
            refused.append(c)
        else:
            fitting.append(c)
    fitting.sort(key=_promise)
    return fitting, refused


def _promise(c: Candidate) -> tuple[float, ...]:
    """Sorts by time; of what the network does behind computation a tenth counts, since hiding is never complete."""
    e = c.estimate
    assert e is not None
    return e.step + 0.1 * e.network, c.grad_accum, e.memory


def search(config: RunConfig, topology: Topology, compiler: str, out: Path, arguments: list[str], count: int) -> int:
    """Prints and writes the ranking; returns 0, or 3 when nothing fits."""
    fitting, refused = rank(config, topology)
    if not fitting and not refused:
        raise ValueError(
            f"no mesh of {topology.num_devices} devices divides {config.name}: data.global_batch_size={config.data.global_batch_size}, "
            f"heads {config.model.num_query_heads}/{config.model.num_kv_heads}, embed_dim {config.model.embed_dim}"
        )
    print(
        f"{len(fitting) + len(refused):,} candidates: {len(refused):,} do not fit by arithmetic; compiling the best {min(count, len(fitting))}"
    )
    chosen = _varied(fitting, count)
    for i, c in enumerate(chosen):
        _compile(c, topology, compiler, out / f"candidate-{i}", arguments)
        said = f"{1e3 * c.plan['times']['step']:,.0f} ms" if c.plan else c.reason
        print(f"{c}: {said}", flush=True)
    done = sorted((c for c in chosen if c.plan and not c.reason), key=lambda c: c.plan["times"]["step"])
    text = report(config, topology, done, [c for c in chosen if c not in done], fitting, refused)
    out.mkdir(parents=True, exist_ok=True)
    (out / "search.md").write_text(text)
    print(text)
    if not done:
        print(f"nothing that was compiled fits; written to {out}: search.md")
        return 3
    (out / "winner.txt").write_text("\n".join(done[0].overrides) + "\n")
    print(f"winner: {' '.join(done[0].overrides)}\nwritten to {out}: search.md, winner.txt")
    return 0


def _varied(fitting: list[Candidate], count: int) -> list[Candidate]:
    """The fastest, at most two of any one mesh: arithmetic cannot tell neighbours apart."""
    chosen: list[Candidate] = []
    for c in fitting:
        if sum(c.mesh == other.mesh for other in chosen) < 2:
            chosen.append(c)
        if len(chosen) == count:
            break
    return chosen


def _compile(c: Candidate, topology: Topology, compiler: str, out: Path, arguments: list[str]) -> None:
    kept = [a for a in arguments if a.partition("=")[0] not in {o.partition("=")[0] for o in c.overrides}]
    command = [sys.executable, "-m", "opencoder_jax.plan", f"--topology={topology}", f"--compiler={compiler}"]
    done = subprocess.run(
        [*command, f"--out={out}", *kept, *c.overrides], capture_output=True, text=True, timeout=3600, check=False
    )
    if (out / "plan.json").exists() and done.returncode in (0, 3):
        c.plan = json.loads((out / "plan.json").read_text())
    if done.returncode:
        last = (done.stdout if done.returncode == 3 else done.stderr).strip().splitlines()
        c.reason = next(
            (x for x in reversed(last) if x.startswith(("does not fit", "error"))), last[-1] if last else "failed"
        )[:200]


def report(
    config: RunConfig, topology: Topology, done: list[Candidate], failed: list[Candidate],
    fitting: list[Candidate], refused: list[Candidate],
) -> str:  # fmt: skip
    from opencoder_jax.plan.report import table

    lines = [f"# Search: {config.name} on {topology}", "", "## Compiled, fastest first", ""]
    rows = []
    for i, c in enumerate(done):
        t, memory = c.plan["times"], c.plan["memory"]
        rows.append(
            (
                str(c),
                f"{1e3 * t['step']:,.0f}",
                f"{c.plan['tokens_per_second_per_device']:,.0f}",
                f"{c.plan['mfu_causal']:.1%}",
                f"{memory['peak'] / 2**30:.1f}",
                "winner" if i == 0 else lost(c.plan, done[0].plan),
            )
        )
    head = ("mesh, remat, accumulation", "ms/step", "tokens/s/device", "MFU causal", "GiB", "why not")
    lines += table(head, rows) if rows else ["none"]
    lines += [f"- {c}: {c.reason}" for c in failed]
    lines += ["", "## Fitting by arithmetic, not compiled (the next ten)", ""]
    compiled = {id(c) for c in (*done, *failed)}
    best = fitting[0].estimate if fitting else None
    rows = []
    for c in [c for c in fitting if id(c) not in compiled][:10]:
        e = c.estimate
        assert e is not None
        assert best is not None
        why = (
            "more recomputation"
            if e.compute > best.compute * 1.01
            else "network"
            if e.step > best.step * 1.01
            else "a tie"
        )
        rows.append(
            (str(c), f"{1e3 * e.step:,.0f}", f"{e.memory / 2**30:.1f}", f"{e.step / best.step - 1:+.1%}: {why}")
        )
    lines += table(("mesh, remat, accumulation", "ms/step", "GiB", "against the best"), rows) if rows else ["none"]
    lines += ["", f"## Not fitting by arithmetic: {len(refused):,}, nearest first", ""]
    near = sorted(refused, key=lambda c: c.estimate.memory if c.estimate else 0)[:5]
    lines += [f"- {c}: {c.reason}" for c in near]
    return "\n".join(lines) + "\n"


def lost(plan: dict[str, Any], winner: dict[str, Any]) -> str:
    """What a slower plan spends its extra time on."""
    mine, best = plan["times"], winner["times"]
    parts = {
        "matrix products (recomputation)": mine["matmul"] - best["matmul"],
        "kernels": mine["kernels"] - best["kernels"],
        "memory traffic": mine["memory"] - best["memory"],
        "network": mine["exposed"] - best["exposed"],
    }
    name = max(parts, key=lambda p: parts[p])
    return f"{mine['step'] / best['step'] - 1:+.1%}: {name} {1e3 * parts[name]:+,.0f} ms"


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]
