"""Micro-batches on a mesh: the gradients of one device, and data groups that meet once a step, however many there are."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.opencoder_jax.training import FAST_COMPILE, fake_devices, micro_config, run_python

# Mesh, micro-batches.
RUNS = [({"data": 8}, 2), ({"data": 2, "tensor": 2, "context": 2}, 4)]
BATCH = 16
NUM_WEIGHTS = 12  # arrays that the model has: embedding, output, final norm, nine stacked over layers


def child() -> None:
    """With eight fake devices: for every mesh and number of micro-batches how far the gradient of one batch is from that of
    one device in one piece (norm of the difference over the norm), and the collectives along `data`."""
    import jax

    from opencoder_jax import distributed
    from opencoder_jax.perf.plan import collectives, hlo
    from opencoder_jax.perf.plan.topology import parse
    from opencoder_jax.perf.timing import synthetic_batch
    from opencoder_jax.sharding import make_mesh
    from opencoder_jax.step import make_train_step

    def run(axes: dict[str, int], accum: int) -> tuple[list[np.ndarray], int, int]:
        """Adam's first moment after one step, a tenth of the gradient; number and bytes of collectives along `data`."""
        changes = {f"mesh.{name}": axes.get(name, 1) for name in ("data", "fsdp", "tensor", "context")}
        config = micro_config("x", **changes, **{"grad_accum": accum, "data.global_batch_size": BATCH})
        mesh = make_mesh(config.mesh, jax.devices()[: int(np.prod(list(axes.values())))])
        with jax.set_mesh(mesh):
            train = make_train_step(config, mesh)
            step = train.step.lower(train.abstract_state, train.abstract_batch).compile()
            tokens = {k: x.reshape(accum, BATCH // accum, -1) for k, x in synthetic_batch(whole).items()}
            batch = distributed.to_devices(tokens, train.abstract_batch, (0, BATCH // accum))
            state, _ = step(train.init(jax.random.key(0)), batch)
        moments = [x for x in jax.tree.leaves(jax.device_get(state["opt_state"])) if x.ndim]
        shape = dict(zip(mesh.axis_names, mesh.devices.shape, strict=True))
        found = collectives.find(hlo.parse(step.as_text()), shape, parse("h100:1x8"))
        along = [c for c in found if "data" in c.axes and c.bytes > 64]  # not the loss and the count of tokens
        return moments[: len(moments) // 2], sum(c.count for c in along), sum(c.count * c.bytes for c in along)

    whole = micro_config("x", **{"data.global_batch_size": BATCH})
    expected, *_ = run({"data": 1}, 1)
    results = []
    for axes, accum in RUNS:
        moments, count, size = run(axes, accum)
        apart = [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(moments, expected, strict=True)]
        results.append({"apart": max(apart), "count": count, "bytes": size, "weights": sum(x.size for x in expected)})
    print(json.dumps(results))


@pytest.fixture(scope="module")
def results():
    code = "from tests.opencoder_jax.test_accumulation import child; child()"
    return run_python(code, variables=fake_devices(8, FAST_COMPILE))


def test_gradients_equal_one_device_in_one_piece(results):
    assert max(found["apart"] for found in results) < 1e-6


def test_defers_data_all_reduce_a_step(results):
    """As fp32 parts: bytes of all weights over tensor, but for the norm scales, which are on every device."""
    for (axes, _), found in zip(RUNS, results, strict=True):
        assert 0 < found["count"] <= NUM_WEIGHTS
        assert 1 <= found["bytes"] / (4 * found["weights"] / axes.get("tensor", 1)) < 1.05
