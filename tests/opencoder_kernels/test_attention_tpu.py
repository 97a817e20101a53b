"""What attention on TPU rejects, and which blocks it computes; its results are compared in test_random_shapes.py."""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from opencoder_kernels import attention, interpret
from opencoder_kernels.attention import tpu

from tests.opencoder_kernels.compare import errors, normal, value_and_grads


def test_rejected_elsewhere():
    q = jnp.zeros((1, 8, 2, 64), jnp.bfloat16)
    with pytest.raises(ValueError, match="needs a TPU"):
        attention(q, q, q, implementation="tpu")


def test_a_log_sum_exp_that_rounding_moves_is_rejected():
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


@pytest.mark.parametrize("causal", [True, False])
def test_blocks_of_other_documents_are_not_computed(causal):
    """Three documents, a block each. NaN in one that was computed and masked would come through as 0 times NaN."""
    seed = np.random.default_rng().integers(2**32)
    *qkv, d_out = normal(seed, *[(1, 384, 1, 64)] * 4)
    ids = np.repeat(np.arange(3, dtype=np.int32), 128)[None]
    kept = np.r_[0:128, 256:384]

    def f(q, k, v, ids, implementation):
        return attention(q, k, v, q_segment_ids=ids, kv_segment_ids=ids, causal=causal, implementation=implementation)

    alone = [x[:, kept] for x in (*qkv, d_out, ids)]
    want = value_and_grads(partial(f, ids=alone[-1], implementation="reference"), tuple(alone[:3]), alone[3], False)
    for x in (*qkv, d_out):
        x[:, 128:256] = np.nan
    with interpret.tpu():
        out, grads = value_and_grads(partial(f, ids=ids, implementation="tpu"), tuple(qkv), d_out, False)
    assert max(errors([x[:, kept] for x in (out, *grads)], [want[0], *want[1]])) < 1e-5, seed


@pytest.mark.parametrize("rows", [1, 5])
def test_a_block_is_available_when_it_is_computed_and_the_next_one_before(rows):
    rng = np.random.default_rng()
    num, computed = 7, rng.random((rows, 21)) < rng.random()
    available = np.asarray(tpu._available(jnp.asarray(computed), num))
    assert available.dtype == np.int8 and np.asarray(tpu._available(jnp.asarray(computed), 200)).dtype == np.int16
    for row, held in zip(computed, available, strict=True):
        steps = np.flatnonzero(row)
        for i in range(21):
            later = steps[steps >= i] if (steps >= i).any() else steps
            assert held[i] == (later[0] % num if len(later) else 0)
