"""`plan --search`: meshes, remat policies and micro-batches, first by analytical estimate, then the best few by compilation.

--search=K   compiles the most promising, each in a process of its own, until K of them fit (default 4). The remat policy
`offload` is left out: what its copies to host memory cost is not modelled. What is compiled is chosen to differ: a
candidate like one already chosen must be faster by more than arithmetic errs. What the command line says of mesh, remat
policy and accumulation is not searched: `--mesh.tensor=2` looks among the meshes with tensor 2 only.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from opencoder_data import command

from opencoder_jax import overrides
from opencoder_jax.config import MeshConfig, RunConfig, replace
from opencoder_jax.perf.plan.estimate import Estimate, estimate
from opencoder_jax.perf.plan.topology import Topology
from opencoder_jax.sharding import divisors

EXIT_NOTHING_FITS = 3
REMAT = ("none", "dots", "minimal", "full")
# By how much arithmetic misjudges one candidate against another (docs/experiments/2026-11-21-plan-topologies.md).
ARITHMETIC_ERROR = 0.03


@dataclass(eq=False)
class Candidate:
    mesh: dict[str, int]
    remat: str
    grad_accum: int
    records: int  # of a micro-batch, on one device (or the devices of a tensor and context group)
    reason: str = ""  # why it lost
    estimate: Estimate | None = None
    plan: dict[str, Any] = field(default_factory=dict)

    @property
    def fields(self) -> dict[str, int | str]:
        axes = {f"mesh.{name}": size for name, size in self.mesh.items()}
        return {**axes, "model.remat": self.remat, "grad_accum": self.grad_accum}

    @property
    def overrides(self) -> list[str]:
        return [f"--{name}={value}" for name, value in self.fields.items()]

    def applied(self, config: RunConfig) -> RunConfig:
        model = replace(config.model, remat=self.remat)
        return replace(config, mesh=MeshConfig(**self.mesh), model=model, grad_accum=self.grad_accum)

    @property
    def directory(self) -> str:
        return f"candidate-{'-'.join(map(str, self.mesh.values()))}-{self.remat}-{self.grad_accum}"

    def as_dict(self) -> dict[str, Any]:
        e = _estimate(self)
        fate = {"mesh": self.mesh, "remat": self.remat, "grad_accum": self.grad_accum, "micro_batch": self.records}
        fate["why_it_lost"] = self.reason
        return fate | {
            "by_estimate": {"seconds": e.step, "bytes": e.memory},
            "compiled": {"seconds": self.plan["times"]["step"], "bytes": self.plan["memory"]["peak"]}
            if self.plan
            else None,
        }

    def __str__(self) -> str:
        mesh = " ".join(f"{name} {size}" for name, size in self.mesh.items() if size > 1)
        return f"{mesh or 'one device'}, {self.remat}, {self.grad_accum} x {self.records}"


def candidates(config: RunConfig, topology: Topology, given: Mapping[str, Any] | None = None) -> Iterator[Candidate]:
    """Every mesh, policy and accumulation that divides; tensor and context stay inside a node. Args: given: fields that
    are settled."""
    for c in _all_candidates(config, topology):
        if all((given or {}).get(name, value) == value for name, value in c.fields.items()):
            yield c


def _all_candidates(config: RunConfig, topology: Topology) -> Iterator[Candidate]:
    n, node = topology.num_devices, topology.devices_per_node
    m, batch = config.model, config.data.global_batch_size
    for tensor in divisors(n):
        if tensor > node or any(x % tensor for x in (m.num_kv_heads, m.num_query_heads, m.ffn_dim, m.vocab_size)):
            continue
        for context in divisors(n // tensor):
            if tensor * context > node or (context > 1 and config.data.seq_len % (2 * context)):
                continue
            for fsdp in divisors(n // tensor // context):
                if m.embed_dim % fsdp:
                    continue
                data = n // tensor // context // fsdp
                for accum in divisors(batch):
                    if (batch // accum) % (data * fsdp):
                        continue
                    mesh = {"data": data, "fsdp": fsdp, "tensor": tensor, "context": context}
                    for remat in REMAT:
                        yield Candidate(mesh, remat, accum, batch // accum // data // fsdp)


def rank(
    config: RunConfig, topology: Topology, given: Mapping[str, Any] | None = None
) -> tuple[list[Candidate], list[Candidate]]:
    """(what fits by the analytical estimate, fastest first; what does not fit, with the reason)."""
    fitting, rejected = [], []
    for c in candidates(config, topology, given):
        c.estimate = estimate(c.applied(config), c.mesh, topology)
        if c.estimate.memory > topology.memory_limit:
            over = (c.estimate.memory - topology.memory_limit) / 2**30
            c.reason = f"memory: {over:,.1f} GiB too much by the analytical estimate"
            rejected.append(c)
        else:
            fitting.append(c)
    fitting.sort(key=lambda c: (_estimate(c).step, _estimate(c).memory))
    return fitting, rejected


def _estimate(c: Candidate) -> Estimate:
    assert c.estimate is not None
    return c.estimate


def search(config: RunConfig, topology: Topology, compiler: str, out: Path, arguments: list[str], count: int) -> int:
    """Compiles the most promising candidates until `count` of them fit (twice as many at most); prints and writes
    search.md, candidates.jsonl with every candidate's fate, and winner.py.

    Args: arguments: the overrides that the command line gave, --config among them.
    Returns: 0, or 3 when nothing that was compiled fits.
    """
    known = dict(overrides.leaves(config))
    asked = [name for name in overrides.split(arguments) if name in known and known[name] != -1]
    given = {name: known[name] for name in asked}
    fitting, rejected = rank(config, topology, given)
    settled = [
        f"--{name}={given[name]}" for name in asked if name.startswith("mesh.") or name in ("model.remat", "grad_accum")
    ]
    if not fitting and not rejected:
        if settled and next(_all_candidates(config, topology), None):
            raise ValueError(f"--search: no candidate has {' '.join(settled)}; leave some of it to the search")
        near = [str(t) for t in _neighbours(topology) if next(candidates(config, t), None)]
        raise ValueError(
            f"no mesh of {topology.num_devices} devices divides {config.name}: data.global_batch_size={config.data.global_batch_size}, "
            f"heads {config.model.num_query_heads}/{config.model.num_kv_heads}, embed_dim {config.model.embed_dim}; "
            f"topologies that fit: {', '.join(near) or 'none near it'}"
        )
    print(
        f"{len(fitting) + len(rejected):,} candidates: {len(rejected):,} do not fit by the analytical estimate; compiling the best {min(count, len(fitting))}"
    )
    out.mkdir(parents=True, exist_ok=True)
    tried: list[Candidate] = []
    for c in varied(fitting, 2 * count):
        if sum(not t.reason for t in tried) == count:
            break
        _compile(c, topology, compiler, out / c.directory, arguments)
        said = c.reason or f"{1e3 * c.plan['times']['step']:,.0f} ms, {c.plan['memory']['peak'] / 2**30:.1f} GiB"
        print(f"{c}: {said}", flush=True)
        tried.append(c)
    done = sorted((c for c in tried if not c.reason), key=lambda c: c.plan["times"]["step"])
    for c in done[1:]:
        c.reason = lost(c.plan, done[0].plan)
    for c in fitting:
        if c not in tried:
            c.reason = _not_tried(c, fitting[0])
    failed = [c for c in tried if c not in done]
    text = report(config, topology, done, failed, [c for c in fitting if c not in tried], rejected)
    (out / "search.md").write_text(text)
    with (out / "candidates.jsonl").open("w") as file:
        for c in (*done, *failed, *(c for c in fitting if c not in tried), *rejected):
            file.write(json.dumps(c.as_dict()) + "\n")
    print(text)
    if not done:
        print(f"nothing that was compiled fits; written to {out}: search.md, candidates.jsonl")
        return EXIT_NOTHING_FITS
    (out / "winner.py").write_text(winner(topology, done[0], arguments))
    print(f"winner: {' '.join(done[0].overrides)}\nwritten to {out}: search.md, candidates.jsonl, winner.py")
    print(f"train with it: python -m opencoder_jax.train --config={out}/winner.py")
    return 0


def _neighbours(topology: Topology) -> list[Topology]:
    """The same machine with its first or last side one to four longer or shorter."""
    sides = range(len(topology.dims))[:: max(len(topology.dims) - 1, 1)]
    return [
        replace(topology, dims=tuple(n + by if i == side else n for i, n in enumerate(topology.dims)))
        for side in sides
        for by in (*range(-4, 0), *range(1, 5))
        if topology.dims[side] + by > 0
        and not (topology.spec.platform == "cuda" and side and topology.dims[1] + by > 8)
    ]


def winner(topology: Topology, c: Candidate, arguments: list[str]) -> str:
    """A configuration file for --config: the one searched, with its overrides and the winner's."""
    values = overrides.split([*_others(c, arguments), *c.overrides])
    base = values.pop("config") or ""
    base = str(Path(base).resolve()) if base.endswith(".py") else base
    step, memory = c.plan["times"]["step"], c.plan["memory"]
    lines = [
        f'"""{base} on {topology}: {c}, as `plan --search` found it.',
        "",
        f"Predicted, not measured: {1e3 * step:,.0f} ms a step, {c.plan['tokens_per_second_per_device']:,.0f} tokens/s per device, "
        f"{memory['peak'] / 2**30:.1f} of {memory['limit'] / 2**30:.1f} GiB.",
        '"""',
        "",
        "from opencoder_jax.config import RunConfig",
        "from opencoder_jax.overrides import apply, load",
        "",
        "",
        "def config() -> RunConfig:",
        "    overrides = {",
        *(f"        {json.dumps(name)}: {json.dumps(text) if text else None}," for name, text in values.items()),
        "    }",
        f"    return apply(load({json.dumps(base)}), overrides)",
    ]
    return "\n".join(lines) + "\n"


