"""The table parameter -> PartitionSpec, and meshes that do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.sharding import AbstractMesh

from opencoder_jax import model as lm
from opencoder_jax import overrides, sharding
from opencoder_jax.config import MeshConfig
from opencoder_jax.sharding import MESH_AXES, check_fits, mesh_shape
from tests.opencoder_jax.training import micro_config

GOLDEN = Path(__file__).parent / "golden" / "partition_specs.txt"


class FakeMesh:
    """Names and sizes of a mesh that this machine has no devices for."""

    def __init__(self, **sizes: int):
        import numpy as np

        self.axis_names = ("data", "fsdp", "tensor", "context")
        self.devices = np.zeros([sizes.get(name, 1) for name in self.axis_names])


def test_partition_specs_are_golden():
    """Shapes and layouts of both published models; a change shows in review."""
    lines = []
    for name in ("1p5b", "8b"):
        cfg = overrides.load(name).model
        weights = lm.abstract(cfg)[1]
        layouts = jax.tree.leaves(sharding.shardings(AbstractMesh((1, 1, 1, 1), sharding.MESH_AXES), weights))
        for (path, weight), layout in zip(nnx.to_flat_state(weights), layouts, strict=True):
            where = ".".join(map(str, path))
            lines.append(f"{name} {where} {list(weight.shape)} {[a if a else '-' for a in layout.spec]}\n")
    assert "".join(lines) == GOLDEN.read_text()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            {"tensor": 3, "data": 8},
            r"model.num_query_heads=8 is not divisible by mesh tensor=3; sizes that fit: \[1, 2, 4, 8\]",
        ),
        ({"fsdp": 3, "data": 4}, r"model.embed_dim=32 is not divisible by mesh fsdp=3; sizes that fit: \[1, 2, 4\]"),
        (
            {"context": 5, "data": 8},
            r"data.seq_len=32 is not divisible by 2 x mesh context=5 .*; sizes that fit: \[1, 2, 4, 8\]",
        ),
        (
            {"context": 32},
            r"data.seq_len=32 is not divisible by 2 x mesh context=32 .*; sizes that fit: \[1, 2, 4, 8, 16\]",
        ),
        (
            {"data": 4, "fsdp": 4},
            r"data.global_batch_size / grad_accum=8 is not divisible by mesh data x fsdp=16; sizes that fit: \[1, 2, 4, 8\]; or a data.global_batch_size of 16$",
        ),
    ],
)
def test_what_the_mesh_does_not_divide(sizes, message):
    with pytest.raises(ValueError, match=message):
        check_fits(micro_config(), FakeMesh(**sizes))  # type: ignore[arg-type]


def test_kv_heads_are_named_too():
    with pytest.raises(ValueError, match=r"model.num_kv_heads=2 is not divisible by mesh tensor=4; .*\[1, 2\]"):
        check_fits(micro_config(**{"model.num_kv_heads": 2}), FakeMesh(tensor=4))  # type: ignore[arg-type]


def test_mesh_shapes():
    assert mesh_shape(MeshConfig(), 8) == (1, 8, 1, 1)
    assert mesh_shape(MeshConfig(data=-1, fsdp=2, tensor=2), 8) == (2, 2, 2, 1)
    for config, message in [
        (MeshConfig(data=3, fsdp=1), r"must multiply to 8; with the others as they are, data 8 fits"),
        (MeshConfig(tensor=3), r"must multiply to 8; with the others as they are, tensor of \[1, 2, 4, 8\] fits"),
        (MeshConfig(tensor=4, context=4), r"tensor of \[1, 2\] or context of \[1, 2\] fits"),
        (MeshConfig(data=3, fsdp=-1, tensor=3), r"must multiply to 8; from \[1, 2, 4, 8\]"),
        (MeshConfig(data=-1, fsdp=-1), "at most one -1"),
        (MeshConfig(data=0), "sizes >= 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            mesh_shape(config, 8)


def equations(jaxpr: Any) -> Iterator[Any]:
    """Of a jaxpr and of all inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


@pytest.mark.parametrize("sizes", [(1, 4, 1, 1), (2, 2, 2, 1), (1, 2, 1, 2)], ids=str)
def test_gradients_are_scattered_in_fp32_under_bf16(sizes):
    """Every gathered weight's gradient is scattered over fsdp again, as fp32 and along the dim that was gathered; the
    gather itself travels in bf16."""
    config = micro_config(**{"model.compute_dtype": "bfloat16", "model.remat": "minimal"}).model
    mesh = jax.sharding.AbstractMesh(sizes, MESH_AXES, axis_types=(jax.sharding.AxisType.Auto,) * 4)
    rows = jax.ShapeDtypeStruct((8, config.max_seq_len), jnp.int32)
    batch = dict.fromkeys(("tokens", "targets", "positions", "segment_ids"), rows)
    batch["loss_mask"] = jax.ShapeDtypeStruct(rows.shape, jnp.bool_)
    with jax.sharding.use_abstract_mesh(mesh):
        gradient = jax.grad(lambda p, b: lm.bind(config, p).loss(b)[0])
        found = list(equations(jax.make_jaxpr(gradient)(lm.abstract(config)[1], batch).jaxpr))
    scatters = [e for e in found if e.primitive.name == "reduce_scatter"]
    gathers = [e for e in found if e.primitive.name == "all_gather" and "fsdp" in e.params["axis_name"]]
    # Embedding, gate, up and the output matrix; inside the scan once, with remat gate and up are gathered again.
    assert len(scatters) == 4
    assert {e.params["axis_name"] for e in scatters} == {("fsdp",)}
    assert {e.invars[0].aval.dtype for e in scatters} == {jnp.dtype("float32")}
    assert {e.invars[0].aval.dtype for e in gathers} == {jnp.dtype("bfloat16")}
    whole = {config.embed_dim, config.vocab_size // sizes[2], config.ffn_dim // sizes[2]}
    for e in [*gathers, *scatters]:
        full = e.outvars[0] if e in gathers else e.invars[0]
        assert set(full.aval.shape) <= whole
        assert config.embed_dim in full.aval.shape
