"""The 8B's step compiled for 512 H100s that are not here: its collectives are golden; and every machine by its name."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from opencoder_jax import overrides
from opencoder_jax.perf.plan import hlo
from opencoder_jax.perf.plan import topology as machines
from opencoder_jax.perf.plan.estimate import estimate
from opencoder_jax.perf.plan.search import EXIT_NOTHING_FITS
from tests.opencoder_jax.training import run_python

pytestmark = [
    pytest.mark.aot,
    pytest.mark.skipif(importlib.util.find_spec("jax_cuda13_plugin") is None, reason="needs the extra [aot]"),
]

# (kind, axes) -> (in each layer, besides) of the step of configs/8b.py, data 8 x fsdp 64. Combined as xla_flags.py asks:
# a layer's seven matrices are gathered in two messages forwards and two backwards, their gradients scattered in two and
# summed over data as parts; the norm scales' gradients are summed over all. Besides: embedding and output, scalars.
GOLDEN = {
    ("all-gather", "fsdp"): (4, 2),
    ("reduce-scatter", "fsdp"): (2, 1),
    ("all-reduce", "data"): (2, 1),
    ("all-reduce", "data+fsdp"): (1, 1),
    ("all-reduce", "fsdp"): (0, 1),
}


def plan(directory, *arguments: str) -> tuple[int, str, dict]:
    """Exit code, what it printed, and the plan."""
    command = [sys.executable, "-m", "opencoder_jax.perf.plan", *arguments, f"--out={directory}"]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, timeout=580)
    path = directory / "plan.json"
    return done.returncode, done.stdout + done.stderr, json.loads(path.read_text()) if path.exists() else {}


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    directory = tmp_path_factory.mktemp("plan")
    code, printed, made = plan(directory, "--config=8b", "--topology=h100:64x8")
    assert code == 0, printed
    return made, hlo.parse((directory / "step.hlo.txt").read_text())


def test_collectives_of_the_8b_are_golden(planned):
    found: Counter[tuple[str, str]] = Counter()
    for c in planned[0]["collectives"]:
        found[c["kind"], "+".join(c["axes"])] += c["count"]
    layers = overrides.load("8b").model.num_layers
    assert found == {key: layers * each + besides for key, (each, besides) in GOLDEN.items()}


def test_gradients_are_added_between_devices_in_fp32(planned):
    found = 0
    for _, instruction, _ in planned[1].walk():
        if instruction.opcode.startswith(("reduce-scatter", "all-reduce")) and not instruction.opcode.endswith("-done"):
            found += 1
            assert "bf16[" not in instruction.type, (instruction.name, instruction.type)
    assert found > 5


def test_no_gather_outside_the_fsdp_pattern(planned):
    """In the loop over layers one matrix at a time (several to a message), outside of it embedding and output; each
    weight once forwards and once backwards."""
    made, module = planned
    m = overrides.load("8b").model
    ends, matrix, found = 2 * m.vocab_size * m.embed_dim, 2 * m.embed_dim * m.ffn_dim, 0
    for _, instruction, times in module.walk():
        if instruction.opcode.startswith("all-gather") and not instruction.opcode.endswith("-done"):
            found += 1
            assert max(s.bytes for s in instruction.shapes) <= (matrix if times > 1 else ends), instruction.name
    assert found > 5
    gathers = [c for c in made["collectives"] if c["kind"] == "all-gather"]
    weights = 2 * 7_771_262_976
    assert all(c["axes"] == ["fsdp"] for c in gathers)
    assert 1.8 * weights < sum(c["bytes"] * c["count"] for c in gathers) < 2 * weights
    assert module.unknown_loops() == []


def test_the_8b_fits_and_kernels_are_those_for_hopper(planned):
    made = planned[0]
    m = overrides.load("8b").model
    norms = m.embed_dim * (2 * m.num_layers + 1)  # on every device
    assert made["memory"]["params"] == 4 * ((7_771_262_976 - norms) // 64 + norms)
    assert made["memory"]["optimizer"] == 2 * made["memory"]["params"] + 4  # and Adam's count
    assert made["memory"]["peak"] < made["memory"]["limit"]
    assert made["backends"]["attention"] == "mosaic_gpu"


def test_arithmetic_agrees_with_the_compiled_step(planned):
    """What `plan --search` ranks by: parts and memory of the same step without a compiler."""
    made, config = planned[0], overrides.load("8b")
    times, found = made["times"], estimate(config, made["mesh"], machines.parse("h100:64x8"))
    assert found.products + found.attention == pytest.approx(times["matmul"] + times["kernels"], rel=0.02)
    assert found.traffic == pytest.approx(times["memory"], rel=0.3)
    assert found.network == pytest.approx(times["network"], rel=0.1)
    assert found.step == pytest.approx(times["step"], rel=0.05)
    assert found.memory == pytest.approx(made["memory"]["peak"], rel=0.25)


def test_the_step_takes_its_own_result():
    """A state that came out goes in again as it is, or the second step would be compiled anew."""
    code = """
