"""A sweep, and a profile, over two processes on localhost with two fake devices each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from opencoder_jax.distributed import Coordinates, coordinates
from opencoder_jax.perf.sweep import hosts as sweep_hosts
from opencoder_jax.perf.sweep import report as sweep_report
from tests.opencoder_jax.training import FAST_COMPILE, ROOT, environment, free_port


def two(directory: Path, *command: str) -> list[str]:
    """What each of two processes printed."""
    (directory / "micro.py").write_text(
        "from tests.opencoder_jax.training import micro_config\ndef config():\n    return micro_config()\n"
    )
    shared = {
        "JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}", "JAX_NUM_PROCESSES": "2", "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{FAST_COMPILE} --xla_force_host_platform_device_count=2",
    }  # fmt: skip
    line = [sys.executable, "-m", *command, f"--config={directory / 'micro.py'}", f"--out={directory / 'out'}"]
    processes = [
        subprocess.Popen(
            line, env=environment(shared | {"JAX_PROCESS_ID": str(i)}), cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for i in (0, 1)
    ]  # fmt: skip
    try:
        printed = [p.communicate(timeout=240)[0] for p in processes]
    finally:
        for p in processes:
            p.kill()
    assert [p.returncode for p in processes] == [1, 0] if "sweep" in command[0] else [0, 0], "\n".join(printed)
    return printed


def test_a_sweep_goes_from_one_host_to_two(tmp_path):
    """fsdp=2 is the first host's alone, fsdp=4 takes both, three devices are not whole hosts: that one fails alone."""
    printed = two(
        tmp_path, "opencoder_jax.perf.sweep.sweep", "--meshes=fsdp=2;data=3;fsdp=4", "--fake", "--steps=2", "--warmup=1"
    )
    assert printed[1] == "", "only the first process speaks"
    one, three, both = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert (one["num_devices"], both["num_devices"]) == (2, 4)
    assert "3 devices of 2 processes with 2 each; sizes that fit: up to 2, or one of [2, 4]" in three["error"]
    assert sweep_report.loss_difference(both, one) < 1e-5
    assert both["split"]["collective"] > 0
    assert (tmp_path / "out" / "fsdp-4.1.log").is_file()
    assert not (tmp_path / "out" / "fsdp-2.1.log").exists()
    assert sweep_report.FAKE in printed[0]


@pytest.mark.slow
def test_a_profile_of_two_processes_is_reported_by_the_first(tmp_path):
    printed = two(tmp_path, "opencoder_jax.perf.profile", "--mesh.fsdp=4", "--profile.steps=2:4")
    assert "micro" not in printed[1]
    assert "# micro on 4 x cpu" in printed[0]
    assert (tmp_path / "out" / "profile.md").read_text() in printed[0]


HOSTS = sweep_hosts.Hosts(Coordinates("node1:61440", 4, 3, (0, 1)), 8)


@pytest.mark.parametrize(("devices", "hosts"), [(1, 1), (3, 1), (8, 1), (16, 2), (32, 4)])
def test_a_mesh_takes_the_first_hosts(devices, hosts):
    assert HOSTS.taken(devices) == hosts
    variables = HOSTS.variables(devices, 0)
    assert (variables is None) == (hosts < 4)
    if variables is not None:
        assert coordinates(variables) == Coordinates("node1:61441", 4, 3)


@pytest.mark.parametrize("devices", [12, 40])
def test_a_mesh_that_is_not_whole_hosts_is_rejected(devices):
    with pytest.raises(ValueError, match=rf"asks for {devices} devices of 4 .* or one of \[8, 16, 24, 32\]"):
        HOSTS.taken(devices)


def test_each_mesh_meets_on_a_port_of_its_own():
    last = sweep_hosts.Hosts(Coordinates("node1:65535", 2, 0), 8)
    ports = [(last.variables(16, i) or {})["JAX_COORDINATOR_ADDRESS"] for i in range(3)]
    assert ports == ["node1:1024", "node1:1025", "node1:1026"]


def test_alone_and_where_only_jax_finds_the_others():
    assert sweep_hosts.join({}, fake=True) == sweep_hosts.Hosts()
    with pytest.raises(ValueError, match="needs JAX_COORDINATOR_ADDRESS=host:port"):
        sweep_hosts.join({"OMPI_COMM_WORLD_SIZE": "4"}, fake=False)
