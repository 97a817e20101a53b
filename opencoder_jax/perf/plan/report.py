"""A plan as text, for the console and for plan.md."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from opencoder_jax.config import RunConfig, replace
from opencoder_jax.perf.plan.collectives import Collective
from opencoder_jax.perf.plan.compile import Memory
from opencoder_jax.perf.plan.estimate import estimate
from opencoder_jax.perf.plan.planner import Plan
from opencoder_jax.perf.plan.topology import Topology

GIB = 2**30


def text(plan: Plan) -> str:
    """The whole report, in Markdown."""
    t = plan.times
    lines = [
        f"# {plan.config} on {plan.topology}",
        "",
        f"mesh {mesh_text(plan.mesh)}; compiled in {plan.lower_seconds:.0f} + {plan.compile_seconds:.0f} s "
        f"by the {'machine' if plan.compiler == 'device' else plan.compiler}'s compiler; kernels: "
        + ", ".join(f"{kernel} {name}" for kernel, name in plan.backends.items()),
        "",
        f"T {plan.seq_len:,}, a batch of {plan.global_batch_size:,} records in {plan.grad_accum} micro-batch(es), "
        f"{plan.records} records a device at a time; remat {plan.remat}",
        "",
        "## Memory of one device",
        "",
        *memory_table(plan.memory),
        "",
        "## Collectives of one step",
        "",
        *collective_table(plan.collectives),
        "",
        "## Time of one step (predicted, not measured)",
        "",
        *table(
            ("part", "ms", "share"),
            [
                (name, f"{1e3 * seconds:,.1f}", f"{seconds / t.step:.1%}")
                for name, seconds in (
                    ("matmuls", t.matmul),
                    ("kernels", t.kernels),
                    ("limited by memory", t.memory),
                    ("network, not hidden", t.exposed),
                    ("step", t.step),
                )
            ],
        ),
        "",
        f"network {1e3 * t.network:,.1f} ms in all, {1e3 * (t.network - t.exposed):,.1f} ms of it behind computation"
        + "".join(f"; {axes} {1e3 * s:,.1f} ms" for axes, s in sorted(t.by_axes.items(), key=lambda x: -x[1])),
        "",
        "## Figures",
        "",
        *table(
            ("figure", "value"),
            [
                ("tokens per step", f"{plan.tokens_per_step:,}"),
                (
                    "FLOPs per token, causal / full convention",
                    " / ".join(f"{plan.flops_per_token[c] / 1e9:,.2f} G" for c in ("causal", "full")),
                ),
                ("FLOPs per token executed, recomputation included", f"{plan.executed_flops_per_token / 1e9:,.2f} G"),
                ("tokens/s per device", f"{plan.tokens_per_second_per_device:,.0f}"),
                ("tokens/s", f"{plan.tokens_per_step / t.step:,.0f}"),
                ("MFU, causal / full convention", f"{plan.mfu_causal:.1%} / {plan.mfu_full:.1%}"),
                ("tokens of the run", f"{plan.token_budget:,}"),
                ("hours; device-hours", f"{plan.hours:,.1f}; {plan.device_hours:,.0f}"),
            ],
        ),
    ]
    if plan.notes:
        lines += ["", *(f"Note: {note}." for note in plan.notes)]
    return "\n".join(lines) + "\n"


def mesh_text(mesh: dict[str, int]) -> str:
    return " x ".join(f"{name} {size}" for name, size in mesh.items())


def memory_table(m: Memory) -> list[str]:
    rows = [
        ("parameters", m.params),
        ("optimizer", m.optimizer),
        ("batch", m.batch),
        ("activations kept for the backward pass (analytical estimate)", m.activations),
        ("other temporaries: gradients, gathered weights, workspaces", m.temporaries),
        ("peak", m.peak),
        ("limit", m.limit),
    ]
    return table(("what", "GiB"), [(name, f"{size / GIB:.2f}") for name, size in rows])


def collective_table(found: Sequence[Collective]) -> list[str]:
    """One row per kind, axes and reach: how many run in a step and what they move."""
    groups: dict[tuple, list[Collective]] = defaultdict(list)
    for c in found:
        groups[c.kind, "+".join(c.axes) or "other", c.between_nodes].append(c)
    rows = []
    for (kind, axes, between), members in sorted(groups.items(), key=lambda g: -sum(c.seconds * c.count for c in g[1])):
        seconds = sum(c.seconds * c.count for c in members)
        rows.append(
            (
                kind,
                axes,
                "between nodes" if between else "inside a node",
                str(max(c.group_size for c in members)),
                f"{sum(c.count for c in members):,}",
                f"{sum(c.bytes * c.count for c in members) / 1e9:,.3f}",
                f"{sum(c.wire_bytes * c.count for c in members) / 1e9:,.3f}",
                f"{1e3 * seconds:,.1f}",
                f"{sum(c.count for c in members if c.is_async):,}",
            )
        )
    head = ("kind", "axes", "reach", "group", "count", "array GB", "sent GB", "ms alone", "of them asynchronous")
    return table(head, rows) if rows else ["none"]


def out_of_memory(config: RunConfig, mesh: dict[str, int], needed: int | None, topology: Topology) -> str:
    """One line: how much is missing and what to change. Args: needed: bytes of one device, None when nobody says."""
    limit = topology.memory_limit
    size = (
        f"needs {needed / GIB:.1f} GiB, {(needed - limit) / GIB:.1f} GiB more than" if needed else "does not fit into"
    )
    micro = config.data.global_batch_size // config.grad_accum
    ways = mesh["data"] * mesh["fsdp"]
    now = f"now {config.grad_accum}, {micro // ways} records a device at a time"
    order = ["none", "dots", "minimal", "full"]
    stronger = order[order.index(config.model.remat) + 1 :] if config.model.remat in order else ["full"]
    # Arithmetic that is known to be too low here is so elsewhere too.
    error = max(1.0, (needed or 0) / estimate(config, mesh, topology).memory)
    advice = []
    for remat in (config.model.remat, *stronger):
        changed = replace(config, model=replace(config.model, remat=remat))
        accum = _accumulation_that_fits(changed, mesh, topology, error)
        if accum is not None and (accum, remat) != (config.grad_accum, config.model.remat):
            change = [f"--model.remat={remat} (now {config.model.remat})"] if remat != config.model.remat else []
            change += [f"--grad_accum={accum} ({now})"] if accum != config.grad_accum else []
            advice.append(f"{' and '.join(change)}, which fits by the analytical estimate")
            break
    if not advice and micro > ways:
        advice.append(f"--grad_accum={config.grad_accum * (micro // ways)} ({now})")
    if not advice and stronger:
        advice.append(f"--model.remat=full (now {config.model.remat})")
    if mesh["data"] > 1:
        advice.append(
            f"a larger --mesh.fsdp (now {mesh['fsdp']}, with data {mesh['data']}): state and gradients are cut finer"
        )
    advice.append("--mesh.tensor or --mesh.context of 2 or more, or more devices")
    return f"{config.name} {size} the {limit / GIB:.1f} GiB that a device has; try " + "; ".join(advice)


def _accumulation_that_fits(config: RunConfig, mesh: dict[str, int], topology: Topology, error: float) -> int | None:
    """The smallest grad_accum from the present one on with which `error` times the arithmetic leaves a tenth to spare."""
    batch, ways = config.data.global_batch_size, mesh["data"] * mesh["fsdp"]
    for accum in range(config.grad_accum, batch // ways + 1):
        if batch % accum == 0 and batch // accum % ways == 0:
            found = estimate(replace(config, grad_accum=accum), mesh, topology)
            if error * found.memory <= 0.9 * topology.memory_limit:
                return accum
    return None


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Markdown that also reads well on a console: columns padded, all but the first right-aligned."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        return "| " + " | ".join([first, *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]) + " |"

    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (w + 1) + ":" for w in widths[1:])]) + "|"
    return [line(head), rule, *(line(row) for row in rows)]
