"""Ring attention: over a sequence sharded over devices it equals attention on one, forward and every gradient."""

from __future__ import annotations

import contextlib
import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from opencoder_kernels import attention, interpret
from opencoder_kernels.attention import GRADIENTS, residuals, ring

from tests.opencoder_kernels.compare import (
    HOPPER_INTERPRETER,
    errors,
    relative_error,
    run_on_eight_devices,
    value_and_grads,
)
from tests.opencoder_kernels.test_attention import build, run

AXES = ("data", "fsdp", "tensor", "context")
PLACE = P(("data", "fsdp"), "context", "tensor")
slow = partial(pytest.param, marks=pytest.mark.slow)


def drawn(rng, shape: tuple[int, ...], **fixed) -> dict:
    """A problem (see `build`) that fits a mesh; packing is one document, many that cross chunks, one token each, or none."""
    _, fsdp, tensor, count = shape
    group, K, causal = int(rng.choice([1, 2, 4, 7])), tensor * int(rng.integers(1, 3)), bool(rng.random() < 0.6)
    T = 2 * count * int(rng.integers(1, 12))
    p = {
        "seed": int(rng.integers(2**32)), "B": fsdp * int(rng.integers(1, 3)), "T": T, "N": group * K, "K": K,
        "S": T if causal else count * int(rng.integers(1, 12)), "H": int(rng.choice([8, 24])), "causal": causal,
        "packing": str(rng.choice(["none", "one", "one-token", "many"])),
    }  # fmt: skip
    return p | fixed | ({"S": fixed.get("T", T)} if fixed.get("causal", causal) else {})


def over_the_ring(implementation: str, q_segment_ids=None, kv_segment_ids=None, return_lse=False, **kwargs):
    """Function of whole q, k, v: each device of the current mesh has its part of them, as the trainer shards them."""
    ids = () if q_segment_ids is None else (q_segment_ids, kv_segment_ids)

    def local(q, k, v, *ids):
        segments = dict(zip(("q_segment_ids", "kv_segment_ids"), ids, strict=bool(ids)))
        return attention(
            q, k, v, **segments, **kwargs, ring_axis="context", return_lse=return_lse, implementation=implementation
        )

    in_specs = (PLACE, PLACE, PLACE, *(P(("data", "fsdp"), "context") for _ in ids))
    sharded = jax.shard_map(local, in_specs=in_specs, out_specs=(PLACE, PLACE) if return_lse else PLACE)
    return lambda q, k, v: sharded(q, k, v, *ids)


def check(shape: tuple[int, ...], implementation: str, num_drawn: int) -> None:
    """On eight devices: each problem over the mesh against the dense reference in fp64 on one.

    In fp32, within 1e-5; the Hopper kernels in bf16, within 1.5 times the error of `xla` on one device. Their interpreter
    runs the devices one after another (`interpret.on_each_device`): that a message arrives while a kernel runs, and that
    kernels bear what runs beside them, stays unproven.
    """
    rng, count, hopper = np.random.default_rng(), shape[-1], implementation == "mosaic_gpu"
    # Short documents, some across chunks: the first chunks' length is not a divisor of the documents'.
    small: dict[str, Any] = {"H": 64, "B": 1, "N": 1, "K": 1} if hopper else {}
    problems = [drawn(rng, shape, causal=True, packing="many", T=2 * count * int(rng.integers(5, 12)), **small)]
    for _ in range(num_drawn):
        large = {"N": 2, "T": 2 * count * int(rng.integers(1, 100))} if hopper else {}  # up to two blocks to a device
        problems.append(drawn(rng, shape, **small | large))
    devices = np.array(jax.devices()[: int(np.prod(shape))]).reshape(shape)
    mesh = jax.sharding.Mesh(devices, AXES, axis_types=(AxisType.Auto,) * 4)
    interpreter = {"tpu": interpret.tpu, "mosaic_gpu": interpret.gpu}.get(implementation, contextlib.nullcontext)
    for p in problems:
        args, cotangents, kwargs = build(p, jnp.bfloat16 if hopper else np.float32)
        want = run("reference", args, cotangents, kwargs, wide=True)

        @jax.jit
        def f(q, k, v, d_out, d_lse, kwargs=kwargs):
            out, pull = jax.vjp(over_the_ring(implementation, **kwargs), q, k, v)
            return *out, *pull((d_out, d_lse))

        with jax.set_mesh(mesh), interpreter():
            placed = [jax.device_put(x, NamedSharding(mesh, PLACE)) for x in (*args, *cotangents)]
            compiled = f.lower(*placed).compile()
            out, lse, *grads = (np.asarray(x) for x in compiled(*placed))
        got = out, np.where(lse > -1e20, lse, 0), *grads
        # A document of one token has no gradient of q and k but rounding: measured by the size of what cancels there.
        floor = float(np.linalg.norm(cotangents[0]))
        floor *= p["packing"] == "one-token"

        def found(results, want=want, floor=floor):
            return [relative_error(g, w, floor) for g, w in zip(results, want, strict=True)]

        bounds = [1.5 * e + 1e-5 for e in found(run("xla", args, cotangents, kwargs))] if hopper else [1e-5] * len(want)
        print(p, found(got), bounds, flush=True)
        assert all(e < b for e, b in zip(found(got), bounds, strict=True)), (p, found(got), bounds)
        text = compiled.as_text() or ""
        assert "collective-permute" in text
        gathered = re.findall(r"= \(?(\w+)\[[^=]* all-gather(?:-start)?\(", text)
        assert set(gathered) <= {"s32"}, f"segment ids alone are gathered: {gathered}"
    print("DONE")


