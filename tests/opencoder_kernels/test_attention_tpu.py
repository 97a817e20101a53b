"""Attention on TPU away from a TPU; its results are compared in test_drawn_shapes.py."""

from __future__ import annotations

import jax.numpy as jnp
import pytest
from opencoder_kernels import attention


def test_refused_elsewhere():
    q = jnp.zeros((1, 8, 2, 64), jnp.bfloat16)
    with pytest.raises(ValueError, match="needs a TPU"):
        attention(q, q, q, implementation="tpu")