import json
from opencoder_jax import overrides, sharding
from opencoder_jax.perf.plan import topology as machines
machine = machines.parse("h100:2x8")
machines.prepare_environment(machine, "device")
import jax
from opencoder_jax.step import make_train_step
from opencoder_jax.xla_flags import compile_lowered
config = overrides.parse(["--config=8b", "--model.num_layers=2", "--mesh.data=2", "--mesh.fsdp=8", "--data.global_batch_size=16"])
mesh = sharding.make_mesh(config.mesh, machines.devices(machine, "device"))
with jax.set_mesh(mesh):
    built = make_train_step(config, mesh)
    compiled, _ = compile_lowered(built.step.lower(built.abstract_state, built.abstract_batch), "gpu")
    out = jax.eval_shape(built.step, built.abstract_state, built.abstract_batch)[0]
into, outof = jax.tree.leaves(compiled.input_shardings[0][0]), jax.tree.leaves(compiled.output_shardings[0])
shapes = jax.tree.leaves(out)
same = [a.is_equivalent_to(b, x.ndim) for a, b, x in zip(into, outof, shapes, strict=True)]
types = [(a.shape, str(a.dtype)) == (b.shape, str(b.dtype)) for a, b in zip(shapes, jax.tree.leaves(built.abstract_state), strict=True)]
print(json.dumps([len(same), all(same), all(types)]))
"""
    count, same, types = run_python(code, variables={}, timeout=500)
    assert count > 20
    assert same
    assert types


# Each machine by its name, with a configuration that fits it.
FITS = {
    "h100:1x8": ["--config=8b", "--mesh.fsdp=8", "--grad_accum=64"],
    "h800:1x8": ["--config=1p5b", "--grad_accum=8"],
    "h200:1x8": ["--config=8b", "--mesh.fsdp=8", "--grad_accum=64"],
    "b200:2x8": ["--config=8b", "--mesh.fsdp=16", "--grad_accum=32"],
    "v5e:8x8": ["--config=8b", "--mesh.fsdp=64", "--grad_accum=16", "--model.remat=full"],
    "v5p:2x2x4": ["--config=1p5b", "--mesh.fsdp=16", "--grad_accum=16"],
    "v6e:4x4": ["--config=1p5b", "--mesh.fsdp=16", "--grad_accum=32"],
    "tpu7x:2x2x4": ["--config=1p5b", "--mesh.fsdp=32", "--grad_accum=16"],
}


@pytest.mark.parametrize("name", FITS)
def test_every_machine_can_be_planned_for(tmp_path, name):
    code, printed, made = plan(tmp_path, *FITS[name], f"--topology={name}")
    assert code == 0, printed
    assert 0 < made["memory"]["peak"] < made["memory"]["limit"]
    assert not any("loops of unknown length" in note for note in made["notes"])
    # Predictions are not faster than the peak, and what is executed is at least what the model needs.
    assert 0 < made["mfu_causal"] < 0.8
    assert made["executed_flops_per_token"] > 0.99 * made["flops_per_token"]["causal"]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("h100:1x8", ["--config=8b", "--mesh.fsdp=8", "--model.num_layers=4"]),
        ("v5e:8x8", ["--config=8b", "--mesh.fsdp=64", "--grad_accum=16"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_with_a_remedy(tmp_path, name, arguments):
    code, printed, _ = plan(tmp_path, *arguments, f"--topology={name}")
    assert code == EXIT_NOTHING_FITS, printed
    said = next(line for line in printed.splitlines() if line.startswith("does not fit: "))
    assert "GiB more than the" in said
    assert "which fits by the analytical estimate" in said
    assert "Traceback" not in printed
