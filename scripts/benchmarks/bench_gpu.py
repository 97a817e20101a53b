"""OpenCoder's training step on one GPU against the published runs: tokens/s, MFU, peak memory, where the time goes.

    python scripts/benchmarks/bench_gpu.py [--memory 141] [--models 8b,8b_bf16,1p5b] [--steps 10] [--out runs/bench_gpu] [--field=value ...]
    python scripts/benchmarks/bench_gpu.py --memory 80       entries for an H100
    python scripts/benchmarks/bench_gpu.py --memory 0        tiny, on a CPU: does the script run? Its figures are no measurements

The whole model with a real optimizer step, on synthetic tokens, each try in a process of its own. One GPU lacks the
memory that 512 have together: what is given up is tried in the order of TRIES until one fits, and is in the report
(8b keeps fp32 weights, 8b_bf16 does not).
Writes report.md, results.jsonl and each try's trace, HLO and profile table.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opencoder_jax import overrides
from opencoder_jax.config import RunConfig
from opencoder_jax.perf.plan.report import table
from opencoder_jax.perf.sweep import hosts as sweep_hosts
from opencoder_jax.perf.sweep import sweep


@dataclass(frozen=True)
class Target:
    """Tokens/s per GPU and causal MFU (of 989 TFLOP/s): of the authors' run, from its GPU-hours, and aimed at on one H200."""

    published: float
    published_mfu: float
    ours: float
    ours_mfu: float


@dataclass(frozen=True)
class Try:
    """What is given up against a run on many GPUs, in words and as overrides."""

    words: str
    changes: dict[str, str]


ALWAYS = {f"mesh.{axis}": "1" for axis in ("data", "fsdp", "tensor", "context")} | {"init_from": ""}
NAN = float("nan")
TARGETS = {
    "8b": Target(7_523, 0.375, 9_500, 0.49),
    "8b_bf16": Target(7_523, 0.375, 9_500, 0.49),
    "1p5b": Target(20_808, 0.241, 43_000, 0.50),
    "tiny": Target(NAN, NAN, NAN, NAN),
}


def attempt(words: str, records: int, remat: str, **more: str) -> Try:
    """A try with so many records a step; more: further fields, `__` for the dot."""
    fields = {name.replace("__", "."): value for name, value in more.items()}
    return Try(words, {"data.global_batch_size": str(records), "model.remat": remat, **fields})


# The plan's best for one GPU (docs/experiments/2026-11-21-plan-calibration.md), then what needs less memory, by the GiB of
# the device at least. A record is one sequence; the state is 12, 10 or 6 bytes a weight, gradients aside. With 10, saving
# matmuls fits too, but XLA then recomputes kernels by itself and is slower than with minimal recomputation.
HALF = {"model__param_dtype": "bfloat16", "optimizer__moment_dtype": "bfloat16"}
FIRST = {"optimizer__moment_dtype": "bfloat16"}
TRIES: dict[int, dict[str, list[Try]]] = {
    130: {
        "8b": [
            attempt("fp32 weights, first moment bf16, 1 record a step, minimal recomputation", 1, "minimal", **FIRST),
            attempt("fp32 weights, first moment bf16, 1 record a step, everything recomputed", 1, "full", **FIRST),
        ],
        "8b_bf16": [
            attempt("bf16 weights and moments, 2 records a step, matmuls saved", 2, "dots", **HALF),
            attempt("bf16 weights and moments, 1 record a step, minimal recomputation", 1, "minimal", **HALF),
        ],
        "1p5b": [
            attempt("nothing: fp32 weights and moments, 16 records a step, matmuls saved", 16, "dots"),
            attempt("nothing: fp32 weights and moments, 8 records a step, matmuls saved", 8, "dots"),
        ],
    },
    70: {
        "8b_bf16": [
            attempt("bf16 weights and moments, 1 record a step, minimal recomputation", 1, "minimal", **HALF),
            attempt("bf16 weights and moments, 1 record a step, everything recomputed", 1, "full", **HALF),
        ],
        "1p5b": [
            attempt("nothing: fp32 weights and moments, 8 records a step, matmuls saved", 8, "dots"),
            attempt("nothing: fp32 weights and moments, 4 records a step, minimal recomputation", 4, "minimal"),
        ],
    },
    0: {"tiny": [Try("nothing", {})]},
}


def entries(memory_gib: float) -> dict[str, list[Try]]:
    """The tries by model of a device with so much memory."""
    return next(tries for least, tries in TRIES.items() if memory_gib >= least)


ALONE = sweep_hosts.Hosts()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="", help="default: all that the memory has entries for")
    parser.add_argument("--memory", type=float, default=141.0, help="of the GPU in GiB or GB: chooses the entries")
    parser.add_argument("--steps", default="10", help="timed steps")
    parser.add_argument("--timeout", default="3600", help="seconds of one try")
    parser.add_argument("--out", type=Path, default=Path("runs/bench_gpu"))
    args, more = parser.parse_known_args()
    tries = entries(args.memory)
    names = args.models.split(",") if args.models else list(tries)
    if unknown := set(names) - set(tries):
        parser.error(f"--models: no {', '.join(sorted(unknown))} for {args.memory:g} GiB; there are {', '.join(tries)}")
    own = {"steps": args.steps, "warmup": "3", "fake": "", "timeout": args.timeout}
    results = [row for name in names for row in bench(name, tries[name], own, args.out / name, more)]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in results))
    text = report(results, args.out)
    (args.out / "report.md").write_text(text)
    print(text)
    return 0 if all(any("error" not in r for r in results if r["model"] == name) for name in names) else 1


def configured(name: str, one: Try, more: list[str]) -> RunConfig:
    """The configuration of a try. more: overrides of the user, which count most."""
    return overrides.apply(overrides.load(name.removesuffix("_bf16")), ALWAYS | one.changes | overrides.split(more))


def bench(name: str, tries: list[Try], own: dict[str, str], out: Path, more: list[str]) -> list[dict[str, Any]]:
    """The tries up to the first that ran. own: options of the sweep's runs."""
    rows = []
    for i, one in enumerate(tries):
        directory = out / f"try-{i}"
        directory.mkdir(parents=True, exist_ok=True)
        print(f"{name}: {one.words}", flush=True)
        measured = sweep.run_everywhere(ALONE, 0, configured(name, one, more), own, directory)
        row = {"model": name, "given_up": one.words, "directory": str(directory), **measured}
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
