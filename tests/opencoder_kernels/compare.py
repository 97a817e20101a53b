"""How far two results are apart, and fresh random inputs."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings, strategies

# A kernel may end with a phase of a barrier that only some warpgroups waited for; that interpreter calls it an error.
HOPPER_INTERPRETER = pytest.mark.skipif(
    jax.__version_info__ < (0, 12), reason="jax 0.11's interpreter wants every warpgroup to see a barrier's last phase"
)

SEEDS = strategies.integers(0, 2**32 - 1)


def property_test(max_examples: int):
    """Fresh examples each run; a failing one is printed as drawn, since shrinking would compile too much."""
    return settings(
        max_examples=max_examples,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def run_on_eight_devices(code: str) -> None:
    """Runs code in a process with eight fake devices; it has to print DONE last.

    NPROC sizes XLA's thread pool on a CPU. With a thread per device, as by default, devices that wait in a collective can
    hold every one while a kernel's interpreter, called back for another device, waits for a thread to copy its arguments.
    """
    flags = "--xla_force_host_platform_device_count=8"
    env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "NPROC": "32"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.stdout.endswith("DONE\n"), done.stdout[-3000:] + done.stderr[-3000:]


def normal(seed: int, *shapes: tuple[int, ...], dtype=np.float32) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def relative_error(got, want, floor: float = 0.0) -> float:
    """|got - want| / max(|want|, floor) in the Frobenius norm; NaN and infinity come out as infinity.

    floor: for what is a difference of large numbers and may happen to be next to 0: a part of the size of those numbers.
    """
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, (got.shape, want.shape)
    error = np.linalg.norm((got - want).ravel()) / max(np.linalg.norm(want.ravel()), floor, 1e-30)
    return float(error) if np.isfinite(error) else float("inf")


def errors(got, want) -> list[float]:
    return [relative_error(g, w) for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)]


def value_and_grads(f, args, cotangents, wide: bool):
    """f(*args) and its vector-Jacobian product at fixed cotangents; wide: all floats in fp64."""
    with jax.enable_x64(wide):

        def cast(x):
            x = np.asarray(x)
            return np.asarray(x, np.float64) if wide and x.dtype.kind in "fV" else x

        args = jax.tree.map(cast, args)

        @jax.jit
        def run(args, cotangents):
            out, pull = jax.vjp(f, *args)
            cotangents = jax.tree.map(lambda c, o: c.astype(o.dtype), cotangents, out)
            return out, pull(cotangents)

        return jax.tree.map(np.asarray, run(args, jax.tree.map(cast, cotangents)))
