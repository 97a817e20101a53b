"""Plans: machines by name, what a compiled step moves, keeps and computes, the search, and rejections in one line.

Compiled for fake CPU devices; the compilers of GPUs and TPUs without hardware are tried in test_ahead_of_time.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
from collections import Counter

import pytest

from opencoder_jax import overrides
from opencoder_jax.metrics import flops_per_token
from opencoder_jax.perf.plan import estimate as estimates
from opencoder_jax.perf.plan import hlo, report
from opencoder_jax.perf.plan import topology as machines
from opencoder_jax.perf.plan.compile import OutOfMemory, _rejected
from opencoder_jax.perf.plan.estimate import estimate
from opencoder_jax.perf.plan.report import out_of_memory
from opencoder_jax.perf.plan.search import candidates, rank, varied
from tests.opencoder_jax.training import micro_config, run_python

MESHES = {
    "fsdp": {"data": 2, "fsdp": 4, "tensor": 1, "context": 1},
    "tensor": {"data": 1, "fsdp": 4, "tensor": 2, "context": 1},
    "context": {"data": 1, "fsdp": 2, "tensor": 1, "context": 4},
}
# Command lines that are rejected, and what the one line must say.
REJECTED = {
    "--config=tiny --topology=h10:2x4": "no device 'h10'; did you mean h100?",
    "--config=tiny --topology=h100:2x16": "at most 8 GPUs to a node",
    "--config=tiny --topology=v5p:4x4": "a v5p slice has 3 sides, for example v5p:4x4x4",
    "--config=tiny --topology=v5e:0x4": "write v5e:4x4 (chips along each side)",
    "--config=tiny": "no --topology=NAME given",
    "--config=tinny --topology=h100:2x4": "did you mean tiny?",
    "--config=tiny --topology=h100:2x4 --mesh.fdsp=8": "did you mean --mesh.fsdp?",
    "--config=tiny --topology=h100:2x4 --mesh.fsdp=3": "does not make 8 devices; axis sizes must multiply to 8; with the others as they are, fsdp 8 fits",
    "--config=tiny --topology=h100:2x4 --mesh.fsdp=8": "data.global_batch_size / grad_accum=4 is not divisible by mesh data x fsdp=8; sizes that fit: [1, 2, 4]; or a data.global_batch_size of 8",
    "--config=tiny --topology=h100:2x4 --mesh.fsdp=8 --data.global_batch_size=16 --grad_accum=4": "is not divisible by mesh data x fsdp=8; sizes that fit: [1, 2, 4]; or a data.global_batch_size of 32; grad_accum that fits: [1, 2]",
    "--config=tiny --topology=h100:2x4 --topology=h100:2x8": "--topology is given twice",
    "--config=tiny --topology=h100:2x4 --serch": "--serch: no such field; did you mean --search?",
    "--config=tiny --topology=h100:2x4 --grad_accum=0": "grad_accum=0 must be at least 1",
    "--config=tiny --topology=h100:2x4 --data.seq_len=4096": "exceeds model.max_seq_len",
    "--config=tiny --topology=h100:2x4 --out=/proc/nothing": "/proc/nothing: No such file or directory",
    "--config=tiny --topology=h100:1x2 --search --mesh.tensor=4": "no candidate has --mesh.tensor=4; leave some of it to the search",
    "--config=tiny --topology=h100:2x4 --mesh.fsdp=2 --mesh.tensor=4": "model.num_kv_heads=2 is not divisible by mesh tensor=4; sizes that fit: [1, 2]",
    "--config=tiny --topology=h100:2x4 --compiler=gcc": "choose device or cpu",
    "--config=tiny --topology=h100:2x4 --search=many": "write a number of candidates to compile",
    "--config=tiny --topology=h100:2x4 --search=0": "write a number of candidates to compile",
    "--config=tiny --topology=h100:1x7 --search": "embed_dim 256; topologies that fit: h100:1x4, h100:1x8",
    "--config=tiny --topology=h100:2x4 --mesh.fsdp=4 --mesh.data=2 --grad_accum=3": "is not divisible by grad_accum=3",
}  # fmt: skip


def child() -> None:
    """In a process with eight fake devices: plans of the micro model, and what is said to rejected command lines."""
    machine = machines.parse("h100:2x4")
    machines.prepare_environment(machine, "cpu")
    from opencoder_jax.perf.plan.__main__ import __doc__ as documentation
    from opencoder_jax.perf.plan.__main__ import run
    from opencoder_jax.perf.plan.planner import make_plan

    plans = {}
    for name, mesh in MESHES.items():
        # The dense reference computes every product, so that FLOPs can be counted by hand; over context the kernels deal
        # the work out themselves.
        changes: dict[str, object] = {f"mesh.{axis}": size for axis, size in mesh.items()}
        changes["model.implementation"] = "xla" if mesh["context"] > 1 else "reference"
        plan, compiled = make_plan(micro_config("x", **changes), machine, "cpu")
        plans[name] = plan.as_dict() | {"scheduled": hlo.parse(compiled.hlo).is_scheduled, "text": report.text(plan)}
    said = {}
    for line in REJECTED:
        arguments = line.split() + ([] if "--compiler" in line else ["--compiler=cpu"])
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            code = overrides.command(run, arguments, documentation)
        said[line] = [code, errors.getvalue()]
    print(json.dumps({"plans": plans, "said": said}))


@pytest.fixture(scope="module")
def results():
    return run_python("from tests.opencoder_jax.perf.plan.test_plan import child; child()", variables={})


@pytest.mark.parametrize("line", REJECTED)
def test_bad_input_is_one_line(results, line):
    code, said = results["said"][line]
    assert code == 2
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert REJECTED[line] in said


@pytest.mark.parametrize("tensor", [1, 2])
def test_flops_of_the_estimate_are_those_of_flops_per_token(tensor):
    """Matmuls: the 6 per weight of the definition, SwiGLU's gate and up once more, and what a remat policy runs again.
    Attention: a third of the definition's causal count forwards; 3.5 times that backwards, as each of two kernels makes
    the scores again."""
    config = overrides.load("1p5b")
    m, T, machine = config.model, config.data.seq_len, machines.parse("h100:1x8")
    peak = 989e12
    weights = flops_per_token(m, 0, causal=True)
    attention = (flops_per_token(m, T, causal=True) - weights) / 3
    query_key_value_out = m.embed_dim * m.head_dim * (2 * m.num_query_heads + 2 * m.num_kv_heads)
    key_value_query = m.embed_dim * m.head_dim * (m.num_query_heads + 2 * m.num_kv_heads)
    gate_up = 2 * m.embed_dim * m.ffn_dim
    again = {"none": 0, "dots": 0, "minimal": key_value_query + gate_up, "full": query_key_value_out + gate_up}
    for remat, repeated in again.items():
        changed = dataclasses.replace(config, model=dataclasses.replace(m, remat=remat))
        matmuls, kernels, _ = estimates._token_seconds(changed, {"fsdp": 8, "tensor": tensor}, machine)
        expected = weights + m.num_layers * 2 * (gate_up + repeated)
        assert matmuls * peak * estimates.MATMUL_EFFICIENCY * tensor == pytest.approx(expected)
        forward = attention * (2 if remat == "full" else 1) / estimates.ATTENTION_FORWARD_EFFICIENCY
        backward = 3.5 * attention / estimates.ATTENTION_BACKWARD_EFFICIENCY
        assert kernels * peak * tensor == pytest.approx(forward + backward)


@pytest.mark.parametrize("name", ["fsdp", "tensor"])
def test_flops_of_the_compiled_step(results, name):
    """All products of the step are found: with dense attention they are exactly those of the full convention.

    The reference's loss does not cut the vocabulary: every device of a tensor group multiplies by all of it.
    """
    plan, config = results["plans"][name], micro_config()
    again = (MESHES[name]["tensor"] - 1) * 6 * config.model.embed_dim * config.model.vocab_size
    expected = flops_per_token(config.model, config.data.seq_len, causal=False) + again
    assert plan["executed_flops_per_token"] == expected
    assert plan["notes"] == [
        "compiled for fake CPU devices: collectives are those of the step, memory and times only indicative"
    ]


def test_the_page_says_what_was_planned(results):
    text = results["plans"]["tensor"]["text"]
    assert "mesh data 1 x fsdp 4 x tensor 2 x context 1" in text
    assert "T 32, a batch of 8 records in 1 micro-batch(es), 2 records a device at a time; remat none" in text


@pytest.mark.parametrize("name", MESHES)
def test_memory_of_the_compiled_step(results, name):
    """State is sharded over fsdp and tensor but for the norm scales; fp32 weights and two moments."""
    memory, mesh = results["plans"][name]["memory"], MESHES[name]
    config = micro_config().model
    norms = 4 * config.embed_dim * (2 * config.num_layers + 1)
    whole = 4 * sum(weights(config)) - norms
    params = whole // (mesh["fsdp"] * mesh["tensor"]) + norms
    assert memory["params"] == params
    assert memory["optimizer"] == 2 * params + 4  # and Adam's count
    assert memory["peak"] >= memory["params"] + memory["optimizer"] + memory["batch"]


def weights(m) -> list[int]:
    """Weights of the model, counted by hand (paper table 4's architecture)."""
    heads = m.embed_dim * m.head_dim * (2 * m.num_query_heads + 2 * m.num_kv_heads)
    layer = heads + 3 * m.embed_dim * m.ffn_dim + 2 * m.embed_dim
    return [m.num_layers * layer, 2 * m.vocab_size * m.embed_dim, m.embed_dim]


def in_loops(plan: dict, num_layers: int) -> Counter[tuple[str, str]]:
    """(kind, axes) -> how many of these a layer takes; arrays below 1 kB (scales, counts) aside."""
    found: Counter[tuple[str, str]] = Counter()
    for c in plan["collectives"]:
        if c["count"] == num_layers and c["bytes"] > 1024:
            found[c["kind"], "+".join(c["axes"])] += 1
    return found


# Forwards seven matrices of a layer are gathered, backwards the five whose product is with a gradient and gate and up
# kept from before; the CPU's compiler has no reduce-scatter of its own making, only those of shard_map (gate, up).
GOLDEN = {
    "fsdp": {
        ("all-gather", "fsdp"): 12, ("reduce-scatter", "fsdp"): 2, ("all-reduce", "fsdp"): 1, ("all-reduce", "data"): 1,
    },
    "tensor": {
        ("all-gather", "fsdp"): 12, ("reduce-scatter", "fsdp"): 2, ("all-reduce", "fsdp"): 1, ("all-reduce", "tensor"): 4,
    },
    "context": {
        ("all-gather", "fsdp"): 12, ("reduce-scatter", "fsdp"): 2, ("all-reduce", "fsdp"): 1,
        ("all-reduce", "context"): 1,
        # The ring outside its loop. Forwards: two halves each of q and of keys with values dealt out, of the result back,
        # the first send. Backwards: q with d out, keys with values, dq, dk with dv in two halves each, the first send of keys
        # and the last two of their gradients.
        ("collective-permute", "context"): 7 + 11,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", MESHES)
def test_collectives_of_a_layer_are_golden(results, name):
    assert in_loops(results["plans"][name], micro_config().model.num_layers) == GOLDEN[name]


def test_the_ring_turns_in_loops(results):
    """Two of its three steps are in a loop: it sends keys forwards and backwards, and their gradients."""
    m, mesh = micro_config().model, MESHES["context"]
    steps = [
        c for c in results["plans"]["context"]["collectives"] if c["count"] == m.num_layers * (mesh["context"] - 2)
    ]
    assert [(c["kind"], c["axes"]) for c in steps if c["bytes"] > 1024] == [("collective-permute", ["context"])] * 3


@pytest.mark.parametrize("name", MESHES)
def test_no_gather_of_more_than_one_matrix(results, name):
    """The FSDP pattern: along fsdp, matrix by matrix; never all layers of one at once, never all parameters."""
    m, plan = micro_config().model, results["plans"][name]
    largest = 4 * m.embed_dim * max(m.vocab_size, m.ffn_dim, m.num_query_heads * m.head_dim)
    gathers = [c for c in plan["collectives"] if c["kind"] == "all-gather" and "fsdp" in c["axes"]]
    assert gathers
    assert all(c["axes"] == ["fsdp"] for c in gathers)
    assert max(c["bytes"] for c in gathers) <= largest
    total = 4 * sum(weights(m)) / MESHES[name]["tensor"]
    assert sum(c["bytes"] * c["count"] for c in gathers) < 2 * total  # once forwards, once backwards
    assert plan["scheduled"]


def test_search_ends_with_a_configuration_that_can_be_trained(tmp_path):
    out = tmp_path / "out"
    code = (
        "import sys\nfrom opencoder_jax import overrides\nfrom opencoder_jax.perf.plan.__main__ import run\n"
        f"code = run(['--config=tiny', '--topology=h100:1x2', '--compiler=cpu', '--search=2', '--out={out}', '--seed=7'])\n"
        "print(code)"
    )
    assert run_python(code, variables={}) == 0
    table = (out / "search.md").read_text()
    assert table.count(" winner |") == 1
    rows = [json.loads(line) for line in (out / "candidates.jsonl").read_text().splitlines()]
    assert len(rows) == len(list(candidates(overrides.load("tiny"), machines.parse("h100:1x2"))))
    assert [bool(r["why_it_lost"]) for r in rows] == [False] + [True] * (len(rows) - 1)
    assert sum(r["compiled"] is not None for r in rows) == 2
    assert rows[0]["compiled"]["seconds"] <= rows[1]["compiled"]["seconds"]
    won = overrides.parse([f"--config={out / 'winner.py'}"])
    assert won.seed == 7
    assert dataclasses.asdict(won.mesh) == rows[0]["mesh"]
    assert (won.model.remat, won.grad_accum) == (rows[0]["remat"], rows[0]["grad_accum"])


def test_what_is_asked_for_is_not_searched():
    given = {"mesh.tensor": 2, "model.remat": "dots"}
    fitting, rejected = rank(overrides.load("8b"), machines.parse("h100:64x8"), given)
    found = [*fitting, *rejected]
    assert {(c.mesh["tensor"], c.remat) for c in found} == {(2, "dots")}
    assert len({c.grad_accum for c in found}) > 1
    assert len({c.mesh["fsdp"] for c in found}) > 1


def test_arithmetic_of_accumulation():
    """Where weights are whole, gradients meet over data once a step, however many micro-batches there are."""
    config, machine = overrides.load("1p5b"), machines.parse("h100:32x8")

    def network(accum: int, fsdp: int) -> float:
        mesh = {"data": 256 // fsdp, "fsdp": fsdp, "tensor": 1, "context": 1}
        return estimate(dataclasses.replace(config, grad_accum=accum), mesh, machine).network

    assert network(2, 1) == pytest.approx(network(4, 1))
    assert network(4, 8) > 1.9 * network(2, 8)


def test_arithmetic_prunes_what_cannot_fit():
    fitting, rejected = rank(overrides.load("8b"), machines.parse("h100:1x1"))
    assert fitting == []
    assert rejected
    assert all("GiB too much by the analytical estimate" in c.reason for c in rejected)
    fitting, rejected = rank(overrides.load("8b"), machines.parse("h100:64x8"))
    assert fitting
    assert rejected
    assert all(c.mesh["fsdp"] * c.mesh["tensor"] * c.mesh["data"] * c.mesh["context"] == 512 for c in fitting)
    assert all(c.mesh["tensor"] * c.mesh["context"] <= 8 for c in fitting), "they stay inside a node"


def test_what_is_compiled_differs():
    fitting, _ = rank(overrides.load("8b"), machines.parse("h100:64x8"))
    chosen = varied(fitting, 6)
    assert chosen[0] is fitting[0]
    assert len({tuple(c.mesh.values()) for c in chosen}) >= 4
    assert len({c.remat for c in chosen}) >= 2
    assert len({c.records for c in chosen}) >= 2
    assert chosen[-1].estimate.step < 1.1 * chosen[0].estimate.step


def test_arithmetic_of_recomputation():
    """Of two policies the stronger computes more and keeps less; sharding state over more devices leaves more memory."""
    config, machine = overrides.load("8b"), machines.parse("h100:64x8")
    found, _ = rank(dataclasses.replace(config, grad_accum=2), machine)
    of = {
        (c.mesh["fsdp"], c.remat): c.estimate
        for c in found
        if c.grad_accum == 2 and c.mesh["data"] * c.mesh["fsdp"] == 512
    }
    for fsdp in (8, 64, 512):
        dots, minimal, full = (of[fsdp, remat] for remat in ("dots", "minimal", "full"))
        assert dots.products < minimal.products < full.products
        assert dots.attention == minimal.attention < full.attention
        assert dots.memory > minimal.memory > full.memory
    assert of[8, "dots"].memory > of[64, "dots"].memory > of[512, "dots"].memory


HBM = "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 21.50G of 15.75G hbm. Exceeded hbm capacity by 5.75G."
TEMPORARIES = "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO temporaries (24.12G) exceeds available HBM (15.75G). HLO module: jit_train_step."
VMEM = "RESOURCE_EXHAUSTED: E1001: CompileTimeScopedVmemOom:\nRan out of memory in memory space vmem"


def test_out_of_memory_at_compile_time_is_told_from_other_failures():
    v5e = machines.parse("v5e:4x4")
    found = _rejected(RuntimeError(HBM), v5e)
    assert isinstance(found, OutOfMemory)
    assert found.needed == int(21.5 * 2**30)
    config = dataclasses.replace(overrides.load("1p5b"), grad_accum=16)
    said = out_of_memory(config, {"data": 1, "fsdp": 16, "tensor": 1, "context": 1}, found.needed, v5e)
    assert "needs 21.5 GiB, 5.5 GiB more than the 16.0 GiB" in said
    advised = re.search(
        r"try --grad_accum=(\d+) \(now 16, 4 records a device at a time\), which fits by the analytical estimate", said
    )
    assert advised, said
    assert int(advised.group(1)) in (32, 64)
    temporaries = _rejected(RuntimeError(TEMPORARIES), v5e)
    assert isinstance(temporaries, OutOfMemory)
    assert temporaries.needed == int(24.12 * 2**30)
    kernel = _rejected(RuntimeError(VMEM), v5e)
    assert isinstance(kernel, ValueError)
    assert "VMEM" in str(kernel)
    flaw = _rejected(
        RuntimeError("INTERNAL: RET_CHECK failure (while_loop.cc:1112) user->opcode() == HloOpcode::kAdd"), v5e
    )
    assert isinstance(flaw, ValueError)
    assert "a flaw of its own" in str(flaw)
    other = RuntimeError("INTERNAL: something else")
    assert _rejected(other, v5e) is other


def test_naming_a_machine_needs_no_jax():
    """The compiler's environment is set before JAX is imported."""
    code = "import sys, json, opencoder_jax.perf.plan.topology\nprint(json.dumps('jax' in sys.modules))"
    assert run_python(code, variables={}) is False
