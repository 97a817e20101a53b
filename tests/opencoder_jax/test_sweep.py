"""A sweep on fake devices: each mesh in a process of its own, one that fails, one that was done before; and the report."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest

from opencoder_jax.config import MeshConfig
from opencoder_jax.perf.sweep import report as sweep_report
from opencoder_jax.perf.sweep import sweep
from tests.opencoder_jax.training import FAST_COMPILE, ROOT, environment, micro_config

MESHES = "fsdp=1;tensor=3;fsdp=2,tensor=2"  # 8 heads are not divisible by 3


def run(directory, *arguments: str, meshes: str = MESHES, code: int) -> str:
    config = directory / "micro.py"
    config.write_text(
        "from tests.opencoder_jax.training import micro_config\ndef config():\n    return micro_config()\n"
    )
    command = [
        sys.executable,
        "-m",
        "opencoder_jax.perf.sweep.sweep",
        f"--config={config}",
        f"--meshes={meshes}",
        "--fake",
    ]
    done = subprocess.run(
        [*command, "--steps=3", "--warmup=1", f"--out={directory / 'out'}", *arguments],
        env=environment({"XLA_FLAGS": FAST_COMPILE}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """(directory, what it printed, what it printed when started again with one more step for nobody)."""
    directory = tmp_path_factory.mktemp("sweep")
    first = run(directory, code=1)
    return directory, first, run(directory, code=1)


def test_a_failing_mesh_does_not_end_the_sweep(swept):
    directory, printed, _ = swept
    rows = [json.loads(line) for line in (directory / "out" / "results.jsonl").read_text().splitlines()][:3]
    assert ["error" in row for row in rows] == [False, True, False]
    assert "model.num_query_heads=8 is not divisible by mesh tensor=3; sizes that fit: [1]" in rows[1]["error"]
    assert "tensor=3: model.num_query_heads=8" in printed
    assert (directory / "out" / "tensor-3.log").is_file()


def test_what_is_done_is_not_run_again(swept):
    directory, _, again = swept
    assert [line for line in again.splitlines() if line.endswith(": running")] == ["tensor=3: running"]
    rows = [json.loads(line) for line in (directory / "out" / "results.jsonl").read_text().splitlines()]
    assert len(rows) == 4


def test_losses_agree_and_the_figures_belong_together(swept):
    directory, _, _ = swept
    one, _, four, _ = [json.loads(line) for line in (directory / "out" / "results.jsonl").read_text().splitlines()]
    assert (one["num_devices"], four["num_devices"]) == (1, 4)
    assert len(one["losses"]) == 1 + 3 + 2
    assert sweep_report.loss_difference(four, one) < 1e-5
    assert len(set(one["losses"])) == 6, "every step sees another batch"
    for row in (one, four):
        assert row["tokens_per_second"] == pytest.approx(8 * 32 / row["median_seconds"])
        parts = row["split"]
        # Each kind's share of the step is a part of it; on one device nothing communicates.
        assert all(0 <= seconds <= row["traced_seconds"] * 1.001 for seconds in parts.values())
    assert one["split"]["collective"] == 0
    assert four["split"]["collective"] > 0


def test_report_says_that_devices_are_fake_and_draws(swept):
    directory, printed, _ = swept
    report = (directory / "out" / "report.md").read_text()
    assert sweep_report.FAKE in report
    assert report in printed
    assert "fsdp=2 tensor=2" in report
    assert "tensor=3 failed: " in report
    assert (directory / "out" / "report.png").read_bytes().startswith(b"\x89PNG")


def test_a_child_that_was_killed_is_named_as_such(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep.sys, "executable", tmp_path / "killed")
    (tmp_path / "killed").write_text("#!/bin/sh\nkill -9 $$\n")
    (tmp_path / "killed").chmod(0o755)
    files = {name: tmp_path / name for name in ("config.json", "result.json", "log")}
    own = {"steps": "1", "warmup": "0", "fake": "", "timeout": "60"}
    assert sweep.run_child(files, own, 1, {})["error"].startswith("ended by signal 9; see ")


def lives(pid: str) -> bool:
    """One that has ended may still be listed, as a zombie, where nothing takes in orphans."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_no_child_outlives_a_sweep_that_is_killed(tmp_path):
    """It would keep the devices that the next sweep wants."""
    config = tmp_path / "micro.py"
    config.write_text(
        "from tests.opencoder_jax.training import micro_config\ndef config():\n    return micro_config()\n"
    )
    command = [
        sys.executable,
        "-m",
        "opencoder_jax.perf.sweep.sweep",
        f"--config={config}",
        "--meshes=fsdp=1",
        "--fake",
    ]
    parent = subprocess.Popen(
        [*command, "--steps=1000000", f"--out={tmp_path / 'out'}"],
        env=environment({}),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    children, deadline = "", time.monotonic() + 30
    while not children and time.monotonic() < deadline:
        time.sleep(0.05)
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text()
    time.sleep(1)
    parent.kill()
    parent.wait()
    (child,) = children.split()
    while lives(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not lives(child)


def test_a_loss_that_differs_shows():
    rows = [{"losses": [2.0, 1.0]}, {"losses": [2.0, 1.01]}, {"losses": [2.0, math.nan]}]
    assert sweep_report.loss_difference(rows[1], rows[0]) == pytest.approx(0.01)
    assert sweep_report.loss_difference(rows[2], rows[0]) == math.inf


def test_weak_scaling_keeps_the_batch_of_a_device():
    one, four = {"data": 1, "fsdp": 1, "tensor": 1, "context": 1}, {"data": 2, "fsdp": 2, "tensor": 1, "context": 1}
    weak = sweep.config_for(micro_config(), four, one, "weak")
    assert (weak.data.global_batch_size, weak.mesh) == (32, MeshConfig(2, 2, 1, 1))
    assert sweep.config_for(micro_config(), four, one, "strong").data.global_batch_size == 8
    with pytest.raises(ValueError, match=r"needs a batch of 2\.666"):
        sweep.config_for(micro_config(), one, {**one, "data": 3}, "weak")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config=tiny"], "no --meshes given, for example"),
        (["--config=tiny", "--meshes=fdsp=2"], "write AXIS=SIZE with an axis of data, fsdp, tensor, context"),
        (["--config=tiny", "--meshes=fsdp=0"], "'fsdp=0': write AXIS=SIZE"),
        (["--config=tiny", "--meshes=fsdp=2,fsdp=4"], "'fsdp=2,fsdp=4' names fsdp twice; write ; between meshes"),
        (["--config=tiny", "--meshs=fsdp=2"], "did you mean --meshes?"),
        (["--config=tiny", "--meshes=fsdp=1", "--grad_accum=0"], "grad_accum=0 must be at least 1"),
        (["--config=tiny", "--meshes=fsdp=1", "--scaling=big"], "choose strong or weak"),
        (["--config=tiny", "--meshes=fsdp=1", "--steps=0"], "--steps=0: write a number of at least 1"),
        (["--config=tiny", "--meshes=fsdp=1", "--mesh.fsdp=2"], "--meshes sets the mesh"),
    ],
)
def test_bad_input(arguments, said):
    with pytest.raises(ValueError, match=said):
        sweep.run(arguments)
