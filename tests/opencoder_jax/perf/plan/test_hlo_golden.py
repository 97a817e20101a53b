"""The reader of HLO text, held by what each version of JAX wrote for one small step; and what it does not know is an error."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from opencoder_jax.config import ModelConfig
from opencoder_jax.perf.plan import collectives, hlo, topology
from opencoder_jax.perf.plan.kernels import KernelCosts
from opencoder_jax.perf.plan.roofline import Simulator
from scripts.tools.golden_hlo import LAYERS, ROWS, WIDTH

ROOT = Path(__file__).parents[4]
GOLDEN = ROOT / "tests" / "opencoder_jax" / "golden" / "hlo"
FILES = sorted(GOLDEN.glob("*.hlo"))
MESH = {"data": 2, "fsdp": 2, "tensor": 1, "context": 1}
MACHINE = topology.parse("h100:1x4")
# The layer: forward, forward again for the gradient, the gradients of h and w. XLA leaves out what nobody needs: the
# gradient of the first layer's input is computed all the same, since the scan's body is one program.
MATMULS = 4


def read(text: str) -> dict[str, object]:
    """What the plan takes from a program."""
    module = hlo.parse(text)
    found = collectives.find(module, MESH, MACHINE)
    model = ModelConfig(1, WIDTH, 1, 1, WIDTH, WIDTH)
    times = Simulator(module, MESH, MACHINE, KernelCosts(model)).run()
    weight = WIDTH * WIDTH
    return {
        "scheduled": module.is_scheduled,
        "trips": sorted(i.trips or 0 for _, i, _ in module.walk() if i.opcode == "while"),
        "flops": times.flops,
        # Of weights and their gradients alone: whole weights gathered, gradients summed.
        "moved": {(c.kind, c.axes, c.count) for c in found if c.bytes >= weight},
    }


def dots(devices: int) -> float:
    return MATMULS * LAYERS * 2.0 * ROWS * WIDTH * WIDTH / devices


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_golden_program_reads_as_what_was_compiled(path):
    found = read(path.read_text())
    assert found["scheduled"]
    assert found["trips"] == [LAYERS, LAYERS]
    assert found["flops"] == dots(4), found["flops"] / dots(4)
    kinds = {(kind, axes) for kind, axes, count in found["moved"] if count == LAYERS}
    assert ("all-gather", ("fsdp",)) in kinds
    assert ("all-reduce", ("data",)) in kinds


def test_there_are_golden_programs_of_the_lowest_and_of_this_version():
    names = {path.stem for path in FILES}
    assert {"jax-0.11.2-cpu", "jax-0.11.2-gpu"} <= names
    assert f"jax-{version('jax')}-cpu" in names, "run scripts/tools/golden_hlo.py and read what changed"


def test_this_version_still_writes_what_its_golden_program_holds(tmp_path):
    command = [sys.executable, "scripts/tools/golden_hlo.py", "--machines", "cpu", "--out", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (path,) = tmp_path.iterdir()
    assert read(path.read_text()) == read((GOLDEN / path.name).read_text())


TEXT = next(path for path in FILES if path.stem == "jax-0.12.0.1-gpu").read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.replace(" dynamic-slice(", " dynamic-cut(", 1), r"line \d+: unknown operation 'dynamic-cut'"),
        (lambda t: t.replace(" all-gather(", " gather-all(", 1), r"unknown operation 'gather-all'"),
        (lambda t: t.replace("\nENTRY", "\nNewSection\nENTRY", 1), r"unknown form in 'NewSection'"),
        (lambda t: re.sub(r"\n  %(\w+)[^\n]* = ", r"\n  let %\1 be ", t, count=1), r"unknown form in 'let %"),
        (lambda t: re.sub(r"(= \S+ tanh\(%[\w.]+)\)", r"\1", t, count=1), r"line \d+: unknown form"),
        (
            lambda t: re.sub(r"calls=%[\w.\-]+", "calls=%nowhere", t, count=1),
            r"calls nowhere, which is not in the module",
        ),
        (lambda t: t.replace("\nENTRY ", "\n", 1), "no ENTRY computation"),
        (lambda t: t.replace("bf16[", "bf17[", 1).replace("bf16[", "bf17["), "unknown element type 'bf17'"),
        (lambda t: re.sub(r"replica_groups=\S+", "replica_groups=everybody,", t), "device groups of .* not understood"),
    ],
)
def test_a_form_that_is_not_known_is_an_error_and_not_a_figure(change, said):
    changed = change(TEXT)
    assert changed != TEXT
    with pytest.raises(ValueError, match=said):
        read(changed)


def test_no_module_of_the_plan_imports_jax_before_it_is_used():
    code = """
import importlib, pkgutil, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"jax", "jaxlib", "flax", "optax"}:
            raise ImportError(name + " is not to be imported")
sys.meta_path.insert(0, Absent())
import opencoder_jax.perf.plan as plan
names = [m.name for m in pkgutil.iter_modules(plan.__path__)]
for name in names:
    importlib.import_module(f"opencoder_jax.perf.plan.{name}")
print(len(names))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    assert int(done.stdout) >= 11
