"""What the launchers talk to, on this machine: `srun`, `scancel`, `scontrol`, `squeue` of Slurm, the pods of a JobSet.

Every host is a process of its own with the variables that it would have there.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from tests.opencoder_jax.training import ROOT, environment

LAUNCH = ROOT / "scripts" / "launch"
GRACE = 2.0  # seconds between SIGTERM and SIGKILL for the peers of a process that failed


def end(processes: list[subprocess.Popen], grace: float = GRACE) -> None:
    for p in processes:
        p.terminate()
    deadline = time.monotonic() + grace
    while any(p.poll() is None for p in processes) and time.monotonic() < deadline:
        time.sleep(0.02)
    for p in processes:
        kill(p)


def kill(process: subprocess.Popen) -> None:
    """SIGKILL; what leads a group of processes, a pod, goes with all of it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL) if os.getpgid(process.pid) == process.pid else process.kill()
    process.wait()


def srun(arguments: list[str]) -> int:
    """srun [--kill-on-bad-exit=1] [--output=...%n...] COMMAND: SLURM_NTASKS tasks, one per node, all here.

    SIGTERM kills the tasks, as the real one does ("forcing job termination"); when a task fails the others are ended; the
    exit code is the highest of all. The tasks' ids go to $FAKES_DIR/pids.
    """
    options = list(itertools.takewhile(lambda a: a.startswith("--"), arguments))
    command = arguments[len(options) :]
    output = next(o.partition("=")[2] for o in options if o.startswith("--output="))
    assert "--open-mode=append" in options
    tasks: list[subprocess.Popen] = []

    def force_termination(*_):
        for task in tasks:
            task.kill()

    signal.signal(signal.SIGTERM, force_termination)
    for i in range(int(os.environ["SLURM_NTASKS"])):
        own = {
            "SLURM_PROCID": str(i),
            "SLURM_LOCALID": "0",
            "SLURM_NODEID": str(i),
            "SLURM_STEP_NODELIST": "localhost,other[002-064]",
            "SLURM_STEP_NUM_TASKS": os.environ["SLURM_NTASKS"],
            "SLURM_STEP_NUM_NODES": os.environ["SLURM_NTASKS"],
        }
        with Path(output.replace("%n", str(i))).open("a") as log:
            tasks.append(subprocess.Popen(command, env=os.environ | own, stdout=log, stderr=subprocess.STDOUT))
        # At once: a task may ask for a signal, by its log, before the next has started.
        (Path(os.environ["FAKES_DIR"]) / "pids").write_text(" ".join(str(t.pid) for t in tasks))
    while any(t.poll() is None for t in tasks):
        if any(t.poll() for t in tasks) and "--kill-on-bad-exit=1" in options:
            time.sleep(0.5)  # those that leave together may
            end(tasks)
        time.sleep(0.02)
    return max(t.returncode if t.returncode >= 0 else 128 - t.returncode for t in tasks)


def slurm(
    directory: Path, *arguments: str, job: int, hosts: int, restart: int = 0, **variables: str
) -> subprocess.Popen:
    """The batch script as slurmd starts it: `python` for PYTHON, fakes before anything else on PATH."""
    bin_directory = directory / "bin"
    if not bin_directory.exists():
        bin_directory.mkdir()
        shims = {
            "srun": f'exec {sys.executable} -m tests.opencoder_jax.fakes "$@"',
            "scancel": f'[ "$1 $2" = "--signal=TERM {job}" ] && kill -TERM $(cat {directory}/pids)',
            "squeue": f"cat {directory}/state",
            "scontrol": f'echo "$@" >> {directory}/scontrol',
        }
        for name, line in shims.items():
            (bin_directory / name).write_text(f"#!/bin/sh\n{line}\n")
            (bin_directory / name).chmod(0o755)
    if not (directory / "state").exists():
        (directory / "state").write_text("RUNNING\n")
    own = {
        "PATH": f"{bin_directory}:{os.environ['PATH']}",
        "FAKES_DIR": str(directory),
        "PYTHON": sys.executable,
        "LOGS": str(directory / "logs"),
        "SLURM_JOB_ID": str(job),
        "SLURM_NTASKS": str(hosts),
        "SLURM_NNODES": str(hosts),
        "SLURM_PROCID": "0",  # the batch shell has one too
        "SLURM_RESTART_COUNT": str(restart),
    }
    return subprocess.Popen(
        ["bash", str(LAUNCH / "slurm.sbatch"), *arguments],
        env=environment(own | variables),
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


class JobSet:
    """The shipped manifest with another number of pods and other arguments; /shared is `directory`, pods are processes."""

    def __init__(self, directory: Path, arguments: list[str], *, hosts: int, port: int, variables: dict[str, str]):
        self.manifest: dict[str, Any] = yaml.safe_load((LAUNCH / "jobset.yaml").read_text())
        spec = self.manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
        self.job, self.pod = spec, spec["template"]["spec"]
        (self.container,) = self.pod["containers"]
        assert spec["parallelism"] == spec["completions"] == int(self._env("JAX_NUM_PROCESSES")["value"])
        spec["parallelism"] = spec["completions"] = hosts
        self._env("JAX_NUM_PROCESSES")["value"] = str(hosts)
        self._env("JAX_COORDINATOR_ADDRESS")["value"] = f"$(COORDINATOR):{port}"
        self.directory, self.arguments, self.variables = directory, arguments, variables

    def _env(self, name: str) -> dict[str, Any]:
        return next(item for item in self.container["env"] if item["name"] == name)

    def start(self) -> list[subprocess.Popen]:
        return [self._start(i) for i in range(self.job["parallelism"])]

    def _start(self, index: int) -> subprocess.Popen:
        annotations = {
            "jobset.sigs.k8s.io/coordinator": "localhost",  # there: opencoder-host-0-0.opencoder
            "batch.kubernetes.io/job-completion-index": str(index),
        }
        env: dict[str, str] = {}
        for item in self.container["env"]:
            if "valueFrom" in item:
                path = item["valueFrom"]["fieldRef"]["fieldPath"]
                env[item["name"]] = annotations[re.fullmatch(r"metadata\.annotations\['(.*)'\]", path).group(1)]  # type: ignore[union-attr]
            else:
                env[item["name"]] = re.sub(r"\$\((\w+)\)", lambda m: env[m.group(1)], self._here(item["value"]))
        env["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return subprocess.Popen(
            [self._here(c) for c in self.container["command"]] + self.arguments,
            env=environment(env | self.variables),
            cwd=self._here(self.container["workingDir"]),
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _here(self, text: str) -> str:
        return text.replace("/shared", str(self.directory))

    def fails_for_good(self, code: int) -> bool:
        """Whether the set ends when a pod leaves with this code; else its controller makes all pods anew."""
        (rule,) = self.job["podFailurePolicy"]["rules"]
        (reaction,) = self.manifest["spec"]["failurePolicy"]["rules"]
        assert (rule["action"], reaction["action"]) == ("FailJob", "FailJobSet")
        assert rule["onExitCodes"]["containerName"] == self.container["name"]
        return code in rule["onExitCodes"]["values"]


if __name__ == "__main__":
    sys.exit(srun(sys.argv[1:]))