def varied(fitting: list[Candidate], count: int) -> list[Candidate]:
    """`count` of the fastest that differ: for every mesh, policy or micro-batch that a candidate shares with one already
    chosen it counts as slower by what arithmetic errs."""
    chosen: list[Candidate] = []
    seen: Counter[tuple[str, object]] = Counter()

    def handicapped(c: Candidate) -> float:
        return _estimate(c).step * (1 + ARITHMETIC_ERROR * sum(seen[trait] for trait in _traits(c)))

    left = list(fitting)
    while left and len(chosen) < count:
        chosen.append(min(left, key=handicapped))
        left.remove(chosen[-1])
        seen.update(_traits(chosen[-1]))
    return chosen


def _traits(c: Candidate) -> tuple[tuple[str, object], ...]:
    return ("mesh", tuple(c.mesh.values())), ("remat", c.remat), ("micro-batch", c.records)


def _others(c: Candidate, arguments: list[str]) -> list[str]:
    """The arguments that the candidate does not decide."""
    return [a for a in arguments if a.partition("=")[0] not in {o.partition("=")[0] for o in c.overrides}]


def _compile(c: Candidate, topology: Topology, compiler: str, out: Path, arguments: list[str]) -> None:
    """Plans a candidate in a process of its own; fills in its plan, or the reason why there is none that fits."""
    (out / "plan.json").unlink(missing_ok=True)
    plan = ["opencoder_jax.perf.plan", f"--topology={topology}", f"--compiler={compiler}", f"--out={out}"]
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    try:
        with command.child_process([*plan, *_others(c, arguments), *c.overrides], **streams) as process:
            said, _ = process.communicate(timeout=3600)
    except subprocess.TimeoutExpired:
        c.reason = "not compiled within an hour"
        return
    if (out / "plan.json").exists():
        c.plan = json.loads((out / "plan.json").read_text())
    if process.returncode:
        lines = [x for x in said.splitlines() if x.strip()]
        telling = [x for x in lines if x.startswith(("does not fit", "error"))]
        c.reason = ([*telling, *lines[-1:], "failed"])[0][:300]


