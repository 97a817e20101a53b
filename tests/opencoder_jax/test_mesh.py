"""Every mesh computes what one device computes, and the state is really sharded over the devices."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from tests.opencoder_jax.training import FAST_COMPILE, VOCAB, fake_devices, micro_config, run_python, write_shards

MESHES = [
    {"data": 8},
    {"fsdp": 8},
    {"tensor": 8},
    {"context": 8},
    {"data": 2, "fsdp": 2, "tensor": 2},
    {"data": 2, "fsdp": 2, "context": 2},
    {"fsdp": 2, "tensor": 2, "context": 2},
    {"fsdp": 4, "tensor": 2},
]
STEPS = 20


def child() -> None:
    """In a process with eight fake devices: losses, bytes per device and compilations for one device and each mesh."""
    import jax

    from opencoder_jax import distributed
    from opencoder_jax.input import TrainingData
    from opencoder_jax.sharding import make_mesh
    from opencoder_jax.step import make_train_step

    results = []
    for axes in [{"data": 1}, *MESHES]:
        changes = {f"mesh.{name}": axes.get(name, 1) for name in ("data", "fsdp", "tensor", "context")}
        config = micro_config(sys.argv[1], **changes)
        mesh = make_mesh(config.mesh, jax.devices()[: int(np.prod(list(axes.values())))])
        with jax.set_mesh(mesh):
            train = make_train_step(config, mesh)
            state = train.init(jax.random.key(0))
            steps = TrainingData(config.data, vocab_size=VOCAB, seed=0).steps()
            rows, losses = distributed.local_rows(train.abstract_batch), []
            for i in range(STEPS):
                batch = distributed.to_devices(steps[i], train.abstract_batch, rows)
                state, metrics = train.step(state, batch)
                losses.append(float(metrics["loss"]))
        leaves = jax.tree.leaves((state["params"], state["opt_state"]))
        per_device = {
            d.id: sum(s.data.nbytes for x in leaves for s in x.addressable_shards if s.device == d)
            for d in mesh.devices.flat
        }
        total = sum(x.nbytes for x in leaves)
        compiled = train.step._cache_size()
        results.append({"losses": losses, "bytes": list(per_device.values()), "total": total, "compiled": compiled})
    print(json.dumps(results))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    shards = write_shards(tmp_path_factory.mktemp("mesh") / "shards")
    code = "from tests.opencoder_jax.test_mesh import child; child()"
    return run_python(code, str(shards), variables=fake_devices(8, FAST_COMPILE))


@pytest.mark.parametrize("index", range(len(MESHES)), ids=str)
def test_losses_equal_one_device(results, index):
    one, many = results[0]["losses"], results[1 + index]["losses"]
    assert one[-1] < one[0] - 0.5, "the run learns nothing: equal losses would prove nothing"
    np.testing.assert_allclose(many, one, rtol=1e-5)


@pytest.mark.parametrize("index", range(len(MESHES)), ids=str)
def test_state_is_sharded_over_fsdp_and_tensor(results, index):
    axes, result = MESHES[index], results[1 + index]
    parts = axes.get("fsdp", 1) * axes.get("tensor", 1)
    # Norm scales and the step count are on every device: 4 of 20,000 weights.
    assert max(result["bytes"]) < result["total"] / parts * 1.08
    assert min(result["bytes"]) == max(result["bytes"])


def test_step_compiles_once(results):
    assert [r["compiled"] for r in results] == [1] * (1 + len(MESHES))
