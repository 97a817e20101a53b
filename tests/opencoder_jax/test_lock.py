"""One run directory, one trainer: on this host, after SIGKILL, and where another host shares the directory but not its locks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from opencoder_jax import lock
from opencoder_jax.lock import FILE, RunLock
from tests.opencoder_jax.training import ROOT

HOLD = """
import sys, time
from pathlib import Path
from opencoder_jax.lock import RunLock
RunLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lock, "WAIT_SECONDS", 0.5)


def held(run: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_is_rejected_with_pid_and_host_and_starts_after_sigkill(tmp_path):
    run = tmp_path / "run"
    process = held(run)
    try:
        with pytest.raises(ValueError, match=rf"pid {process.pid} on {os.uname().nodename}, since 20") as error:
            RunLock(run).acquire()
        assert str(run / FILE) in str(error.value)
    finally:
        process.kill()
        process.wait()
    assert json.loads((run / FILE).read_text())["pid"] == process.pid
    taken, said = RunLock(run), []
    taken.acquire(said.append)
    assert said == [], "a dead holder of this host needs no waiting"
    assert json.loads((run / FILE).read_text())["pid"] == os.getpid()
    taken.release()
    assert (run / FILE).read_text() == ""


def test_two_names_of_one_directory_are_one(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "run")
    mine = RunLock(tmp_path / "run")
    mine.acquire()
    with pytest.raises(ValueError, match="another trainer"):
        RunLock(tmp_path / "link").acquire()
    mine.release()
    again = RunLock(tmp_path / "link")
    again.acquire()
    again.release()


def remote(run: Path, **changes: object) -> dict:
    """A record that a trainer on another host left, or is keeping."""
    run.mkdir(exist_ok=True)
    record = {**lock._identity(), "host": "other", "pid": 7, "boot": "another", "token": "x", "since": "then"}
    (run / FILE).write_text(json.dumps(record | changes))
    return record


def test_a_living_trainer_on_another_host_is_seen_by_its_heartbeat(tmp_path):
    """Another host's lock is not ours to see: its file moves."""
    remote(tmp_path)
    beats = "import os, sys, time\nwhile True: os.utime(sys.argv[1]); time.sleep(0.05)"
    process = subprocess.Popen([sys.executable, "-c", beats, str(tmp_path / FILE)])
    try:
        said: list[str] = []
        with pytest.raises(ValueError, match="pid 7 on other"):
            RunLock(tmp_path).acquire(said.append)
        assert "waiting" in said[0]
    finally:
        process.kill()
        process.wait()
    dead = RunLock(tmp_path)
    dead.acquire(said.append)
    dead.release()


@pytest.mark.parametrize("change", [{"pid": 1}, {"started": "1"}])
def test_a_pid_that_was_given_again_is_not_the_holder(tmp_path, change):
    here = lock._identity()
    remote(tmp_path, **{**here, "started": "1", **change})
    mine, said = RunLock(tmp_path), []
    mine.acquire(said.append)
    assert said == []
    mine.release()


def test_without_system_locks_a_living_holder_is_still_rejected(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", unsupported)
    process = held(tmp_path)
    try:
        with pytest.raises(ValueError, match=rf"pid {process.pid} "):
            RunLock(tmp_path).acquire()
    finally:
        process.kill()
        process.wait()
    mine = RunLock(tmp_path)
    mine.acquire()
    mine.release()


@pytest.mark.parametrize("how", ["taken", "removed"])
def test_a_trainer_whose_lock_is_gone_learns_it(tmp_path, how):
    mine = RunLock(tmp_path)
    mine.acquire()
    mine.check()
    if how == "taken":
        remote(tmp_path)
    else:
        (tmp_path / FILE).unlink()
    deadline = time.monotonic() + 5
    while not mine._lost and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(ValueError, match="pid 7 on other" if how == "taken" else "was removed"):
        mine.check()
    mine.release()
    if how == "taken":
        assert json.loads((tmp_path / FILE).read_text())["token"] == "x", "the other's record stays"


def test_a_record_cut_by_a_kill_is_nobody(tmp_path):
    (tmp_path / FILE).write_text('{"host": "oth')
    mine = RunLock(tmp_path)
    mine.acquire()
    mine.release()
