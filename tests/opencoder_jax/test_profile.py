"""A profile of a few steps on the CPU: tables from the trace, HLO before and after, buffer assignment; and the sums."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from opencoder_jax.perf.plan import hlo
from opencoder_jax.perf.profile import __main__ as profile
from opencoder_jax.perf.profile import table
from opencoder_jax.perf.profile.trace import Event, Trace
from tests.opencoder_jax.training import ROOT, environment

HLO = """HloModule step, is_scheduled=true

%fused (p0: f32[4,4], p1: f32[4,4]) -> f32[4,4] {
  %p0 = f32[4,4]{1,0} parameter(0)
  %p1 = f32[4,4]{1,0} parameter(1)
  ROOT %d = f32[4,4]{1,0} dot(%p0, %p1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

ENTRY %main (a: f32[4,4]) -> f32[4,4] {
  %a = f32[4,4]{1,0} parameter(0)
  %product = f32[4,4]{1,0} fusion(%a, %a), kind=kOutput, calls=%fused
  %scores = f32[4,4]{1,0} add(%a, %a), metadata={op_name="jit(step)/attention/add"}
  %sum = f32[4,4]{1,0} all-reduce(%scores), replica_groups={{0,1}}, to_apply=%fused
  ROOT %out = f32[4,4]{1,0} multiply(%sum, %product)
}
"""


@pytest.fixture(scope="module")
def profiled(tmp_path_factory):
    directory = tmp_path_factory.mktemp("profile")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "opencoder_jax.perf.profile",
            "--config=tiny",
            "--profile.steps=2:4",
            "--buffers",
            "--model.num_layers=1",
            "--model.scan_unroll=1",
            f"--out={directory}",
        ],
        env=environment({}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return directory, done.stdout


def rows(text: str, title: str) -> list[list[str]]:
    part = text.split(title)[1].split("\n## ")[0]
    return [[c.strip() for c in line.strip("| ").split("|")] for line in part.splitlines() if line.startswith("|")][2:]


def test_table_by_kind_adds_up(profiled):
    """Kinds and gap make the step; the CPU may run two small operations at once, which counts twice."""
    _, printed = profiled
    found = {row[0]: float(row[1].replace(",", "")) for row in rows(printed, "## One step")}
    kinds = [found[k] for k in ("matmul", "attention", "collective", "memory-bound")]
    assert found["matmul"] > 0
    assert found["attention"] > 0
    assert found["memory-bound"] > 0
    assert found["collective"] == found["of the collectives exposed"] == 0
    assert 0.98 <= (sum(kinds) + found["nothing running (host gap)"]) / found["step"] <= 1.2


def test_top_operations_are_ranked_and_name_their_place(profiled):
    _, printed = profiled
    top = rows(printed, "## Operations that take longest")
    assert 10 <= len(top) <= 20
    times = [float(row[2].replace(",", "")) for row in top]
    assert times == sorted(times, reverse=True)
    assert {"matmul", "memory-bound"} <= {row[1] for row in top}
    assert all("attention" in row[5] for row in top if row[1] == "attention")  # on a busy machine there may be none


def test_files(profiled):
    """HLO before and after, XLA's buffer assignment, and a trace that this program reads again by itself."""
    directory, printed = profiled
    before = (directory / "hlo" / "train_step.stablehlo.mlir").read_text()
    after = directory / "hlo" / "train_step.optimized.hlo"
    assert "stablehlo.dot_general" in before
    assert hlo.parse(after.read_text()).is_scheduled
    (buffers,) = (directory / "hlo" / "xla").glob("*train_step*buffer-assignment.txt")
    assert re.search(r"allocation 0: size \d+", buffers.read_text())
    assert list(directory.glob("plugins/profile/*/*.xplane.pb"))
    assert profile.tables(directory, after) in printed
    assert (directory / "profile.md").read_text() in printed


def test_exposed_communication_and_gaps_are_measured_exactly():
    """Two devices, one step of 10 s: a collective half hidden behind a product on the one, wholly alone on the other."""
    events = [
        Event("product", "a", 0, 4), Event("sum", "a", 2, 6), Event("out", "a", 6, 9),
        Event("scores", "b", 0, 1), Event("sum", "b", 1, 3), Event("product", "b", 3, 10), Event("other", "b", 3, 4),
    ]  # fmt: skip
    found = table.summarise(Trace(events, [(5, 0, 10)]), hlo.parse(HLO))
    assert found.step_seconds == 10
    assert found.by_kind == {"matmul": 5.5, "attention": 0.5, "collective": 3, "memory-bound": 1.5}
    assert found.exposed_collective == (2 + 2) / 2
    assert found.host_gap == 0.5
    assert found.unknown == 1
    assert [(s.name, s.kind, s.seconds, s.runs) for s in found.top][:2] == [
        ("product", "matmul", 5.5, 1),
        ("sum", "collective", 3, 1),
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config=tiny", "--profile.steps=0:2"], "begin at 2 or later"),
        (["--config=tiny", "--profile.steps=4:4"], "write start:stop, for example 10:15"),
        (["--trace=DIR"], "--trace=DIR needs --hlo=FILE"),
        (["--trace=DIR", "--hlo=nowhere.hlo"], "nowhere.hlo: no such file"),
        (["--trace=DIR", "--hlo=x", "--config=tiny"], "--config=tiny has no effect with --trace"),
        (["--config=tiny", "--mesh.fsdp=3"], "does not make 1 devices"),
    ],
)
def test_bad_input(arguments, said):
    with pytest.raises(ValueError, match=said):
        profile.run(arguments)


def test_a_trace_of_another_program_is_rejected():
    module = hlo.parse(HLO)
    with pytest.raises(ValueError, match="no operation in common"):
        table.summarise(Trace([Event("foreign", "a", 0, 1)], [(0, 0, 1)]), module)
    with pytest.raises(ValueError, match="no step marker"):
        table.summarise(Trace([Event("sum", "a", 0, 1)], []), module)
