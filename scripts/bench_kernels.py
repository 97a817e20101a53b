"""Measures every kernel and implementation at OpenCoder's shapes; writes JSON and Markdown.

    python scripts/bench_kernels.py                        on a GPU: everything, into docs/benchmarks/
    python scripts/bench_kernels.py --shapes tiny --out /tmp/bench   anywhere: does the script run?
    python scripts/bench_kernels.py --predict              no measurement: roofline times, cells read 'not measured'

Times are medians over device time (CUPTI) on a GPU, else over wall-clock time, and the report says which. The ratio is to
the yardstick of the same run: cuDNN for attention without packing, XLA otherwise. The share is of a bf16 matrix product
of 8192 x 8192 x 8192 (copy bandwidth for the norm) measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import opencoder_kernels as kernels

# B, T, query heads, key/value heads, head dim, model dim, feed-forward dim, vocabulary (OpenCoder table 4).
SHAPES = {
    "8b": (1, 8192, 32, 8, 128, 4096, 14_336, 96_640),
    "1p5b": (1, 4096, 14, 14, 160, 2240, 6144, 96_640),
    "tiny": (1, 256, 2, 1, 64, 128, 256, 512),
}
IMPLEMENTATIONS = ("mosaic_gpu", "tpu", "cudnn", "xla")
# For predictions only: what one H200 was measured to do elsewhere (bf16 8192^3 product, copy read + write).
H200_FLOPS, H200_BYTES = 790e12, 4.3e12


def random(index: int, shape, dtype=jnp.bfloat16):
    return jax.random.normal(jax.random.key(index), shape, dtype)


def cases(shape: str):
    """Yields (operation, f(implementation) -> function of args, make_args, FLOPs and bytes that the forward needs)."""
    B, T, N, K, H, D, F, V = SHAPES[shape]

    def ids():
        return (jnp.arange(T) // max(T // 8, 1) + 1)[None].repeat(B, 0).astype(jnp.int32)

    def attend(implementation, q, k, v, segments=None):
        return kernels.attention(
            q, k, v, q_segment_ids=segments, kv_segment_ids=segments, implementation=implementation
        )

    def qkv():
        return random(0, (B, T, N, H)), random(1, (B, T, K, H)), random(2, (B, T, K, H))

    flops = 4 * B * N * H * T * T / 2
    size = 2 * B * T * H * 2 * (N + K)
    yield "attention", lambda i: partial(attend, i), qkv, flops, size, 2.5
    yield "attention, 8 documents", lambda i: partial(attend, i), lambda: (*qkv(), ids()), flops / 8, size, 2.5
    x = (B * T, D)
    yield (
        "swiglu", lambda i: partial(kernels.swiglu, implementation=i),
        lambda: (random(0, x), random(1, (D, F)) / D**0.5, random(2, (D, F)) / D**0.5),
        4 * B * T * D * F, 2 * (B * T * (D + F) + 2 * D * F), 2,
    )  # fmt: skip

    def norm(implementation, x, residual, weight):
        return kernels.rms_norm(x, weight, eps=1e-5, residual=residual, implementation=implementation)

    yield (
        "rms_norm + residual", lambda i: partial(norm, i), lambda: (random(0, x), random(1, x), random(2, (D,))),
        0, 4 * 2 * B * T * D, 1,
    )  # fmt: skip

    def loss(implementation, hidden, w_out):
        targets = jnp.arange(B * T, dtype=jnp.int32).reshape(B, T) % V
        weights = jnp.ones((B, T))
        return kernels.linear_cross_entropy(hidden, w_out, targets, weights, implementation=implementation)[0]

    yield (
        "linear_cross_entropy", lambda i: partial(loss, i), lambda: (random(0, (B, T, D)), random(1, (D, V)) / D**0.5),
        2 * B * T * D * V, 2 * (B * T * D + D * V), 2,
    )  # fmt: skip


def with_gradient(f, args):
    """f and its gradient with respect to every float argument, as one function of args."""
    floats = tuple(i for i, a in enumerate(args) if jnp.issubdtype(a.dtype, jnp.floating))

    def total(*args):
        return sum(out.astype(jnp.float32).sum() for out in jax.tree.leaves(f(*args)))

    return jax.value_and_grad(total, floats)


def milliseconds(f, args, repeats: int) -> float:
    """Median time of one call of the compiled f."""
    f = jax.jit(f)
    jax.block_until_ready(f(*args))
    if jax.default_backend() == "gpu":
        from jax.experimental.mosaic.gpu import profiler

        _, times = profiler.measure(f, iterations=repeats)(*args)
        return float(np.median(np.asarray(times, float)))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(f(*args))
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def ceilings(repeats: int) -> dict[str, float]:
    """Measured bf16 matrix product (FLOP/s) and copy (bytes/s, read and written)."""
    n = 8192 if jax.default_backend() != "cpu" else 512
    a, b = random(0, (n, n)), random(1, (n, n))
    copied = random(2, (2**28 if n == 8192 else 2**20,))
    return {
        "matmul_flops": 2 * n**3 / (milliseconds(jnp.matmul, (a, b), repeats) * 1e-3),
        "copy_bytes": 2 * copied.nbytes / (milliseconds(lambda x: -x, (copied,), repeats) * 1e-3),
    }


def measure(shapes: list[str], repeats: int) -> list[dict]:
    limits = ceilings(repeats)
    rows = []
    for shape in shapes:
        for operation, build, make_args, flops, size, backward in cases(shape):
            args = make_args()
            for direction in ("forward", "forward + backward"):
                work = flops * (1 if direction == "forward" else 1 + backward)
                traffic = size * (1 if direction == "forward" else 3)
                times, reasons = {}, {}
                for implementation in IMPLEMENTATIONS:
                    f = build(implementation)
                    try:
                        run = f if direction == "forward" else with_gradient(f, args)
                        times[implementation] = milliseconds(run, args, repeats)
                    except ValueError as error:  # the implementation refuses: its reason belongs in the report
                        reasons[implementation] = str(error).split("\n")[0]
                yardstick = times.get("cudnn", times.get("xla"))
                for implementation in IMPLEMENTATIONS:
                    row = {
                        "shape": shape,
                        "operation": operation,
                        "direction": direction,
                        "implementation": implementation,
                    }
                    if (ms := times.get(implementation)) is None:
                        row["refused"] = reasons[implementation]
                    else:
                        row |= {
                            "ms": ms,
                            "tflops": work / ms / 1e9,
                            "share": work / ms * 1e3 / limits["matmul_flops"] if flops else traffic / ms * 1e3 / limits["copy_bytes"],
                            "ratio": yardstick / ms if yardstick else None,
                        }  # fmt: skip
                    rows.append(row)
                    print(row, flush=True)
    return rows


def predictions(shapes: list[str]) -> list[dict]:
    """Roofline times on one H200: the larger of FLOPs over its matrix ceiling and bytes over its copy bandwidth."""
    rows = []
    for shape in shapes:
        for operation, _, _, flops, size, backward in cases(shape):
            for direction, work, traffic in (
                ("forward", flops, size),
                ("forward + backward", flops * (1 + backward), 3 * size),
            ):
                ms = 1e3 * max(work / H200_FLOPS, traffic / H200_BYTES)
                rows.append({"shape": shape, "operation": operation, "direction": direction, "roofline_ms": ms})
    return rows


def commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def markdown(header: dict, rows: list[dict]) -> str:
    lines = ["# Kernels", "", *(f"- {name}: {value}" for name, value in header.items()), ""]
    if rows and "roofline_ms" in rows[0]:
        lines += [
            "'Roofline' is a prediction (790 TFLOP/s, 4.3 TB/s), not a measurement; nothing here was run on a GPU.",
            "",
            "| shape | operation | direction | measured | roofline (predicted) |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {r['shape']} | {r['operation']} | {r['direction']} | not measured | {r['roofline_ms']:.3f} ms |"
            for r in rows
        ]
    else:
        lines += [
            "| shape | operation | direction | implementation | ms | TFLOP/s | share of ceiling | speed against yardstick |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for r in rows:
            start = f"| {r['shape']} | {r['operation']} | {r['direction']} | {r['implementation']} |"
            if "refused" in r:
                lines.append(f"{start} refused: {r['refused']} | | | |")
            else:
                ratio = "" if r["ratio"] is None else f"{r['ratio']:.2f}"
                lines.append(f"{start} {r['ms']:.3f} | {r['tflops']:.0f} | {100 * r['share']:.0f} % | {ratio} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["8b", "1p5b"], choices=SHAPES)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--predict", action="store_true")
    args = parser.parse_args()
    header = {"commit": commit(), "jax": jax.__version__}
    if args.predict:
        name, rows = "kernels_predicted", predictions(args.shapes)
        header |= {"device": "none: predictions for one NVIDIA H200"}
    else:
        device = jax.devices()[0]
        clock = "device time (CUPTI)" if device.platform == "gpu" else "wall-clock time"
        header |= {"device": device.device_kind, "clock": f"{clock}, median of {args.repeats}"}
        name = f"kernels_{device.device_kind.lower().replace(' ', '_')}"
        rows = measure(args.shapes, args.repeats)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"{name}.json").write_text(json.dumps({"header": header, "rows": rows}, indent=1) + "\n")
    (args.out / f"{name}.md").write_text(markdown(header, rows))
    print(f"wrote {args.out / name}.json and .md")


if __name__ == "__main__":
    main()
