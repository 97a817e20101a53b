"""The decoder: published parameter counts, packing, remat, scan, decoding, meshes."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from opencoder_jax import model as lm
from opencoder_jax import sharding
from opencoder_jax.config import ModelConfig
from opencoder_jax.overrides import load
from tests.opencoder_jax.training import FAST_COMPILE, fake_devices, run_python

CFG = ModelConfig(
    num_layers=2,
    embed_dim=32,
    num_query_heads=4,
    num_kv_heads=2,
    head_dim=16,
    ffn_dim=48,
    vocab_size=64,
    compute_dtype="float32",
    remat="none",
)


@pytest.fixture(scope="module")
def params():
    return lm.init(CFG, jax.random.key(0))


def packed(lengths=(5, 8, 3), B=2, seed=0):
    """A batch of records that each hold documents of these lengths."""
    T = sum(lengths)
    tokens = np.random.default_rng(seed).integers(0, CFG.vocab_size, (B, T + 1)).astype(np.int32)
    positions = np.concatenate([np.arange(n) for n in lengths])
    segments = np.repeat(np.arange(len(lengths)) + 1, lengths)
    tile = lambda row: jnp.tile(jnp.asarray(row, jnp.int32), (B, 1))  # noqa: E731
    mask = np.ones(T, bool)
    mask[np.cumsum(lengths)[:-1] - 1] = False
    return {
        "tokens": jnp.asarray(tokens[:, :-1]),
        "targets": jnp.asarray(tokens[:, 1:]),
        "positions": tile(positions),
        "segment_ids": tile(segments),
        "loss_mask": jnp.tile(jnp.asarray(mask), (B, 1)),
    }


def test_bf16_gradients_of_every_weight_stay_near_the_fp32_ones():
    """Common tokens come hundreds of times in a batch, as in text: sums over them have to be kept in fp32."""
    seed = int(np.random.default_rng().integers(2**31))
    rng, V, B, T = np.random.default_rng(seed), 256, 32, 128
    p = 1 / np.arange(1, V + 1)
    tokens = rng.choice(V, size=(B, T + 1), p=p / p.sum()).astype(np.int32)
    batch = {
        "tokens": tokens[:, :-1], "targets": tokens[:, 1:], "positions": np.tile(np.arange(T, dtype=np.int32), (B, 1)),
        "segment_ids": np.cumsum(rng.random((B, T)) < 0.02, -1).astype(np.int32), "loss_mask": np.ones((B, T), bool),
    }  # fmt: skip
    cfg = replace(CFG, vocab_size=V, max_seq_len=T, remat="minimal")
    params = lm.init(cfg, jax.random.key(seed))

    def gradient(dtype: str):
        model = replace(cfg, compute_dtype=dtype)
        return jax.jit(jax.grad(lambda params: lm.bind(model, params).loss(batch)[0]))(params)

    def error(got, want):
        return float(jnp.linalg.norm(got - want) / jnp.linalg.norm(want))

    errors = jax.tree.map(error, gradient("bfloat16"), gradient("float32"))
    assert max(jax.tree.leaves(errors)) < 0.015, (seed, errors)


@pytest.mark.parametrize(("name", "count"), [("1p5b", 1_905_650_880), ("8b", 7_771_262_976), ("8b_4k", 7_771_262_976)])
def test_published_parameter_counts(name, count):
    assert lm.num_params(load(name).model) == count


def test_abstract_params_match_initial_ones(params):
    shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)  # noqa: E731
    assert shapes(lm.abstract(CFG)[1]) == shapes(params)
    # Each weight is drawn from a stream of its own, with the declared deviation; norms start at one.
    assert not np.array_equal(params["layers"]["k"][...], params["layers"]["v"][...])
    assert np.std(params["layers"]["gate"][...]) == pytest.approx(CFG.init_std, rel=0.1)
    assert (params["final_norm"][...] == 1).all()


def test_param_specs_golden():
    """Every weight's layout on the mesh, written out: a change here changes every run's memory and traffic."""
    weights = lm.abstract(CFG)[1]
    layouts = sharding.shardings(jax.sharding.AbstractMesh((1, 1, 1, 1), sharding.MESH_AXES), weights)
    assert {".".join(map(str, path)): tuple(w.get_value().spec) for path, w in nnx.to_flat_state(layouts)} == {
        "embed": ("tensor", "fsdp"),
        "layers.attention_norm": (None, None),
        "layers.q": (None, "fsdp", "tensor", None),
        "layers.k": (None, "fsdp", "tensor", None),
        "layers.v": (None, "fsdp", "tensor", None),
        "layers.o": (None, "tensor", None, "fsdp"),
        "layers.ffn_norm": (None, None),
        "layers.gate": (None, "fsdp", "tensor"),
        "layers.up": (None, "fsdp", "tensor"),
        "layers.down": (None, "tensor", "fsdp"),
        "final_norm": (None,),
        "output": ("fsdp", "tensor"),
    }


def test_packed_documents_are_independent(params):
    """Hidden states of a packed document are those of the document alone."""
    batch = packed()
    run = jax.jit(lambda p, *a: lm.bind(CFG, p)(*a))
    together = run(params, batch["tokens"], batch["positions"], batch["segment_ids"])
    alone = run(params, batch["tokens"][:, 5:13], batch["positions"][:, 5:13], batch["segment_ids"][:, 5:13])
    np.testing.assert_allclose(together[:, 5:13], alone, rtol=2e-5, atol=2e-6)
    merged = run(params, batch["tokens"], batch["positions"], jnp.ones_like(batch["segment_ids"]))
    assert np.abs(np.asarray(merged - together)[:, 5:]).max() > 1e-3  # segment ids are what keeps them apart


def test_loss_is_a_sum_over_unmasked_tokens(params):
    batch = packed()
    model = lm.bind(CFG, params)
    logits = model.logits(model(batch["tokens"], batch["positions"], batch["segment_ids"]))
    nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), batch["targets"][..., None], -1)[..., 0]
    expected = (nll * batch["loss_mask"]).sum()
    total, z_sum = model.loss(batch)
    assert float(total) == pytest.approx(float(expected), rel=1e-6)
    assert float(z_sum) == 0
    _, z_sum = model.loss(batch, z_loss=1e-2)
    lse = jax.nn.logsumexp(logits, -1)
    assert float(z_sum) == pytest.approx(float(1e-2 * (lse**2 * batch["loss_mask"]).sum()), rel=1e-5)


def gradients(cfg, params, batch):
    return jax.jit(jax.value_and_grad(lambda p: lm.bind(cfg, p).loss(batch)[0]))(params)


@pytest.fixture(scope="module")
def plain(params):
    return gradients(CFG, params, packed())


@pytest.mark.parametrize("remat", [name for name in lm.REMAT if name != "none"])
def test_remat_changes_nothing(params, plain, remat):
    loss, grads = gradients(replace(CFG, remat=remat), params, packed())
    assert float(loss) == pytest.approx(float(plain[0]), rel=1e-6)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), grads, plain[1])


def test_unrolled_scan_is_the_same(params, plain):
    loss, grads = gradients(replace(CFG, scan_unroll=2, remat="minimal"), params, packed())
    assert float(loss) == pytest.approx(float(plain[0]), rel=1e-6)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), grads, plain[1])


@pytest.mark.parametrize("remat", ["dots", "minimal", "full"])
def test_remat_saves_what_its_name_says(remat):
    """Residuals kept per layer: none saves most, then dots, minimal, and full only the layer's input."""
    cfg = replace(CFG, num_layers=4, remat=remat)
    batch = packed((64,), 2)

    def kept(cfg):
        abstract = lm.abstract(cfg)[1]
        _, vjp = jax.eval_shape(lambda p: jax.vjp(lambda p: lm.bind(cfg, p).loss(batch)[0], p), abstract)
        params_bytes = sum(x.size * 4 for x in jax.tree.leaves(abstract))
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(vjp)) - params_bytes

    order = ["none", "dots", "minimal", "full"]
    assert kept(cfg) < kept(replace(cfg, remat=order[order.index(remat) - 1]))