@pytest.mark.parametrize(
    ("shape", "implementation", "num_drawn"),
    [((1, 2, 2, 2), "xla", 1), ((1, 2, 1, 4), "xla", 1), ((1, 1, 1, 8), "xla", 1),
     slow((1, 2, 2, 2), "xla", 12), slow((1, 2, 1, 4), "xla", 12), slow((1, 1, 1, 8), "xla", 12),
     slow((1, 1, 1, 3), "xla", 6), slow((1, 1, 1, 4), "tpu", 1),
     pytest.param((1, 1, 1, 2), "mosaic_gpu", 0, marks=HOPPER_INTERPRETER),
     pytest.param((1, 1, 1, 2), "mosaic_gpu", 4, marks=[HOPPER_INTERPRETER, pytest.mark.slow]),
     pytest.param((1, 1, 1, 4), "mosaic_gpu", 3, marks=[HOPPER_INTERPRETER, pytest.mark.slow])],
)  # fmt: skip
def test_equals_one_device(shape, implementation, num_drawn):
    run_on_eight_devices(
        "from tests.opencoder_kernels.test_attention_ring import check\n"
        f"check({shape}, {implementation!r}, {num_drawn})"
    )


def traced(count: int, T: int, f):
    """f(q, k, v, segment ids) traced for a ring of `count` H200s."""
    device = AbstractDevice(device_kind="NVIDIA H200", num_cores=132, platform="gpu")
    mesh = AbstractMesh((1, 1, 1, count), AXES, axis_types=(AxisType.Auto,) * 4, abstract_device=device)
    q, kv = (jax.ShapeDtypeStruct((1, T, heads, 64), jnp.bfloat16) for heads in (4, 2))
    with jax.sharding.use_abstract_mesh(mesh):
        return jax.make_jaxpr(f, return_shape=True)(q, kv, kv, jax.ShapeDtypeStruct((1, T), jnp.int32))


def attend(implementation: str, q, k, v, ids) -> Any:
    return over_the_ring(implementation, q_segment_ids=ids, kv_segment_ids=ids)(q, k, v)


@pytest.mark.parametrize("implementation", ["xla", "mosaic_gpu"])
def test_saved_for_the_backward_pass_is_the_same_for_any_number_of_devices(implementation):
    def saved(q, k, v, ids):
        return jax.vjp(lambda q, k, v: attend(implementation, q, k, v, ids), q, k, v)[1]

    q, kv, ids, lse = 8192 * 4 * 64 * 2, 8192 * 2 * 64 * 2, 8192 * 4, 8192 * 4 * 4
    for count in (2, 4, 32):
        leaves = jax.tree.leaves(traced(count, 8192, saved)[1])
        assert sum(x.size * x.dtype.itemsize for x in leaves) == 2 * q + 2 * kv + ids + lse, leaves


@pytest.mark.parametrize("implementation", ["xla", "mosaic_gpu"])
def test_program_does_not_grow_with_the_ring(implementation):
    def gradient(*args):
        return jax.grad(lambda *args: attend(implementation, *args).astype(jnp.float32).sum(), (0, 1, 2))(*args)

    few, many = (str(traced(count, 512 * count, gradient)[0]) for count in (4, 32))
    assert few.count("ppermute") == many.count("ppermute") > 0
    for name in ("dot_general", "mpmd_map"):
        assert few.count(name) == many.count(name)
    assert ("mpmd_map" in many) == (implementation == "mosaic_gpu")
    assert many.count("all_gather[") == 4, "ids of queries and keys, forwards and backwards, and nothing else"


@pytest.mark.parametrize("count", [1, 4])
def test_a_policy_that_keeps_the_name_keeps_the_backward_pass_from_running_attention_again(count):
    def kernels(policy):
        def gradient(*args):
            f = jax.checkpoint(lambda *args: attend("mosaic_gpu", *args), policy=policy)
            return jax.grad(lambda *args: f(*args).astype(jnp.float32).sum(), (0, 1, 2))(*args)

        return num_kernels(traced(count, 8192, gradient)[0].jaxpr)

    forward, backward = (1, 2) if count == 1 else (3, 6)  # own keys, the steps of the loop, the last step
    assert kernels(jax.checkpoint_policies.save_only_these_names(residuals.NAME)) == forward + backward
    assert kernels(jax.checkpoint_policies.nothing_saveable) == 2 * forward + backward


