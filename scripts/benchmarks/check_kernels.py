"""Every backend of every kernel against the fp32 reference at OpenCoder's shapes, values and gradients; writes JSON and Markdown.

    python scripts/benchmarks/check_kernels.py                                on a GPU or TPU, into docs/benchmarks/
    python scripts/benchmarks/check_kernels.py --shapes tiny --out /tmp/check  anywhere: the backends that run there
    python scripts/benchmarks/check_kernels.py --shapes tiny --interpret gpu   the Mosaic GPU kernels in their interpreter

Inputs are random bf16. The oracle is the dense reference on the same numbers in fp32 with fp32 matmuls. A backend passes
when no output and no gradient is further from it (relative, Frobenius norm) than TIMES the reference in bf16 is (or than
FLOOR), and none than BOUND. Exit codes: 0 all passed, 1 one did not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import opencoder_kernels as kernels
from opencoder_kernels import dispatch, interpret

try:
    from scripts.benchmarks import bench_kernels
except ImportError:  # run as a file
    import bench_kernels

TIMES = 2.0
FLOOR = 2.0**-8  # one rounding of bf16
BOUND = 0.05  # more is not rounding, whatever the reference in bf16 makes of it
TOKENS = 2048  # the dense reference holds a score for every pair of them
FAILED = "failed: "


@dataclass(frozen=True)
class Case:
    """build: backend -> function of the arguments. arguments: makes them, bf16 and int32."""

    operation: str
    name: str
    build: Callable[[str], Callable[..., Any]]
    arguments: Callable[[], tuple[Any, ...]]


def cases(shape: str) -> Iterator[Case]:
    """Of one entry of `bench_kernels.SHAPES`, at no more than TOKENS tokens."""
    _, T, N, K, H, D, F, V = bench_kernels.SHAPES[shape]
    T = min(T, TOKENS)
    random = bench_kernels.random

    def attend(causal: bool, lse: bool, implementation: str, q, k, v, segments=None):
        return kernels.attention(
            q, k, v, q_segment_ids=segments, kv_segment_ids=segments, causal=causal, return_lse=lse,
            implementation=implementation,
        )  # fmt: skip

    def qkv(length: int):
        return random(0, (1, length, N, H)), random(1, (1, length, K, H)), random(2, (1, length, K, H))

    def documents(length: int):
        rng = np.random.default_rng(3)
        starts = np.zeros(length, np.int32)
        starts[rng.choice(length, 7, replace=False)] = 1  # documents of any length
        return (*qkv(length), jnp.asarray(np.cumsum(starts)[None] + 1, jnp.int32))

    def norm(implementation: str, x, weight):
        return kernels.rms_norm(x, weight, eps=1e-5, implementation=implementation)

    def loss(z_loss: float, implementation: str, hidden, w_out):
        rng = np.random.default_rng(4)
        targets = jnp.asarray(rng.integers(0, V, (1, T)), jnp.int32)
        weights = jnp.asarray(rng.random((1, T)) < 0.8)
        return kernels.linear_cross_entropy(
            hidden, w_out, targets, weights, z_loss=z_loss, implementation=implementation
        )[0]

    odd = T - T // 7 - 1  # not a multiple of any tile
    for name, causal, lse, arguments in (
        ("causal", True, False, partial(qkv, T)),
        ("causal, log-sum-exp too", True, True, partial(qkv, T)),
        ("not causal", False, False, partial(qkv, T)),
        ("packed documents", True, False, partial(documents, T)),
        (f"packed documents, {odd} tokens", True, False, partial(documents, odd)),
    ):
        yield Case("attention", name, lambda i, c=causal, s=lse: partial(attend, c, s, i), arguments)
    x = (T, D)
    yield Case(
        "swiglu", "", lambda i: partial(kernels.swiglu, implementation=i),
        lambda: (random(0, x), random(1, (D, F)) / D**0.5, random(2, (D, F)) / D**0.5),
    )  # fmt: skip
    yield Case("rms_norm", "", lambda i: partial(norm, i), lambda: (random(0, x), random(1, (D,))))
    for z_loss in (0.0, 1e-4):
        yield Case(
            "linear_cross_entropy", f"z-loss {z_loss:g}", lambda i, z=z_loss: partial(loss, z, i),
            lambda: (random(0, (1, T, D)), random(1, (D, V)) / D**0.5),
        )  # fmt: skip


def values(case: Case, backend: str, dtype: Any) -> list[np.ndarray]:
    """Outputs and gradients at random cotangents, in fp32 on the host; the arguments cast to `dtype` first."""
    args = tuple(a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a for a in case.arguments())
    run, arguments = bench_kernels.with_gradient(case.build(backend), args)
    return [np.asarray(x, np.float32) for x in jax.tree.leaves(jax.jit(run)(*arguments))]


def errors(got: list[np.ndarray], want: list[np.ndarray]) -> list[float]:
    """Relative distances; what is not finite or has another shape is infinitely far."""
    found = []
    for g, w in zip(got, want, strict=True):
        apart = (
            np.linalg.norm((g - w).ravel()) / max(np.linalg.norm(w.ravel()), 1e-30) if g.shape == w.shape else np.inf
        )
        found.append(float(apart) if np.isfinite(apart) else float("inf"))
    return found


def judge(ours: list[float], plain: list[float]) -> bool:
    """Whether each error is within its limit."""
    return all(o <= min(max(TIMES * p, FLOOR), BOUND) for o, p in zip(ours, plain, strict=True))


def check(case: Case, playing: Callable[[], contextlib.AbstractContextManager[Any]]) -> list[dict[str, Any]]:
    """A row for each backend. playing: the interpreter, or nothing."""
    real = playing is contextlib.nullcontext  # no interpreter has cuDNN
    with jax.default_matmul_precision("highest"):
        want = values(case, "reference", jnp.float32)
    plain = errors(values(case, "reference", jnp.bfloat16), want)
    rows = []
    with playing():
        backends = [
            b for b in dispatch.ORDER[dispatch.platform()] if b != "cudnn" or (case.operation == "attention" and real)
        ]
    for backend in backends:
        row: dict[str, Any] = {"operation": case.operation, "case": case.name, "backend": backend}
        try:
            with playing():
                ours = errors(values(case, backend, jnp.bfloat16), want)
            row |= {"errors": ours, "reference_bf16": plain, "passed": judge(ours, plain)}
        except ValueError as error:  # the backend says why it cannot
            row["unsupported"] = str(error).split("\n")[0]
        except (
            RuntimeError,
            NotImplementedError,
        ) as error:  # of the compiler or the device; the others are still wanted
            row |= {"error": f"{FAILED}{type(error).__name__}: {str(error).splitlines()[0][:300]}", "passed": False}
        rows.append(row)
        print(row, flush=True)
    return rows


def markdown(header: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The table, worst output or gradient of each row."""
    judged = [r for r in rows if "passed" in r]
    good = sum(r["passed"] for r in judged)
    lines = [
        "# Kernels against their references", "", *(f"- {name}: {value}" for name, value in header.items()), "",
        f"{good} of {len(judged)} passed. Error: relative to the fp32 reference, the worst of outputs and gradients.", "",
        "| shape | operation | case | backend | worst error | reference in bf16 | |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for r in rows:
        start = f"| {r['shape']} | {r['operation']} | {r['case']} | {r['backend']} |"
        if "unsupported" in r:
            lines.append(f"{start} | | not supported: {r['unsupported']} |")
        elif "error" in r:
            lines.append(f"{start} | | **{r['error']}** |")
        else:
            worst = max(
                range(len(r["errors"])), key=lambda i: r["errors"][i] / max(r["reference_bf16"][i], FLOOR / TIMES)
            )
            said = "passed" if r["passed"] else "**FAILED**"
            lines.append(f"{start} {r['errors'][worst]:.2e} | {r['reference_bf16'][worst]:.2e} | {said} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["8b", "1p5b"], choices=bench_kernels.SHAPES)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--name", help="of the files; default correctness_DEVICE")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no further case after so many")
    parser.add_argument("--interpret", choices=("gpu", "tpu"), help="play the kernels of this device in an interpreter")
    args = parser.parse_args()
    if args.interpret and args.shapes != ["tiny"]:
        parser.error("--interpret takes --shapes tiny: an interpreter needs hours for the others")
    playing = contextlib.nullcontext
    if args.interpret:
        playing = partial({"gpu": interpret.gpu, "tpu": interpret.tpu}[args.interpret], detect_races=False)
    device = jax.devices()[0].device_kind
    header = {"commit": bench_kernels.commit(), "jax": jax.__version__, "device": device}
    if args.interpret:
        header["interpreter"] = args.interpret
    rows: list[dict[str, Any]] = []
    begin, left = time.monotonic(), 0
    for shape in args.shapes:
        for case in cases(shape):
            if time.monotonic() - begin > args.seconds:
                left += 1
                continue
            rows += [{"shape": shape, **row} for row in check(case, playing)]
    if left:
        header["left out for want of time"] = f"{left} cases"
    args.out.mkdir(parents=True, exist_ok=True)
    name = args.name or f"correctness_{bench_kernels.file_name(device)}"
    (args.out / f"{name}.json").write_text(json.dumps({"header": header, "rows": rows}, indent=1) + "\n")
    text = markdown(header, rows)
    (args.out / f"{name}.md").write_text(text)
    print(text)
    return 0 if not left and all(r.get("passed", True) for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
