"""What attention on TPU refuses; its results are compared in test_drawn_shapes.py."""

from __future__ import annotations

import jax.numpy as jnp
import pytest
from opencoder_kernels import attention, interpret


def test_refused_elsewhere():
    q = jnp.zeros((1, 8, 2, 64), jnp.bfloat16)
    with pytest.raises(ValueError, match="needs a TPU"):
        attention(q, q, q, implementation="tpu")


def test_a_log_sum_exp_that_rounding_moves_is_refused():
    """The default scale is a power of 2 at head dim 64 and not at 128."""
    for H, dtype in ((64, jnp.bfloat16), (128, jnp.float32)):
        q = jnp.zeros((1, 128, 1, H), dtype)
        with interpret.tpu():
            attention(q, q, q, implementation="tpu", return_lse=True)
    q = jnp.zeros((1, 128, 1, 128), jnp.bfloat16)
    with interpret.tpu():
        attention(q, q, q, implementation="tpu")
        with pytest.raises(ValueError, match=r"return_lse is set, bfloat16 q .* use 'xla'"):
            attention(q, q, q, implementation="tpu", return_lse=True)
