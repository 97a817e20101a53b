"""Ends drivers of pipelines at chosen moments and compares what runs left."""

import os
import signal
import time
from pathlib import Path

SECONDS = 60


def digest(output):
    """Bytes of every file of a run but those that name the number of workers and the times."""
    files = {p.relative_to(output): p.read_bytes() for p in Path(output).rglob("*") if p.is_file()}
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


def kill_when(process, reached, delay, end_within=20):
    """SIGKILL to the driver alone, `delay` seconds after `reached()`; False when it was done before.

    All other processes of its session must end within `end_within` seconds.
    """
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
    end = time.monotonic() + end_within
    while left := session_members(process.pid):
        assert time.monotonic() < end, f"{len(left)} workers outlive the driver"
        time.sleep(0.02)
    return True
