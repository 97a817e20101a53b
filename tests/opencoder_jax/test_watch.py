"""Signals and silence, in processes that do nothing but wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from opencoder_jax import watch
from tests.opencoder_jax.training import ROOT

# A blocked read of a pipe that nobody writes to is a call that only the system ends; Python's handlers run in between.
PROGRAM = """
import os, signal, sys, time
from opencoder_jax import watch
from opencoder_jax.watch import Stopped, Watch
watch.LOOP_GRACE, watch.STARTING_GRACE, watch.EXIT_GRACE = 0.5, 0.5, 0.5
def blocked():
    read, write = os.pipe()
    os.read(read, 1)
def deaf():
    '''Stays in C, as a compiler does: Python's own handlers do not run.'''
    import ctypes
    sleep = ctypes.CDLL(None).sleep
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # another thread receives it: the call is not interrupted
    sleep(60)
def main():
    with Watch(float(os.environ.get("SILENCE", "60"))) as w:
        LOOPING
        print("ready", flush=True)
BODY
try:
    code = main()
except Stopped:
    code = 33
watch.end(code or 0)
"""


def start(body: str, **options) -> subprocess.Popen[str]:
    """The body is run within a Watch, after `looping` if that is its first line."""
    looping, rest = ("w.looping()", body[12:]) if body.startswith("w.looping()\n") else ("pass", body)
    code = PROGRAM.replace("LOOPING", looping).replace(
        "BODY", "".join(f"        {line}\n" for line in rest.splitlines())
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options),
    )
    if process.stdout is not None:
        assert process.stdout.readline() == "ready\n"
    return process


def finish(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    try:
        _, said = process.communicate(timeout=15)
    finally:
        process.kill()
    return process.returncode, (said or "").splitlines()


def test_silence_ends_the_process_with_one_line_that_names_it():
    process = start('w.looping()\nwith w.waiting("the data loader", 0.5): blocked()')
    code, said = finish(process)
    assert code == watch.EXIT_SILENT == 5
    assert len(said) == 1
    assert "error: the data loader did not answer for" in said[0]


def test_outer_wait_counts_from_the_end_of_the_inner_one():
    """Many short waits, longer together than the limit, are not silence."""
    body = 'w.silence_seconds = 1\nwith w.waiting("all"):\n    for _ in range(30):\n        with w.waiting("one"): time.sleep(0.1)\nreturn 7'
    assert finish(start(body)) == (7, [])


def test_a_signal_before_the_loop_raises_in_the_main_thread():
    for number in (signal.SIGTERM, signal.SIGINT):
        process = start("blocked()")
        process.send_signal(number)
        assert finish(process) == (33, [])


def test_a_signal_before_the_loop_ends_a_deaf_main_thread():
    process = start("deaf()")
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    code, said = finish(process)
    assert (code, len(said)) == (3, 1)
    assert "stopped by a signal before the first step, nothing to save" in said[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_in_the_loop_a_signal_is_noted(number):
    process = start("w.looping()\nwhile not w.received: time.sleep(0.01)\nprint(w.reason)\nreturn 3")
    process.send_signal(number)
    code, said = finish(process)
    assert code == 3
    assert len(said) == (number == signal.SIGINT), said


def test_sigterm_while_something_hangs_ends_it_after_a_grace():
    process = start('w.looping()\nwith w.waiting("the device"): blocked()')
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    code, said = finish(process)
    assert (code, len(said)) == (5, 1)
    assert "stopped by a signal while the device did not answer, not saved" in said[0]
    assert 0.4 < time.monotonic() - began < 10


def test_a_save_keeps_its_time_after_a_signal():
    process = start('w.looping()\nwith w.waiting("the writer", 60): time.sleep(2)\nreturn 3')
    process.send_signal(signal.SIGTERM)
    assert finish(process) == (3, [])


def test_second_ctrl_c_ends_at_once():
    process = start('w.looping()\nwith w.waiting("the writer", 60): blocked()')
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert "Ctrl-C: saving after this step" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    code, said = finish(process)
    assert code == 130
    assert len(said) == 1
    assert "second Ctrl-C" in said[0]


def test_a_second_sigterm_does_not():
    process = start("w.looping()\nwhile not w.received: time.sleep(0.01)\ntime.sleep(0.3)\nreturn 3")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert finish(process) == (3, [])


def test_a_blocked_standard_output_is_silence_too():
    """A reader that has stopped reading, of both streams: the line cannot be said, the exit code can."""
    read, write = os.pipe()
    body = 'w.looping()\nwith w.waiting("standard output", 0.5):\n    while True: print("x" * 1000, flush=True)'
    process = start(body, stdout=write, stderr=write)
    os.close(write)
    try:
        process.wait(timeout=15)
    finally:
        process.kill()
        os.close(read)
    assert process.returncode == watch.EXIT_SILENT


@pytest.mark.parametrize("closed", [1, 2, (1, 2)])
def test_exit_code_survives_closed_streams(closed):
    shell = {1: ">&-", 2: "2>&-", (1, 2): ">&- 2>&-"}[closed]
    code = PROGRAM.replace("LOOPING", "pass").replace(
        "BODY", '        print("lost", file=sys.stderr); print("lost"); return 4'
    )
    done = subprocess.run(f'"{sys.executable}" -c "$CODE" {shell}', shell=True, cwd=ROOT, env={**os.environ, "CODE": code}, timeout=30)  # fmt: skip
    assert done.returncode == 4


def test_exit_code_survives_readers_that_have_gone():
    read, write = os.pipe()
    os.close(read)
    # What is printed without a flush is in the buffer when the process ends.
    process = start('sys.stdout.write("x")\nreturn 4', stdout=write, stderr=write)
    os.close(write)
    # `ready` is flushed and fails: the program ends by BrokenPipeError, or, where it does not flush, by its own code.
    assert process.wait(timeout=15) in (1, 4)


def test_a_thread_that_never_ends_does_not_keep_the_process():
    process = start("import threading\nthreading.Thread(target=blocked).start()\nreturn 4")
    assert finish(process)[0] == 4


def test_closed_streams_are_opened_to_nothing():
    """The next file to be opened would be number 2, where libraries write their warnings."""
    code = "from opencoder_jax import watch; watch.before_imports(); f = open('/dev/zero'); import sys; sys.exit(f.fileno())"
    done = subprocess.run(f'"{sys.executable}" -c "{code}" 2>&- <&-', shell=True, cwd=ROOT, timeout=30)
    assert done.returncode > 2


def test_handlers_are_given_back():
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with watch.Watch():
        assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] != before
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before