def _not_tried(c: Candidate, best: Candidate) -> str:
    e, b = _estimate(c), _estimate(best)
    return f"{_lost(e.step, b.step, _parts_by_estimate(e), _parts_by_estimate(b))} by the analytical estimate"


def report(
    config: RunConfig, topology: Topology, done: list[Candidate], failed: list[Candidate],
    untried: list[Candidate], rejected: list[Candidate],
) -> str:  # fmt: skip
    from opencoder_jax.perf.plan.report import table

    head = (
        "mesh, remat, micro-batches x records",
        "ms/step",
        "tokens/s/device",
        "MFU causal",
        "GiB",
        "analytical estimate",
        "why it lost",
    )
    rows = []
    for c in done:
        e = _estimate(c)
        rows.append(
            (
                str(c),
                f"{1e3 * c.plan['times']['step']:,.0f}",
                f"{c.plan['tokens_per_second_per_device']:,.0f}",
                f"{c.plan['mfu_causal']:.1%}",
                f"{c.plan['memory']['peak'] / 2**30:.1f}",
                f"{1e3 * e.step:,.0f} ms, {e.memory / 2**30:.1f} GiB",
                c.reason or "winner",
            )
        )
    lines = [f"# Search: {config.name} on {topology}", ""]
    lines += ["Every time is predicted, none measured.", "", "## Compiled, fastest first", ""]
    lines += [*table(head, rows), "", agreement(done)] if rows else ["none"]
    if failed:
        lines += ["", "## Compiled, but out", "", *(f"- {c}: {c.reason}" for c in failed)]
    lines += ["", f"## Fitting by the analytical estimate, not compiled: {len(untried):,}, best first, ten of them", ""]
    rows = []
    for c in untried[:10]:
        e = _estimate(c)
        rows.append((str(c), f"{1e3 * e.step:,.0f}", f"{e.memory / 2**30:.1f}", c.reason))
    lines += (
        table(("mesh, remat, micro-batches x records", "ms/step", "GiB", "why it lost"), rows) if rows else ["none"]
    )
    lines += ["", f"## Not fitting by the analytical estimate: {len(rejected):,}, nearest first, five of them", ""]
    near = sorted(rejected, key=lambda c: _estimate(c).memory)[:5]
    lines += [f"- {c}: {c.reason}" for c in near]
    return "\n".join(lines) + "\n"


