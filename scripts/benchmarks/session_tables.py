"""The tables that a GPU session makes of its parts' results: training steps, memory, step time, profiles, and an index."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from opencoder_jax import overrides
from opencoder_jax.compiled import OPTIMIZED_HLO
from opencoder_jax.perf.plan import hlo, topology
from opencoder_jax.perf.plan.estimate import estimate
from opencoder_jax.perf.plan.kernels import KernelCosts
from opencoder_jax.perf.plan.report import table
from opencoder_jax.perf.plan.roofline import Simulator, Times
from scripts.benchmarks import bench_gpu

GIB = 2**30


def write(out: Path, work: Path, device: dict[str, Any], record: dict[str, Any]) -> None:
    """Writes steps.json, steps.md, profile_MODEL.md and README.md into `out`, of whatever parts have finished so far."""
    rows = [predicted(row, device["kind"]) for row in steps(work)]
    (out / "steps.json").write_text(json.dumps(rows, indent=1) + "\n")
    (out / "steps.md").write_text(step_tables(rows, device))
    ran = [row for row in rows if "error" not in row]
    for row in ran:
        source = next(Path(row["directory"]).glob("*.profile.md"))
        text = f"# {row['model']} on {row['device_kind']}: where the time of a step goes\n\n{source.read_text()}"
        (out / f"profile_{row['model']}.md").write_text(text)
    (out / "README.md").write_text(index(out, device, record))


def steps(work: Path) -> list[dict[str, Any]]:
    """All tries of all models, as `bench_gpu` wrote them."""
    files = sorted(work.glob("step_*/results.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def spec_of(device_kind: str) -> topology.DeviceSpec:
    """The machine of the plan's table that a device is; an H100's figures for one that is not in it."""
    names = {spec.device_kind: spec for spec in topology.DEVICES.values()}
    near = next((spec for spec in topology.DEVICES.values() if spec.name in device_kind.lower()), None)
    return names.get(device_kind) or near or topology.DEVICES["h100"]


def predicted(row: dict[str, Any], device_kind: str) -> dict[str, Any]:
    """The row with the plan's figures: of the analytical estimate, and of the very program that was measured."""
    if "error" in row:
        return row
    directory = Path(row["directory"])
    config = overrides.from_dict(json.loads(next(directory.glob("*.config.json")).read_text()))
    machine = topology.parse(f"{spec_of(device_kind).name}:1x1")
    try:
        module = hlo.parse(next(directory.glob(f"*.trace/{OPTIMIZED_HLO}")).read_text())
        times = Simulator(module, row["mesh"], machine, KernelCosts(config.model)).run()
    except ValueError as error:  # a form of HLO that is not known: what was measured is still wanted
        times, row = Times(step=math.nan), row | {"plan_error": str(error)}
    rough = estimate(config, row["mesh"], machine)
    return row | {
        "plan_seconds": times.step, "plan_matmul": times.matmul, "plan_kernels": times.kernels, "plan_memory": times.memory,
        "estimate_seconds": rough.step, "estimate_bytes": rough.memory, "plan_device": machine.spec.name,
    }  # fmt: skip


def step_tables(rows: list[dict[str, Any]], device: dict[str, Any]) -> str:
    """Speed; compiled against measured memory; predicted against measured step time."""
    ran = [row for row in rows if "error" not in row]
    lines = [f"# Training step on one {device['kind']}", "", f"jax {device['jax']}. {device['driver']}", ""]
    if device["platform"] == "cpu":
        lines += ["Ran on a CPU: shows that the script works and says nothing of speed.", ""]
    if not ran:
        lines += ["Nothing ran.", ""]
    else:
        lines += ["## Speed", "", *table(*speed(ran)), "", "## Memory, GiB", "", *table(*memory(ran)), ""]
        lines += ["## Step time: predicted against measured", "", *table(*times(ran)), ""]
        lines += [
            f"Predicted: the plan's figures for {ran[0]['plan_device']}, of the program that was measured; the estimate needs no "
            "program.",
            "",
        ]
    lines += [f"{row['model']}: not predicted: {row['plan_error']}" for row in ran if "plan_error" in row]
    lines += [f"{row['model']}, {row['given_up']}: did not run: {row['error']}" for row in rows if "error" in row]
    return "\n".join(lines).rstrip() + "\n"


def speed(rows: list[dict[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    head = (
        "model",
        "ms a step",
        "tokens/s",
        "MFU causal / full",
        "published tokens/s/GPU",
        "target (H200)",
        "given up",
    )
    body = []
    for row in rows:
        target = bench_gpu.TARGETS[row["model"]]
        mfu = "-" if row["mfu_causal"] is None else f"{row['mfu_causal']:.1%} / {row['mfu_full']:.1%}"
        body.append((
            row["model"], f"{1e3 * row['median_seconds']:,.1f}", f"{row['tokens_per_second']:,.0f}", mfu,
            f"{target.published:,.0f}", f"{target.ours:,.0f}", row["given_up"],
        ))  # fmt: skip
    return head, body


def memory(rows: list[dict[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    head = ("model", "compiled", "measured peak", "measured / compiled", "analytical estimate")
    body = []
    for row in rows:
        measured = row["peak_bytes"]
        body.append((
            row["model"], f"{row['compiled_bytes'] / GIB:.2f}", f"{measured / GIB:.2f}" if measured else "not counted here",
            f"{measured / row['compiled_bytes']:.3f}" if measured else "-", f"{row['estimate_bytes'] / GIB:.2f}",
        ))  # fmt: skip
    return head, body


def times(rows: list[dict[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    head = (
        "model", "measured ms", "predicted ms", "measured / predicted", "of it matmuls, kernels, memory", "analytical estimate ms",
        "fastest / slowest step",
    )  # fmt: skip
    body = []
    for row in rows:
        parts = ", ".join(f"{1e3 * row[name]:,.0f}" for name in ("plan_matmul", "plan_kernels", "plan_memory"))
        seconds = row["step_seconds"]
        body.append((
            row["model"], f"{1e3 * row['median_seconds']:,.1f}", f"{1e3 * row['plan_seconds']:,.1f}",
            f"{row['median_seconds'] / row['plan_seconds']:.2f}", parts, f"{1e3 * row['estimate_seconds']:,.1f}",
            f"{min(seconds) / max(seconds):.2f}" if all(map(math.isfinite, seconds)) else "-",
        ))  # fmt: skip
    return head, body


def index(out: Path, device: dict[str, Any], record: dict[str, Any]) -> str:
    """What was run, in which state, and where its figures are."""
    rows = [
        (name, part["state"], f"{part.get('seconds', 0):,.0f}", part.get("commit", ""), part.get("why", ""))
        for name, part in record.items()
    ]
    files = sorted(p.name for p in out.iterdir() if p.suffix == ".md" and p.name != "README.md")
    return "\n".join([
        f"# GPU session on {device['kind']}", "",
        f"jax {device['jax']}. {device['driver']} Made by `scripts/benchmarks/gpu_session.py`.", "",
        *table(("part", "state", "seconds", "commit", "why"), rows), "", *(f"- [{name}]({name})" for name in files), "",
    ])  # fmt: skip