def test_compile_size_does_not_grow_with_depth():
    def length(layers):
        cfg = replace(CFG, num_layers=layers)
        lowered = jax.jit(lambda p: lm.bind(cfg, p).loss(packed())[0]).lower(lm.abstract(cfg)[1])
        return len(lowered.as_text())

    assert length(16) < 1.05 * length(2)


def test_bfloat16_compute_stays_near_float32(params):
    loss, grads = gradients(replace(CFG, compute_dtype="bfloat16"), params, packed())
    assert all(g.dtype == jnp.float32 for g in jax.tree.leaves(grads))
    exact, exact_grads = gradients(CFG, params, packed())
    assert float(loss) == pytest.approx(float(exact), rel=5e-3)
    norm = lambda tree: np.sqrt(sum(float((np.asarray(x) ** 2).sum()) for x in jax.tree.leaves(tree)))  # noqa: E731
    assert norm(jax.tree.map(jnp.subtract, grads, exact_grads)) < 0.03 * norm(exact_grads)


def test_decode_continues_as_the_whole_sequence_would(params):
    """Prefill of 6 tokens, then one at a time, with left padding in the second row."""
    T, prompt = 10, 6
    tokens = jax.random.randint(jax.random.key(3), (2, T), 0, CFG.vocab_size)
    pad = np.array([0, 2])
    positions = np.maximum(np.arange(T)[None] - pad[:, None], 0)
    segments = jnp.asarray((np.arange(T)[None] >= pad[:, None]).astype(np.int32))
    model = lm.bind(CFG, params)
    whole = model(tokens, jnp.asarray(positions), segments)
    step = jax.jit(lambda p, *a: lm.bind(CFG, p).decode(*a))
    cache = lm.init_cache(CFG, 2, T)
    hidden, cache = step(params, tokens[:, :prompt], jnp.asarray(positions[:, :prompt]), cache, segments)
    parts = [hidden]
    for t in range(prompt, T):
        hidden, cache = step(params, tokens[:, t : t + 1], jnp.asarray(positions[:, t : t + 1]), cache, segments)
        parts.append(hidden)
    assert int(cache["length"]) == T
    result = np.concatenate(parts, axis=1)
    real = np.asarray(segments) == 1
    np.testing.assert_allclose(result[real], np.asarray(whole)[real], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"num_kv_heads": 3}, "num_query_heads=4"),
        ({"head_dim": 15}, "head_dim=15"),
        ({"remat": "dot"}, "remat='dot'"),
        ({"scan_unroll": 3}, "scan_unroll=3"),
    ],
)
def test_impossible_shapes_are_rejected(change, field):
    with pytest.raises(ValueError, match=field):
        lm.check(replace(CFG, **change))


