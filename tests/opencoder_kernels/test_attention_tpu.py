"""Attention on TPU in the TPU interpreter; memory starts as NaN there."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from opencoder_kernels import attention, interpret

from tests.opencoder_kernels.compare import errors
from tests.opencoder_kernels.test_attention import build, run


@pytest.mark.parametrize(
    ("H", "T", "group", "causal", "packing"),
    [(160, 140, 2, True, "many"), pytest.param(128, 256, 4, False, "none", marks=pytest.mark.slow)],
)
def test_equals_reference(H, T, group, causal, packing):
    seed = np.random.default_rng().integers(2**32)
    p = {"seed": seed, "B": 2, "T": T, "S": T, "N": group, "K": 1, "H": H, "causal": causal, "packing": packing}
    args, cotangents, kwargs = build(p)
    want = run("reference", args, cotangents, kwargs, wide=True)
    with interpret.tpu():
        ours = errors(run("tpu", args, cotangents, kwargs), want)
    assert max(ours) < 1e-5, (seed, ours)


def test_refused_elsewhere():
    q = jnp.zeros((1, 8, 2, 64), jnp.bfloat16)
    with pytest.raises(ValueError, match="needs a TPU"):
        attention(q, q, q, implementation="tpu")
