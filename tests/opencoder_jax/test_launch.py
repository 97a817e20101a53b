"""The launchers in scripts/launch start several processes, lose one, start again, and end with the loss of one process."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from opencoder_jax.distributed import Coordinates, coordinates
from tests.opencoder_jax.fakes import JobSet, end, kill, slurm
from tests.opencoder_jax.training import FAST_COMPILE, Trainer, free_port

STEPS = 60


@pytest.fixture(scope="module")
def trainer(tmp_path_factory) -> Trainer:
    """One process, never interrupted, is in `one`."""
    trainer = Trainer(tmp_path_factory.mktemp("launch"), {"num_steps": STEPS, "checkpoint.keep_every": 8})
    trainer.run("one")
    assert trainer.losses("one")[-1] < trainer.losses("one")[0] - 1
    return trainer


def arguments(trainer: Trainer, run: str, hosts: int) -> list[str]:
    return [
        f"--config={trainer.directory / 'micro.py'}",
        f"--run_dir={trainer.directory / run}",
        f"--mesh.data={hosts}",
        "--mesh.fsdp=1",
        *(f"--{name}={value}" for name, value in trainer.overrides.items()),
    ]


def wait_for_step(trainer: Trainer, run: str, step: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while len(trainer.rows(run)) < step and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()[0]
    assert len(trainer.rows(run)) >= step


def job_id() -> int:
    """A job whose port (distributed._port) is free here."""
    while True:
        job = random.randrange(4096)
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("localhost", 61_440 + job))
            return job


def check_slurm(trainer: Trainer, directory: Path, hosts: int, *, terminate: bool = True) -> None:
    """terminate: the job also gets SIGTERM once, and is started a third time."""
    run, job = f"slurm-{hosts}", job_id()

    def start(restart: int) -> subprocess.Popen:
        command = arguments(trainer, run, hosts)
        return slurm(directory, *command, job=job, hosts=hosts, restart=restart, XLA_FLAGS=FAST_COMPILE)

    # One task is killed: the others are ended, the job is requeued.
    batch = start(0)
    wait_for_step(trainer, run, 20, batch)
    os.kill(int((directory / "pids").read_text().split()[-1]), signal.SIGKILL)
    printed = batch.communicate(timeout=60)[0]
    assert batch.returncode == 137, printed
    assert "requeued" in printed
    killed_at = len(trainer.rows(run))
    assert 20 <= killed_at < STEPS

    if terminate:  # the batch shell gets SIGTERM: the tasks save and leave with 3
        batch = start(1)
        wait_for_step(trainer, run, killed_at + 2, batch)
        batch.send_signal(signal.SIGTERM)
        printed = batch.communicate(timeout=60)[0]
        assert batch.returncode == 3, printed
        assert "saved after SIGTERM" in printed

    batch = start(2)
    printed = batch.communicate(timeout=120)[0]
    assert batch.returncode == 0, printed
    assert (directory / "scontrol").read_text() == f"requeue {job}\n" * (1 + terminate)
    logs = sorted((directory / "logs").glob("host-*.log"))
    assert len(logs) == hosts
    first = logs[0].read_text()
    assert f"{hosts} process(es)" in first
    assert first.count("resumed") == 1 + terminate
    np.testing.assert_allclose(trainer.losses(run), trainer.losses("one"), rtol=1e-5)


def check_jobset(trainer: Trainer, directory: Path, hosts: int) -> None:
    run = f"jobset-{hosts}"
    command = arguments(trainer, run, hosts)
    pods = JobSet(directory, command, hosts=hosts, port=free_port(), variables={"XLA_FLAGS": FAST_COMPILE})
    running = pods.start()
    wait_for_step(trainer, run, 20, running[1])
    kill(running[0])
    assert not pods.fails_for_good(running[0].returncode)
    end(running)
    assert len(trainer.rows(run)) < STEPS

    running = pods.start()
    try:
        assert [p.wait(timeout=120) for p in running] == [0] * hosts
    finally:
        end(running)
    logs = sorted((directory / "logs" / "opencoder").glob("host-*.log"))
    assert len(logs) == hosts
    assert "resumed" in logs[0].read_text()
    np.testing.assert_allclose(trainer.losses(run), trainer.losses("one"), rtol=1e-5)


def test_slurm_two_hosts(trainer, tmp_path):
    check_slurm(trainer, tmp_path, 2, terminate=False)


def test_jobset_two_hosts(trainer, tmp_path):
    check_jobset(trainer, tmp_path, 2)


@pytest.mark.slow
@pytest.mark.parametrize("check", [check_slurm, check_jobset])
def test_four_hosts(trainer, tmp_path, check):
    check(trainer, tmp_path, 4)


def exit_with(directory: Path, code: int, before: str = "") -> str:
    """A PYTHON whose training leaves with a code at once, or after what `before` does."""
    path = directory / "python"
    path.write_text(f"#!/bin/bash\n{before}\nexit {code}\n")
    path.chmod(0o755)
    return str(path)


def batch(directory: Path, **settings: str) -> tuple[int, str, bool]:
    """Exit code and output of the batch script, and whether it requeued the job."""
    (directory / "scontrol").unlink(missing_ok=True)
    process = slurm(directory, "--config=tiny", job=7, hosts=2, **settings)
    printed = process.communicate(timeout=30)[0]
    return process.returncode, printed, (directory / "scontrol").exists()


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (2, False), (3, True), (4, False), (1, True)])
def test_slurm_exit_codes(tmp_path, code, requeued):
    assert batch(tmp_path, PYTHON=exit_with(tmp_path, code))[::2] == (code, requeued)


def test_slurm_hands_sigterm_to_every_task(tmp_path):
    wait_for_it = "trap 'echo told; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    process = slurm(tmp_path, "--config=tiny", job=7, hosts=3, PYTHON=exit_with(tmp_path, 1, wait_for_it))
    logs = [tmp_path / "logs" / f"host-{i}.log" for i in range(3)]
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not all(log.exists() and "ready" in log.read_text() for log in logs):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    printed = process.communicate(timeout=30)[0]
    assert (process.returncode, (tmp_path / "scontrol").exists()) == (3, True), printed
    assert all("told" in log.read_text() for log in logs)


def test_slurm_job_that_fails_at_once_is_not_started_for_ever(tmp_path):
    python = exit_with(tmp_path, 1)
    assert [batch(tmp_path, PYTHON=python)[2] for _ in range(3)] == [True, True, False]


def test_cancelled_slurm_job_stays_cancelled(tmp_path):
    (tmp_path / "state").write_text("COMPLETING\n")
    assert batch(tmp_path, PYTHON=exit_with(tmp_path, 3))[::2] == (3, False)


def test_pod_hands_sigterm_on_and_keeps_the_last_lines(tmp_path):
    """However slowly its log is written."""
    shims = tmp_path / "bin"
    shims.mkdir()
    training = "trap 'echo told; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    for name, lines in {
        "python": training,
        "tee": 'while read -r line; do sleep 0.3; echo "$line" >>"$2"; done',
    }.items():
        (shims / name).write_text(f"#!/bin/bash\n{lines}\n")
        (shims / name).chmod(0o755)
    pods = JobSet(tmp_path, [], hosts=1, port=1, variables={"PATH": f"{shims}:{os.environ['PATH']}"})
    (pod,), log = pods.start(), tmp_path / "logs" / "opencoder" / "host-0.log"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (log.exists() and "ready" in log.read_text()):
        time.sleep(0.02)
    pod.send_signal(signal.SIGTERM)
    assert pod.wait(timeout=30) == 3
    assert log.read_text() == "ready\ntold\n"


def test_jobset_gives_up_only_where_a_restart_is_no_help(tmp_path):
    pods = JobSet(tmp_path, [], hosts=1, port=1, variables={})
    assert [code for code in range(256) if pods.fails_for_good(code)] == [2, 4]
    assert pods.manifest["spec"]["coordinator"]["replicatedJob"] == pods.manifest["spec"]["replicatedJobs"][0]["name"]


STEP = {"SLURM_JOB_ID": "8193", "SLURM_PROCID": "9", "SLURM_LOCALID": "1"}


def step(nodes: str, tasks: int, num_nodes: int, **more: str) -> dict[str, str]:
    counts = {"SLURM_STEP_NUM_TASKS": str(tasks), "SLURM_STEP_NUM_NODES": str(num_nodes)}
    return STEP | {"SLURM_STEP_NODELIST": nodes} | counts | more


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        (STEP | {"SLURM_NTASKS": "64"}, None),  # the batch shell itself, not a task
        (step("node7", 1, 1), None),
        (step("node[001-064]", 64, 64), Coordinates("node001:61441", 64, 9)),
        (step("gpu-[07,09-12]-ib,x1", 16, 16), Coordinates("gpu-07-ib:61441", 16, 9)),
        (step("a1,b[2-9]", 64, 8, CUDA_VISIBLE_DEVICES="0,1,2,3"), Coordinates("a1:61441", 64, 9, (1,))),
        (step("a1", 64, 8, CUDA_VISIBLE_DEVICES="3"), Coordinates("a1:61441", 64, 9)),
        (step("a1", 64, 64, JAX_COORDINATOR_ADDRESS="h:1"), Coordinates("h:1", 64, 9)),
        (
            {"JAX_COORDINATOR_ADDRESS": "h.set:8476", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "0"},
            Coordinates("h.set:8476", 4, 0),
        ),
    ],
)
def test_coordinates(environ, expected):
    assert coordinates(environ) == expected


@pytest.mark.parametrize(
    ("address", "count", "index", "said"),
    [
        ("h:1", "2", "", "the number of processes and this one's"),
        ("h", "2", "0", "set host:port"),
        ("h:1", "2", "2", "count from 0 to 1"),
        ("", "2", "0", "set JAX_COORDINATOR_ADDRESS=host:port too"),
    ],
)
def test_wrong_coordinates(address, count, index, said):
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    with pytest.raises(ValueError, match=said):
        coordinates(dict(zip(names, (address, count, index), strict=True)))
