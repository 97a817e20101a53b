"""Serves a checkpoint while an evaluation runs: `opencoder serve` as a child process on a free port."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import httpx

START_SECONDS, STOP_SECONDS = 900.0, 20.0
_PR_SET_PDEATHSIG = 1


@contextlib.contextmanager
def served(checkpoint: str | None, endpoint: str = "", *, command: tuple[str, ...] = ()) -> Iterator[str]:
    """The endpoint: the given one, or that of a server for `checkpoint`, which ends with the block and with this process.

    Args:
      command: of the server, before its options; default: this project's.

    Raises: ValueError with the server's last line when it ends before it is ready.
    """
    if not checkpoint:
        yield endpoint
        return
    port = _free_port()
    command = command or (sys.executable, "-m", "opencoder_jax", "serve")
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*command, f"--checkpoint={checkpoint}", f"--port={port}"],
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        try:
            _wait(process, f"http://127.0.0.1:{port}", lambda: _last_line(log.fileno()))
            yield f"http://127.0.0.1:{port}"
        finally:
            _stop(process)


def _wait(process: subprocess.Popen[bytes], endpoint: str, last_line: object) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        if process.poll() is not None:
            said = last_line() if callable(last_line) else ""
            raise ValueError(f"the server for the checkpoint ended with {process.returncode}: {said}")
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{endpoint}/health", timeout=5).status_code == 200:
                return
        if time.monotonic() > until:
            raise ValueError(
                f"the server was not ready in {START_SECONDS:.0f} s; start it yourself and give --endpoint"
            )
        time.sleep(0.2)


def _stop(process: subprocess.Popen[bytes]) -> None:
    for sent in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sent)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)


def _last_line(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    text = os.pread(descriptor, 4096, max(0, size - 4096)).decode("utf-8", "replace")
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
