"""Measures every kernel and implementation at OpenCoder's shapes; writes JSON and Markdown.

    python scripts/benchmarks/bench_kernels.py                        on a GPU: everything, into docs/benchmarks/
    python scripts/benchmarks/bench_kernels.py --shapes tiny --out /tmp/bench   anywhere: does the script run?
    python scripts/benchmarks/bench_kernels.py --shapes tiny --interpret gpu --out /tmp/bench   the kernels' path of it (or tpu)
    python scripts/benchmarks/bench_kernels.py --predict              no measurement: roofline times, cells read 'not measured'

Times are medians of single calls: on a GPU of the summed time of a call's kernels (CUPTI; the gaps between kernels, copies
and memsets are not in it), elsewhere of wall-clock time, and the report says which; inputs and cotangents are random. The ratio is to the yardstick of the same run: cuDNN for attention without packing, the plain matrix
products alone for the linear cross-entropy, XLA otherwise. The share is of a bf16 matmul of 8192 x 8192 x 8192
(copy bandwidth for the norm) measured in the same run. Memory is what the compiled program needs beside its arguments
and results.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import opencoder_kernels as kernels
from opencoder_kernels import interpret

# B, T, query heads, key/value heads, head dim, model dim, feed-forward dim, vocabulary (OpenCoder table 4).
SHAPES = {
    "8b": (1, 8192, 32, 8, 128, 4096, 14_336, 96_640),
    "1p5b": (1, 4096, 14, 14, 160, 2240, 6144, 96_640),
    "tiny": (1, 256, 2, 1, 64, 128, 256, 512),
}
IMPLEMENTATIONS = ("mosaic_gpu", "tpu", "cudnn", "xla")
PRODUCTS = "products alone"
ITERATIONS = 5  # calls that the profiler sees at a time
FORWARD, BOTH = DIRECTIONS = ("forward", "forward + backward")
# For predictions only: what one H200 was measured to do elsewhere (bf16 8192^3 product, copy read + write).
H200_FLOPS, H200_BYTES = 790e12, 4.3e12


def random(index: int, shape, dtype=jnp.bfloat16):
    return jax.random.normal(jax.random.key(index), shape, dtype)


@dataclass(frozen=True)
class Case:
    """One operation at one shape.

    Attributes:
      build: implementation -> function of the arguments.
      arguments: makes them.
      flops, bytes: that have to be done and moved, forward and forward + backward.
      products: makes (function, arguments) of the bare matmuls of a direction, or None.
    """

    operation: str
    build: Callable[[str], Callable[..., Any]]
    arguments: Callable[[], tuple]
    flops: tuple[float, float]
    bytes: tuple[float, float]
    products: Callable[[str], tuple[Callable[..., Any], tuple]] | None = None


def cases(shape: str):
    """The cases of a shape, one after another."""
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
    yield Case("attention", lambda i: partial(attend, i), qkv, (flops, 3.5 * flops), (size, 3 * size))
    yield Case(
        "attention, 8 documents", lambda i: partial(attend, i), lambda: (*qkv(), ids()),
        (flops / 8, 3.5 * flops / 8), (size, 3 * size),
    )  # fmt: skip
    x = (B * T, D)
    flops = 4 * B * T * D * F
    yield Case(
        "swiglu", lambda i: partial(kernels.swiglu, implementation=i),
        lambda: (random(0, x), random(1, (D, F)) / D**0.5, random(2, (D, F)) / D**0.5),
        (flops, 3 * flops), (2 * (B * T * (D + F) + 2 * D * F), 2 * (B * T * (3 * D + 2 * F) + 6 * D * F)),
    )  # fmt: skip

    def norm(implementation, x, weight):
        return kernels.rms_norm(x, weight, eps=1e-5, implementation=implementation)

    size = 2 * 2 * B * T * D  # bf16 x and the norm; backward: x, its gradient and the norm's besides
    yield Case(
        "rms_norm", lambda i: partial(norm, i), lambda: (random(0, x), random(1, (D,))),
        (0, 0), (size, size + 3 * 2 * B * T * D),
    )  # fmt: skip

    def loss(implementation, hidden, w_out):
        targets = jnp.arange(B * T, dtype=jnp.int32).reshape(B, T) % V
        weights = jnp.ones((B, T))
        return kernels.linear_cross_entropy(hidden, w_out, targets, weights, implementation=implementation)[0]

    def products(direction):
        hidden, w_out = random(0, x), random(1, (D, V))
        if direction == FORWARD:
            return jnp.matmul, (hidden, w_out)
        return lambda h, w, d: (h @ w, d @ w.T, h.T @ d), (hidden, w_out, random(2, (B * T, V)))

    flops = 2 * B * T * D * V
    yield Case(
        "linear_cross_entropy", lambda i: partial(loss, i), lambda: (random(0, (B, T, D)), random(1, (D, V)) / D**0.5),
        (flops, 3 * flops), (2 * (B * T * D + D * V), 4 * (B * T * D + D * V)), products,
    )  # fmt: skip


def with_gradient(f, args):
    """(function, arguments) of f and its vector-Jacobian product at random cotangents."""
    floats = [i for i, a in enumerate(args) if jnp.issubdtype(a.dtype, jnp.floating)]
    shapes = jax.tree.leaves(jax.eval_shape(f, *args))
    cotangents = [random(100 + i, s.shape, s.dtype) for i, s in enumerate(shapes)]

    def run(args, cotangents):
        def of_floats(*values):
            whole = list(args)
            for i, value in zip(floats, values, strict=True):
                whole[i] = value
            return tuple(jax.tree.leaves(f(*whole)))

        out, pull = jax.vjp(of_floats, *(args[i] for i in floats))
        return out, pull(tuple(cotangents))

    return run, (args, cotangents)


def kernel_times(f, args, repeats: int) -> list[float]:
    """Device time of each of `repeats` calls in milliseconds, summed over its kernels.

    The profiler keeps the results of all iterations in memory, some GB each: so few at a time.
    """
    from jax.experimental.mosaic.gpu import profiler

    times: list[float] = []
    while len(times) < repeats:
        count = min(ITERATIONS, repeats - len(times))
        _, some = profiler.measure(f, iterations=count)(*args)
        if some is None:
            raise RuntimeError("the profiler saw no kernel")
        times += [some] if count == 1 else some  # a number for one iteration, a list for more
    return times


def measured(f, args, repeats: int) -> tuple[float, int]:
    """Median time of one call in milliseconds, and bytes of temporaries."""
    f = jax.jit(f).lower(*args).compile()
    memory = f.memory_analysis()
    assert memory is not None  # None: a backend that does not say
    temporaries = memory.temp_size_in_bytes
    jax.block_until_ready(f(*args))
    if jax.default_backend() == "gpu":
        return statistics.median(kernel_times(f, args, repeats)), temporaries
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(f(*args))
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times), temporaries


def ceilings(repeats: int) -> dict[str, float]:
    """Measured bf16 matmul (FLOP/s) and copy (bytes/s, read and written)."""
    n = 8192 if jax.default_backend() != "cpu" else 512
    a, b = random(0, (n, n)), random(1, (n, n))
    copied = random(2, (2**28 if n == 8192 else 2**20,))
    return {
        "matmul_flops": 2 * n**3 / (measured(jnp.matmul, (a, b), repeats)[0] * 1e-3),
        "copy_bytes": 2 * copied.nbytes / (measured(lambda x: -x, (copied,), repeats)[0] * 1e-3),
    }


def attempt(case: Case, implementation: str, direction: str, repeats: int) -> tuple[float, int] | str:
    """Time and temporaries, or why there are none: rejected, or failed."""
    try:
        if implementation == PRODUCTS:
            assert case.products is not None
            return measured(*case.products(direction), repeats)
        f, args = case.build(implementation), case.arguments()
        return measured(*((f, args) if direction == FORWARD else with_gradient(f, args)), repeats)
    except ValueError as error:  # the implementation says why it cannot
        return "rejected: " + str(error).split("\n")[0]
    except (
        RuntimeError,
        NotImplementedError,
    ) as error:  # of the compiler or the device; the other cells are still wanted
        return f"failed: {type(error).__name__}: " + str(error).split("\n")[0]


def measure(shapes: list[str], repeats: int, limits: dict[str, float]) -> list[dict]:
    rows = []
    for shape in shapes:
        for case in cases(shape):
            for i, direction in enumerate(DIRECTIONS):
                names = [n for n in IMPLEMENTATIONS if n != "cudnn" or case.operation.startswith("attention")]
                names += [PRODUCTS] if case.products else []
                results = {name: attempt(case, name, direction, repeats) for name in names}
                times = {name: result[0] for name, result in results.items() if not isinstance(result, str)}
                yardstick = next((times[name] for name in (PRODUCTS, "cudnn", "xla") if name in times), None)
                for name, result in results.items():
                    row: dict[str, Any] = {
                        "shape": shape, "operation": case.operation, "direction": direction, "implementation": name
                    }  # fmt: skip
                    if isinstance(result, str):
                        row["not_measured"] = result
                    else:
                        ms, temporaries = result
                        share = (
                            case.flops[i] / ms * 1e3 / limits["matmul_flops"]
                            if case.flops[i]
                            else case.bytes[i] / ms * 1e3 / limits["copy_bytes"]
                        )
                        row |= {
                            "ms": ms, "tflops": case.flops[i] / ms / 1e9, "share": share,
                            "ratio": yardstick / ms if yardstick else None, "temporary_bytes": temporaries,
                        }  # fmt: skip
                    rows.append(row)
                    print(row, flush=True)
    return rows


def predictions(shapes: list[str]) -> list[dict]:
    """Roofline times on one H200: the larger of FLOPs over its matrix ceiling and bytes over its copy bandwidth."""
    rows = []
    for shape in shapes:
        for case in cases(shape):
            for direction, work, traffic in zip(DIRECTIONS, case.flops, case.bytes, strict=True):
                ms = 1e3 * max(work / H200_FLOPS, traffic / H200_BYTES)
                rows.append({"shape": shape, "operation": case.operation, "direction": direction, "roofline_ms": ms})
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
            "| shape | operation | direction | implementation | ms | TFLOP/s | share of ceiling | speed against yardstick | temporaries |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for r in rows:
            start = f"| {r['shape']} | {r['operation']} | {r['direction']} | {r['implementation']} |"
            if "not_measured" in r:
                lines.append(f"{start} not measured ({r['not_measured']}) | | | | |")
            else:
                ratio = "" if r["ratio"] is None else f"{r['ratio']:.2f}"
                lines.append(
                    f"{start} {r['ms']:.3f} | {r['tflops']:.0f} | {100 * r['share']:.0f} % | {ratio} | {r['temporary_bytes'] / 1e6:.0f} MB |"
                )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["8b", "1p5b"], choices=SHAPES)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--predict", action="store_true")
    parser.add_argument(
        "--interpret", choices=("gpu", "tpu"), help="run the kernels in an interpreter; times mean nothing"
    )
    args = parser.parse_args()
    if args.interpret and args.shapes != ["tiny"]:
        parser.error("--interpret takes --shapes tiny: an interpreter needs hours for the others")
    header = {"commit": commit(), "jax": jax.__version__}
    if args.predict:
        name, rows = "kernels_predicted", predictions(args.shapes)
        header |= {"device": "none: predictions for one NVIDIA H200"}
    else:
        device = jax.devices()[0]
        clock = "device time (CUPTI), kernels summed" if device.platform == "gpu" else "wall-clock time"
        limits = ceilings(args.repeats)
        header |= {
            "device": device.device_kind,
            "clock": f"{clock}, median of {args.repeats}",
            "matmul": f"{limits['matmul_flops'] / 1e12:.1f} TFLOP/s",
            "copy": f"{limits['copy_bytes'] / 1e12:.3f} TB/s, read and written",
        }
        name = f"kernels_{device.device_kind.lower().replace(' ', '_')}"
        context = contextlib.nullcontext()
        if args.interpret:
            name, header["interpreter"] = f"kernels_interpreted_{args.interpret}", "times mean nothing"
            context = {"gpu": interpret.gpu, "tpu": interpret.tpu}[args.interpret](detect_races=False)
        with context:
            rows = measure(args.shapes, args.repeats, limits)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"{name}.json").write_text(json.dumps({"header": header, "rows": rows}, indent=1) + "\n")
    (args.out / f"{name}.md").write_text(markdown(header, rows))
    print(f"wrote {args.out / name}.json and .md")


if __name__ == "__main__":
    main()
