"""Attention over a sequence cut over eight devices equals attention on one, forward and every gradient."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from opencoder_kernels.attention import context

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
from functools import partial
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from opencoder_kernels import attention

shape = {shape}
mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(shape), ("data", "fsdp", "tensor", "context"),
                         axis_types=(AxisType.Auto,) * 4)
rng = np.random.default_rng()
B, T, N, K, H = 2, 48, 4, 2, 8
q, d_out = (rng.standard_normal((B, T, N, H)).astype(np.float32) for _ in range(2))
k, v = (rng.standard_normal((B, T, K, H)).astype(np.float32) for _ in range(2))
d_lse = rng.standard_normal((B, T, N)).astype(np.float32)
segments = (1 + np.cumsum(rng.random((B, T)) < 0.1, axis=1)).astype(np.int32)

def gradients(segments, causal, implementation, q, k, v):
    f = partial(attention, q_segment_ids=segments, kv_segment_ids=segments, causal=causal, return_lse=True,
                implementation=implementation)
    out, pull = jax.vjp(f, q, k, v)
    return out, pull((d_out, d_lse))

worst = 0
for ids, causal in ((segments, True), (None, True), (segments, False))[:{cases}]:
    want = jax.jit(partial(gradients, ids, causal, "reference"))(q, k, v)
    with jax.set_mesh(mesh):
        place = NamedSharding(mesh, P(("data", "fsdp"), "context", "tensor"))
        args = [jax.device_put(x, place) for x in (q, k, v)]
        compiled = jax.jit(partial(gradients, ids, causal, "xla")).lower(*args).compile()
        got = compiled(*args)
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        worst = max(worst, float(np.linalg.norm(np.asarray(g) - w) / np.linalg.norm(w)))
    if causal:
        assert "collective-permute" in compiled.as_text()
print("worst", worst)
assert worst < 1e-5
"""


@pytest.mark.parametrize(
    ("shape", "cases"),
    [
        ((1, 2, 2, 2), 1),
        pytest.param((1, 1, 1, 8), 3, marks=pytest.mark.slow),
        pytest.param((1, 2, 1, 4), 3, marks=pytest.mark.slow),
    ],
)
def test_equals_one_device(shape, cases):
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(shape=shape, cases=cases)],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_every_device_sees_as_many_keys(count):
    owners = context._owners(count)
    work = [sum(chunk + 1 for chunk, owner in enumerate(owners) if owner == d) for d in range(count)]
    assert work == [2 * count + 1] * count
