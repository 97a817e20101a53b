"""Every Pallas kernel of every operation in its interpreter, on shapes and inputs drawn anew in each run.

Forward and every gradient against fp64: below 1e-5 in fp32, in bf16 within 1.5 times XLA's own error. What a kernel does not
write is NaN and a race raises (`test_interpret.py`). A failing problem is printed as drawn, with its seed, and runs again by
`check_swiglu(**problem)` and the like. The default suite draws a few; the slow tests go through every head dim with every
query group, and every packing.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from opencoder_kernels import interpret
from opencoder_kernels.linear_cross_entropy import tiles, xla

from tests.opencoder_kernels import test_attention, test_linear_cross_entropy, test_rms_norm, test_swiglu
from tests.opencoder_kernels.compare import HOPPER_INTERPRETER, relative_error

INTERPRETERS = {"mosaic_gpu": interpret.gpu, "tpu": interpret.tpu}
HEAD_DIMS, GROUPS = (64, 128, 160), (1, 2, 4, 8, 14)
PACKINGS = ("none", "one", "one-token", "many", "long")
DRAWS, SLOW_DRAWS = 2, 12

backends = pytest.mark.parametrize("implementation", [pytest.param("mosaic_gpu", marks=HOPPER_INTERPRETER), "tpu"])
draws = pytest.mark.parametrize(
    "draw", [*range(DRAWS), *(pytest.param(i, marks=pytest.mark.slow) for i in range(DRAWS, SLOW_DRAWS))]
)


class Drawn:
    """A problem under the making: its seed, and what was drawn from it so far."""

    def __init__(self, implementation: str, **fixed):
        seed = fixed.get("seed", int(np.random.default_rng().integers(2**32)))
        self.rng = np.random.default_rng(seed)
        self.problem = {"implementation": implementation, "seed": seed} | fixed
        # The Hopper kernels take bf16 alone.
        self("dtype", ("bfloat16",) if implementation == "mosaic_gpu" else ("bfloat16", "float32"))

    def __call__(self, name: str, values):
        """One of the values, unless it was fixed."""
        return self.problem.setdefault(name, values[int(self.rng.integers(len(values)))])


def check(problem, run, args, cotangents, wanted, samples: int, floors, yardsticks=("xla",)) -> None:
    """The kernel against fp64 and, in bf16, against XLA.

    Args:
      run: (implementation, args, cotangents, wide) -> results, with fp32 arguments; they are rounded here.
      wanted: names of the results; those with a * are fp32 sums, which bf16 arguments make no worse.
      samples: roundings to bf16 that each result has at least; with few of them an error is a matter of luck.
      floors: {name: result} -> {name: size against which the error of a result is measured that may be next to 0}.
      yardsticks: whose error, the larger, is multiplied by 1.5.
    """

    def rounded(x):
        return x.astype(problem["dtype"]) if isinstance(x, np.ndarray) and x.dtype == np.float32 else x

    args, cotangents = jax.tree.map(rounded, (args, cotangents))

    def results(implementation, wide=False):
        return dict(zip(wanted, jax.tree.leaves(run(implementation, args, cotangents, wide)), strict=True))

    want = results("reference", wide=True)
    floor = floors(want)

    def errors(got):
        return {name: relative_error(got[name], want[name], floor.get(name, 0.0)) for name in wanted}

    with INTERPRETERS[problem["implementation"]]():
        got = errors(results(problem["implementation"]))
    if problem["dtype"] == "float32":
        bound = dict.fromkeys(wanted, 1e-5)
    else:
        plain = [errors(results(name)) for name in yardsticks]
        luck = {name: 1e-5 if name.endswith("*") else 2**-8 / samples**0.5 for name in wanted}
        bound = {name: 1.5 * max(p[name] for p in plain) + luck[name] for name in wanted}
    assert all(got[name] <= bound[name] for name in wanted), f"{problem}\n{got}\n{bound}"


def norm(x) -> float:
    return float(np.linalg.norm(np.asarray(x, np.float64).ravel()))


def attention_problem(implementation: str, **fixed) -> dict:
    drawn = Drawn(implementation, **fixed)
    drawn("H", HEAD_DIMS)
    group = drawn("group", GROUPS)
    packing, causal = drawn("packing", PACKINGS), drawn("causal", (True, False))
    drawn("B", (1, 2) if group <= 4 else (1,))  # many heads are slow enough
    drawn("N", [group * drawn("K", (1, 2) if group <= 2 else (1,))])
    lengths = (*range(65, 161), 255, 256, 257) if packing == "long" else (*range(1, 141), 127, 128, 129, 200)
    T = drawn("T", lengths)
    drawn("S", (T,) if causal else (T, T, *lengths[::7]))
    return drawn.problem


def gives_lse(problem) -> bool:
    """Whether the kernel gives out its log-sum-exp; see `attention/tpu.py`."""
    return (problem["implementation"], problem["dtype"]) != ("tpu", "bfloat16") or problem["H"] == 64


def check_attention(problem: dict) -> None:
    (q, k, v), cotangents, kwargs = test_attention.build(problem)
    kwargs["return_lse"] = gives_lse(problem)

    def run(implementation, args, cotangents, wide):
        return test_attention.run(implementation, args, cotangents, kwargs, wide)

    def floors(want):  # dq and dk are differences, as large as dv before they cancel
        return {name: 0.1 * norm(want["dv"]) for name in ("dq", "dk")} | {"lse*": q[..., 0].size ** 0.5}

    samples = problem["B"] * min(problem["T"] * problem["N"], problem["S"] * problem["K"])
    wanted = ("out", "lse*", "dq", "dk", "dv") if kwargs["return_lse"] else ("out", "dq", "dk", "dv")
    check(problem, run, (q, k, v), cotangents, wanted, samples, floors)


@draws
@backends
def test_attention_on_random_shapes(implementation, draw):
    check_attention(attention_problem(implementation))


@pytest.mark.slow
@backends
@pytest.mark.parametrize(
    ("H", "group", "packing", "causal"),
    # Each head dim with each group; along the way each packing, causal and not.
    [
        (H, group, PACKINGS[(i + i // 5) % 5], i % 2 == 0)
        for i, (H, group) in enumerate(itertools.product(HEAD_DIMS, GROUPS))
    ],
)
def test_attention_on_every_head_dim_and_group(implementation, H, group, packing, causal):
    check_attention(attention_problem(implementation, H=H, group=group, packing=packing, causal=causal))


@pytest.mark.slow
@backends
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("packing", PACKINGS)
def test_attention_on_every_packing(implementation, packing, causal):
    check_attention(attention_problem(implementation, packing=packing, causal=causal, group=1, B=2))


@backends
def test_perturbing_one_document_moves_no_other(implementation):
    """Neither outputs nor gradients, by a single bit."""
    problem = attention_problem(implementation, group=1, K=1, N=1, packing="many")
    problem |= {"T": problem["T"] + 20, "S": problem["T"] + 20}
    args, cotangents, kwargs = test_attention.build(problem, problem["dtype"])
    kwargs["return_lse"] = gives_lse(problem)
    ids = kwargs["q_segment_ids"]
    inside = ids[0] == np.random.default_rng(problem["seed"]).choice(ids[0])
    perturbed = [x.copy() for x in args]
    for x in perturbed:
        x[0, inside] *= 50
    with INTERPRETERS[implementation]():
        before, after = (test_attention.run(implementation, x, cotangents, kwargs) for x in (args, perturbed))
    for i, (old, new) in enumerate(zip(before, after, strict=True)):
        np.testing.assert_array_equal(old[0, ~inside], new[0, ~inside], err_msg=f"{i} {problem}")
        np.testing.assert_array_equal(old[1:], new[1:], err_msg=f"{i} {problem}")
    assert (before[0][0, inside] != after[0][0, inside]).any(axis=(-1, -2)).all(), problem


def check_swiglu(implementation: str, **fixed) -> None:
    drawn = Drawn(implementation, **fixed)
    lengths = (*range(1, 131), 200, 300)
    rows = drawn("rows", [(drawn("B", (1, 2)), drawn("T", lengths)), (drawn("T", lengths),)])
    hopper = implementation == "mosaic_gpu"
    D = drawn("D", range(64, 321, 64) if hopper else range(1, 200))
    F = drawn("F", (128, 256) if hopper else range(1, 700))
    args, dy = test_swiglu.problem(drawn.problem["seed"], rows, D, F)
    names = ("out", "dx", "d_gate", "d_up")
    check(drawn.problem, test_swiglu.run, args, dy, names, np.prod(rows) * min(D, F), lambda want: {})


def check_rms_norm(implementation: str, **fixed) -> None:
    drawn = Drawn(implementation, **fixed)
    hopper = implementation == "mosaic_gpu"
    # Hopper: 264 blocks of some rows each; more rows than that make a block of the backward kernel take another turn.
    rows = drawn("rows", [(drawn("B", (1, 2)), drawn("T", (*range(1, 140), 300))), (drawn("T", range(1, 140)),)])
    D = drawn("D", (*range(16, 577, 16), 2240, 4096) if hopper else (*range(1, 300), 2240))
    scale = drawn("scale", (1.0, 3e-3))  # at 3e-3 eps is a tenth
    args, cotangents = test_rms_norm.problem(drawn.problem["seed"], (*rows, D))
    args = (args[0] * np.float32(scale), args[1])
    names = ("out", "dx", "d_weight")
    # XLA may keep excess precision that a training step with its many layers between does not have: the written form is
    # the bound where it is worse.
    yardsticks = ("xla", "reference")
    floors = {"dx": 0.1 * norm(cotangents) / scale} if D <= 2 else {}
    check(drawn.problem, test_rms_norm.run, args, cotangents, names, D, lambda want: floors, yardsticks)


def check_linear_cross_entropy(monkeypatch, implementation: str, **fixed) -> None:
    drawn = Drawn(implementation, **fixed)
    B, T = drawn("B", (1, 2)), drawn("T", (*range(1, 141), 250, 300))
    if implementation == "mosaic_gpu":
        D, V = drawn("D", (*range(1, 257), 64, 128, 192)), drawn("V", (*range(1, 705), *range(64, 705, 64)))
    else:
        D, V = drawn("D", range(1, 130)), drawn("V", (*range(1, 300), 1023, 1024, 1025, 1500))
    z_loss, chunk = drawn("z_loss", (0.0, 1e-3)), drawn("chunk", (128, 4096))
    for module, name in ((tiles, "GRADIENT_BYTES"), (xla, "SOFTMAX_GRADIENT_BYTES")):
        monkeypatch.setattr(module, name, V * chunk * jnp.dtype(drawn.problem["dtype"]).itemsize)
    hidden, w_out, targets, weights = test_linear_cross_entropy.problem(drawn.problem["seed"], B, T, D, V)

    def run(implementation, args, cotangents, wide):
        del cotangents
        return test_linear_cross_entropy.run(implementation, (*args, targets, weights), z_loss, wide)

    # All are differences of larger numbers, next to 0 where a probability is next to 1.
    floors = {
        "total*": weights.sum(),
        "z_sum*": 1e-3 * weights.sum(),
        "dh": 0.1 * norm(weights) * norm(w_out) / V**0.5,
        "dw": 0.1 * norm(weights[..., None] * hidden),
    }
    check(drawn.problem, run, (hidden, w_out), (), tuple(floors), B * T, lambda want: floors)


@draws
@backends
def test_swiglu_on_random_shapes(implementation, draw):
    check_swiglu(implementation)


@draws
@backends
def test_rms_norm_on_random_shapes(implementation, draw):
    check_rms_norm(implementation)


@draws
@backends
def test_linear_cross_entropy_on_random_shapes(implementation, draw, monkeypatch):
    check_linear_cross_entropy(monkeypatch, implementation)
