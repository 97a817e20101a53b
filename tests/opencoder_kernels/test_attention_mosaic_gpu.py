"""Attention kernels for Hopper in the interpreter, with race detection; all memory starts as NaN there."""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from opencoder_kernels import attention, interpret
from opencoder_kernels.attention import blocks

from tests.opencoder_kernels.compare import HOPPER_INTERPRETER, errors
from tests.opencoder_kernels.test_attention import build, documents, run

slow = partial(pytest.param, marks=pytest.mark.slow)


@HOPPER_INTERPRETER
@pytest.mark.parametrize(
    ("H", "T", "group", "causal", "packing"),
    # "long" makes every stage of keys and their segment ids be filled again after a masked block was read from it.
    [(160, 256, 1, False, "long"), slow(160, 256, 4, False, "many"), slow(160, 256, 2, True, "long"),
     slow(160, 300, 1, True, "one-token"), slow(128, 300, 2, False, "long")],
)  # fmt: skip
def test_equals_reference_no_worse_than_xla(H, T, group, causal, packing):
    seed = np.random.default_rng().integers(2**32)
    p = {"seed": seed, "B": 1, "T": T, "S": T, "N": group, "K": 1, "H": H, "causal": causal, "packing": packing}
    args, cotangents, kwargs = build(p, jnp.bfloat16)
    want = run("reference", args, cotangents, kwargs, wide=True)
    xla = errors(run("xla", args, cotangents, kwargs), want)
    with interpret.gpu():
        ours = errors(run("mosaic_gpu", args, cotangents, kwargs), want)
    # One-token documents: out is v itself and d scores are rounding noise, so both sides may be at 0 or at noise.
    for name, o, x in zip(("out", "lse", "dq", "dk", "dv"), ours, xla, strict=True):
        if packing == "one-token" and name in ("dq", "dk"):
            continue
        assert o <= max(1.5 * x, 1e-5), (seed, name, ours, xla)


def test_block_ranges_hold_every_visible_pair_and_skip_the_rest():
    rng = np.random.default_rng()
    for causal in (True, False):
        for kind in ("many", "one", "one-token"):
            seg = documents(rng, 2, 512, kind)
            some, every = blocks.visibility(jnp.asarray(seg), jnp.asarray(seg), 512, 512, 64, 128, causal)
            see = seg[:, :, None] == seg[:, None, :]
            if causal:
                see &= np.tril(np.ones((512, 512), bool))
            tiles = see.reshape(2, 8, 64, 4, 128)
            np.testing.assert_array_equal(some, tiles.any((2, 4)))
            np.testing.assert_array_equal(every, tiles.all((2, 4)))
            bounds = np.asarray(blocks.ranges(some, every, 2))
            for b in range(2):
                for i in range(8):
                    first, full_first, full_end, end = bounds[b, i]
                    assert first <= full_first <= full_end <= end
                    visited = np.arange(4)
                    assert set(np.flatnonzero(some[b, i])) == set(visited[first:end])
                    assert np.asarray(every)[b, i, full_first:full_end].all()


def test_what_it_cannot_do_is_rejected_with_the_remedy():
    q = jnp.zeros((1, 8, 2, 64), jnp.bfloat16)
    with pytest.raises(ValueError, match="needs a Hopper GPU"):
        attention(q, q, q, implementation="mosaic_gpu")
    with pytest.raises(ValueError, match="takes bfloat16"):
        attention(*[q.astype(jnp.float32)] * 3, implementation="mosaic_gpu")
    with pytest.raises(ValueError, match=r"head dim 32 .* it has 64, 128, 160"):
        attention(*[q[..., :32]] * 3, implementation="mosaic_gpu")