def num_kernels(jaxpr) -> int:
    """Hopper kernels in a traced program, nested ones counted once for each place they are called from."""
    return sum(
        (e.primitive.name == "mpmd_map") or sum(map(num_kernels, jaxprs_in_params(e.params))) for e in jaxpr.eqns
    )


@HOPPER_INTERPRETER
@pytest.mark.parametrize(
    ("implementation", "causal", "packing"),
    [
        ("mosaic_gpu", True, "many"),
        ("tpu", False, "none"),
        slow("mosaic_gpu", False, "none"),
        slow("tpu", True, "many"),
    ],
)
def test_gradient_of_a_part_of_the_keys(implementation, causal, packing):
    """Kernels' gradients for each half of the keys, given the log-sum-exp over all, add up to that of all.

    Lengths are not multiples of the kernels' blocks.
    """
    seed = np.random.default_rng().integers(2**32)
    half, scale = 100, 0.2
    dtype: Any = jnp.bfloat16 if implementation == "mosaic_gpu" else np.float32
    p = {
        "seed": seed,
        "B": 1,
        "T": 2 * half,
        "S": 2 * half,
        "N": 2,
        "K": 1,
        "H": 64,
        "causal": causal,
        "packing": packing,
    }
    (q, k, v), (d_out, d_lse), kwargs = build(p, dtype)
    ids = kwargs["q_segment_ids"]
    f = partial(attention, implementation="reference", scale=scale, **kwargs)
    (out, lse), want = value_and_grads(f, (q, k, v), (d_out, d_lse), True)
    lse, delta = lse.astype(np.float32), ((out * d_out).sum(-1) - d_lse).astype(np.float32)

    @partial(jax.jit, static_argnums=(0, 1, 2, 3))
    def part(rows, start, end, causal):
        part_ids = (None, None) if ids is None else (ids[:, rows:], ids[:, start:end])
        return GRADIENTS[implementation](
            q[:, rows:], k[:, start:end], v[:, start:end], d_out[:, rows:], lse[:, rows:], delta[:, rows:],
            q_segment_ids=part_ids[0], kv_segment_ids=part_ids[1], causal=causal, scale=scale,
        )  # fmt: skip

    with interpret.tpu() if implementation == "tpu" else interpret.gpu():
        if causal:  # as in the ring: what is below the diagonal without a mask, what is on it chunk by chunk
            blocks = [(half, 0, half, False), (half, half, 2 * half, True)]
        else:
            blocks = [(0, 0, half, False), (0, half, 2 * half, False)]
        got = [[np.asarray(x, np.float32) for x in part(*b)] for b in blocks]
    dq = sum(g[0] for g in got)
    bound = 1e-5 if implementation == "tpu" else 2e-2
    if causal:
        want_q = want[0][:, half:]
        assert relative_error(dq, want_q) < bound, seed
        for i in (1, 2):  # keys of the second half are seen by its own queries alone
            assert relative_error(got[1][i], want[i][:, half:]) < bound, seed
        return
    assert (
        max(errors((dq, *(np.concatenate([a, b], axis=1) for a, b in zip(got[0][1:], got[1][1:], strict=True))), want))
        < bound
    )


def test_what_a_ring_does_not_support():
    device = AbstractDevice(device_kind="NVIDIA H200", num_cores=132, platform="gpu")
    mesh = AbstractMesh((1, 1, 1, 4), AXES, axis_types=(AxisType.Auto,) * 4, abstract_device=device)

    def trace(T: int, implementation: str, S: int | None = None, **kwargs):
        q, k = (jax.ShapeDtypeStruct((1, n, 4, 64), jnp.bfloat16) for n in (T, S or T))
        with jax.sharding.use_abstract_mesh(mesh):
            jax.eval_shape(over_the_ring(implementation, **kwargs), q, k, k)

    with pytest.raises(
        ValueError, match="causal with 2049 tokens on each device of a ring; its zig-zag order"
    ) as error:
        trace(8196, "mosaic_gpu")
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="causal with 64 queries and 32 keys on each device of a ring"):
        trace(256, "xla", S=128)
    with pytest.raises(ValueError, match="q_positions or kv_positions are given with ring_axis"):
        trace(256, "xla", q_positions=jnp.arange(64))
    for implementation in ("cudnn", "reference"):
        with pytest.raises(ValueError, match="no gradient for a part of the keys; use 'mosaic_gpu' or 'xla'"):
            trace(8192, implementation)
    trace(8196, "xla", causal=False)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_every_device_sees_as_many_keys(count):
    owners = ring._owners(count)
    work = [sum(chunk + 1 for chunk, owner in enumerate(owners) if owner == d) for d in range(count)]
    assert work == [2 * count + 1] * count