MESHES = """
import json, sys
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding
from opencoder_jax import model as lm, sharding
from opencoder_jax.config import MeshConfig
sys.path.insert(0, sys.argv[1])
from test_model import CFG, packed
from dataclasses import replace
cfg = replace(CFG, remat="minimal")
batch = packed((5, 8, 3), 8)
params = lm.init(cfg, jax.random.key(0))
f = lambda p, b: lm.bind(cfg, p).loss(b, z_loss=1e-4)[0]
expected = jax.jit(jax.value_and_grad(f))(params, batch)
found = []
for sizes in ({"fsdp": 8}, {"context": 8}, {"data": 2, "fsdp": 2, "tensor": 2}, {"fsdp": 2, "tensor": 2, "context": 2}):
    mesh = sharding.make_mesh(MeshConfig(**({"fsdp": 1} | sizes)))
    with jax.set_mesh(mesh):
        layout = sharding.shardings(mesh, params)
        here = jax.device_put(params, layout)
        rows = jax.device_put(batch, NamedSharding(mesh, sharding.spec("batch", "time")))
        loss, grads = jax.jit(jax.value_and_grad(f), out_shardings=(None, layout))(here, rows)
    error = max(float(jnp.abs(a - b).max() / jnp.abs(b).max())
                for a, b in zip(jax.tree.leaves(jax.device_get(grads)), jax.tree.leaves(expected[1])))
    found.append([sizes, abs(float(loss - expected[0])) / float(expected[0]), error])
print(json.dumps(found))
"""


def test_meshes_give_the_gradients_of_one_device(request):
    """Eight devices: the loss to 1e-6 and every gradient to 1e-5 of its largest entry."""
    rows = run_python(MESHES, str(request.path.parent), variables=fake_devices(8, FAST_COMPILE))
    assert len(rows) == 4
    for sizes, loss_error, gradient_error in rows:
        assert loss_error < 1e-6, sizes
        assert gradient_error < 1e-5, sizes