def lost(plan: dict[str, Any], winner: dict[str, Any]) -> str:
    """What a slower plan spends its extra time on."""
    mine, best = plan["times"], winner["times"]
    return _lost(mine["step"], best["step"], _parts_compiled(mine), _parts_compiled(best))


def _lost(step: float, best_step: float, parts: dict[str, float], best: dict[str, float]) -> str:
    more = {name: parts[name] - best[name] for name in parts}
    name = max(more, key=lambda p: more[p])
    return f"{step / best_step - 1:+.1%}: {name} {1e3 * more[name]:+,.0f} ms"


def _parts_compiled(times: dict[str, float]) -> dict[str, float]:
    return {
        "products and kernels (recomputation)": times["matmul"] + times["kernels"],
        "memory traffic": times["memory"],
        "exposed network": times["exposed"],
    }


def _parts_by_estimate(e: Estimate) -> dict[str, float]:
    return {
        "products and kernels (recomputation)": e.products + e.attention,
        "memory traffic": e.traffic,
        "exposed network": e.exposed,
    }


def agreement(done: list[Candidate]) -> str:
    """How far arithmetic was from the compiler: its times over the compiled ones, and the rank correlation."""
    both = np.array([(_estimate(c).step, c.plan["times"]["step"]) for c in done])
    ratio = both[:, 0] / both[:, 1]
    said = f"Estimated over compiled time: {ratio.min():.2f} to {ratio.max():.2f}"
    if len(done) < 3:
        return f"{said}."
    ranks = both.argsort(axis=0).argsort(axis=0)
    return f"{said}; rank correlation (Spearman) of {len(done)}: {np.corrcoef(ranks.T).flat[1]:.2f}."
