"""OpenCoder's training step on one GPU against the published runs: tokens/s, MFU, peak memory, where the time goes.

    python scripts/benchmarks/bench_gpu.py [--models 8b,8b_bf16,1p5b] [--steps 10] [--out runs/bench_gpu] [--field=value ...]
    python scripts/benchmarks/bench_gpu.py --models tiny     on a CPU: does the script run? Its figures are no measurements

The whole model with a real optimizer step, on synthetic tokens, each try in a process of its own. One GPU lacks the
memory that 512 have together: what is given up is tried in the order of TRIES until one fits, and is in the report
(8b keeps fp32 weights, 8b_bf16 does not).
Writes report.md, results.jsonl and each try's trace, HLO and profile table.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opencoder_jax import overrides
from opencoder_jax.perf.plan.report import table
from opencoder_jax.perf.sweep import hosts as sweep_hosts
from opencoder_jax.perf.sweep import sweep


@dataclass(frozen=True)
class Target:
    published: float  # tokens/s per GPU of the authors' run, from its GPU-hours
    published_mfu: float  # causal convention, 989 TFLOP/s
    ours: float  # tokens/s that we aim at on one H200
    ours_mfu: float
    fixed: dict[str, str] = field(default_factory=dict)


ONE = {f"mesh.{axis}": "1" for axis in ("data", "fsdp", "tensor", "context")}
TARGETS = {
    "8b": Target(7_523, 0.375, 9_500, 0.49, ONE | {"init_from": ""}),
    "8b_bf16": Target(7_523, 0.375, 9_500, 0.49, ONE | {"init_from": ""}),
    "1p5b": Target(20_808, 0.241, 43_000, 0.50, ONE),
    "tiny": Target(float("nan"), float("nan"), float("nan"), float("nan"), ONE),
}
# The plan's best for one H200 (docs/experiments/2026-11-21-plan-calibration.md), then what needs less memory. A record is
# one sequence; the state is 12, 10 or 6 bytes a weight, gradients aside. With 10, keeping products fits too, but XLA
# then runs kernels again by itself and is slower than with minimal recomputation.
HALF = {"model.param_dtype": "bfloat16", "optimizer.moment_dtype": "bfloat16"}
TRIES: dict[str, list[tuple[str, dict[str, str]]]] = {
    "8b": [
        ("fp32 weights, first moment bf16, 1 record a step, minimal recomputation",
         {"data.global_batch_size": "1", "model.remat": "minimal", "optimizer.moment_dtype": "bfloat16"}),
        ("fp32 weights, first moment bf16, 1 record a step, everything recomputed",
         {"data.global_batch_size": "1", "model.remat": "full", "optimizer.moment_dtype": "bfloat16"}),
    ],
    "8b_bf16": [
        ("bf16 weights and moments, 2 records a step, products kept",
         HALF | {"data.global_batch_size": "2", "model.remat": "dots"}),
        ("bf16 weights and moments, 1 record a step, minimal recomputation",
         HALF | {"data.global_batch_size": "1", "model.remat": "minimal"}),
    ],
    "1p5b": [
        ("nothing: fp32 weights and moments, 16 records a step, products kept",
         {"data.global_batch_size": "16", "model.remat": "dots"}),
        ("nothing: fp32 weights and moments, 8 records a step, products kept",
         {"data.global_batch_size": "8", "model.remat": "dots"}),
    ],
    "tiny": [("nothing", {})],
}  # fmt: skip

ALONE = sweep_hosts.Hosts()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="8b,8b_bf16,1p5b")
    parser.add_argument("--steps", default="10", help="timed steps")
    parser.add_argument("--out", type=Path, default=Path("runs/bench_gpu"))
    args, more = parser.parse_known_args()
    names = args.models.split(",")
    if unknown := set(names) - set(TRIES):
        parser.error(f"--models: no {', '.join(sorted(unknown))}; there are {', '.join(TRIES)}")
    results = [row for name in names for row in bench(name, args.steps, args.out / name, more)]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in results))
    text = report(results, args.out)
    (args.out / "report.md").write_text(text)
    print(text)
    return 0 if all(any("error" not in r for r in results if r["model"] == name) for name in names) else 1


def bench(name: str, steps: str, out: Path, more: list[str]) -> list[dict[str, Any]]:
    """The tries up to the first that ran."""
    rows = []
    for i, (words, changes) in enumerate(TRIES[name]):
        config = overrides.apply(
            overrides.load(name.removesuffix("_bf16")), TARGETS[name].fixed | changes | overrides.split(more)
        )
        directory = out / f"try-{i}"
        directory.mkdir(parents=True, exist_ok=True)
        print(f"{name}: {words}", flush=True)
        own = {"steps": steps, "warmup": "3", "fake": "", "timeout": "3600"}
        row = {
            "model": name,
            "given_up": words,
            "directory": str(directory),
            **sweep.run_everywhere(ALONE, 0, config, own, directory),
        }
        rows.append(row)
        print(f"  {row.get('error') or f'{row["tokens_per_second"]:,.0f} tokens/s'}", flush=True)
        if "error" not in row:
            break
    return rows


def report(rows: list[dict[str, Any]], out: Path) -> str:
    ran = [row for row in rows if "error" not in row]
    lines = ["# One GPU against the published runs", ""]
    if any(row["device_kind"] == "cpu" for row in ran):
        lines += ["Ran on a CPU: proves that the script works and says nothing of speed.", ""]
    body = []
    for row in ran:
        target, peak = TARGETS[row["model"]], row["peak_bytes"] or row["compiled_bytes"]
        body.append(
            (
                row["model"],
                row["device_kind"],
                f"{row['tokens_per_second']:,.0f}",
                "-" if row["mfu_causal"] is None else f"{row['mfu_causal']:.1%} / {row['mfu_full']:.1%}",
                f"{peak / 2**30:.1f}" + ("" if row["peak_bytes"] else " (compiler's figure)"),
                f"{target.published:,.0f} ({target.published_mfu:.1%})",
                f"{target.ours:,.0f} ({target.ours_mfu:.0%})",
                row["given_up"],
            )
        )
    head = (
        "model", "device", "tokens/s", "MFU causal / full", "peak GiB", "published tokens/s/GPU", "target", "given up",
    )  # fmt: skip
    lines += table(head, body) if body else ["Nothing ran."]
    lines += [
        "",
        *(f"{row['model']}, {row['given_up']}: did not run: {row['error']}" for row in rows if "error" in row),
    ]
    for row in ran:
        profile = next(Path(row["directory"]).glob("*.profile.md"))
        lines += ["", f"# {row['model']}: where the time goes", "", profile.read_text()]
    lines += ["", f"Traces, HLO and logs: {out}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
