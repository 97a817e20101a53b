"""The driver killed outright (SIGKILL) at random moments of every stage: a rerun finishes with the same bytes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from opencoder_data.refinecode.config import STAGES

OPTIONS = (
    "--engine.workers=2",
    "--engine.progress=false",
    "--layout.partition_mb=0.06",
    "--layout.shuffle_rows=300",
    "--sample.ratios=java=0.5",
    "--filter.time_limit_s=0",
)
SECONDS = 60


def start(corpus, output):
    command = [sys.executable, "-m", "opencoder_data.refinecode", f"--input={corpus}", f"--output={output}", *OPTIONS]
    return subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def finish(process):
    _, errors = process.communicate(timeout=SECONDS * 5)
    assert process.returncode == 0, errors


def digest(output):
    files = {p.relative_to(output): p.read_bytes() for p in Path(output).rglob("*") if p.is_file()}
    # run.json names the number of workers, timings.json the times.
    return {name: data for name, data in files.items() if name.name not in ("timings.json", "run.json")}


def marks(directory):
    """Finished partitions of all steps of a stage, and files in writing."""
    found = 0
    for where, _, names in os.walk(directory):
        found += len(names) if f"{os.sep}done" in where else sum(name.startswith(".tmp-") for name in names)
    return found


def session_members(session):
    """Living processes of a session (its leader has been killed)."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(name))
    return found


def kill_when(process, reached, delay):
    """SIGKILL to the driver alone, `delay` seconds after `reached()`; False when it was done before."""
    end = time.monotonic() + SECONDS
    while not reached():
        if process.poll() is not None:
            return False
        assert time.monotonic() < end
        time.sleep(0.001)
    time.sleep(delay)
    if process.poll() is not None:
        return False
    process.send_signal(signal.SIGKILL)
    process.communicate()
    end = time.monotonic() + 20
    while left := session_members(process.pid):
        assert time.monotonic() < end, f"{len(left)} workers outlive the driver"
        time.sleep(0.02)
    return True


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    from opencoder_data.refinecode import pipeline
    from opencoder_data.refinecode.config import load

    from .conftest import write_corpus

    root = tmp_path_factory.mktemp("kill")
    write_corpus(root / "in", families=16)
    config = load(None, [o.removeprefix("--") for o in OPTIONS] + ["engine.workers=1"])
    pipeline.run_pipeline(config, [str(root / "in")], str(root / "whole"))
    return root / "in", digest(root / "whole")


def killed_run(reference, output, stages, seed):
    """A run killed once in each of `stages` and then finished; asserts that it leaves the reference's bytes."""
    corpus, whole = reference
    rng = random.Random(seed)
    killed = []
    for stage in stages:
        directory = output / f"{STAGES.index(stage) + 1:02d}-{stage}" if stage in STAGES else output / stage
        total = sum(name.parts[0] == directory.name and "done" in name.parts for name in whole) or 4
        wanted = rng.randrange(total) if stage in STAGES else 0
        process = start(corpus, output)
        if kill_when(process, lambda f=directory, n=wanted: f.exists() and marks(f) >= n, rng.random() * 0.05):
            killed.append(stage)
        else:
            finish(process)
    finish(start(corpus, output))
    found = digest(output)
    different = {n for n in whole.keys() | found.keys() if whole.get(n) != found.get(n)}
    assert not different, f"seed {seed}: {sorted(map(str, different))[:5]}"
    return killed


def test_killed_in_a_random_stage(reference, tmp_path):
    seed = random.SystemRandom().randrange(2**32)
    stage = random.Random(seed).choice([*STAGES, "ledger"])
    print(f"seed {seed}: {stage}")
    killed_run(reference, tmp_path / "out", [stage], seed)


@pytest.mark.slow
def test_killed_in_every_stage(reference, tmp_path):
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    killed = [killed_run(reference, tmp_path / f"{i}", [*STAGES, *STAGES[1:], "ledger"], seed + i) for i in range(2)]
    # A stage may be over before the signal; most are met.
    assert sum(map(len, killed)) > 10 and {s for k in killed for s in k} >= set(STAGES[:4])


@pytest.mark.slow
def test_killed_at_random_times(reference, tmp_path):
    corpus, whole = reference
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    print(f"seed {seed}")
    killed = 0
    for _ in range(12):
        process = start(corpus, tmp_path / "out")
        killed += kill_when(process, lambda: True, rng.uniform(0, 5))
    finish(start(corpus, tmp_path / "out"))
    found = digest(tmp_path / "out")
    assert {n for n in whole.keys() | found.keys() if whole.get(n) != found.get(n)} == set()
    assert killed >= 3
