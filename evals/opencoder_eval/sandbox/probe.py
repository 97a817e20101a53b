"""Whether the sandbox holds on this machine: a few hostile programs, run before the first real one."""

from __future__ import annotations

import json
import os
import secrets
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from opencoder_eval.sandbox.results import Execution, Limits, MiB, SandboxError

LIMITS = Limits(cpu_seconds=5, wall_seconds=30, file_bytes=16 * MiB, processes=12)
# Prints a JSON object: what was possible and should not be (`holes`), and the layers that were found.
PROGRAM = Path(__file__).with_name("probe_program.py")
EXHAUSTING = {
    "an endless loop": ("while True: pass", Limits(cpu_seconds=0.2, wall_seconds=20), "timeout"),
    "endless memory": (
        "kept = []\nwhile True: kept.append(b'x' * 2**20)",
        Limits(cpu_seconds=10, wall_seconds=30, memory_bytes=96 * MiB),
        "memory",
    ),
    "endless output": (
        "while True: print('x' * 65536)",
        Limits(cpu_seconds=10, wall_seconds=30, output_bytes=4096),
        "output_limit",
    ),
}


class Probed(Protocol):
    """The part of a `Sandbox` that is tried."""

    python: str
    read_only: tuple[str, ...]

    def run_python(
        self, program: str, *, files: Mapping[str, bytes] | None = None, limits: Limits | None = None
    ) -> Execution: ...


def probe(sandbox: Probed) -> dict[str, str]:
    """Tries `sandbox`; returns the layers that hold it: name -> state.

    Raises: SandboxError if a hostile program can do what it must not, with what that was.
    """
    secret = secrets.token_hex(8)
    with tempfile.NamedTemporaryFile(prefix="opencoder-probe-") as file, socket.socket() as listening:
        os.chmod(file.name, 0o644)
        file.write(secret.encode())
        file.flush()
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.setblocking(False)
        abstract = socket.socket(socket.AF_UNIX)
        with abstract:
            abstract.bind(f"\0opencoder-{secret}")
            abstract.listen()
            given = {
                "hidden": [file.name, os.getcwd(), str(Path.home()), str(Path(__file__).resolve())],
                "port": listening.getsockname()[1],
                "abstract": f"opencoder-{secret}",
                "pid": os.getpid(),
                "file_bytes": LIMITS.file_bytes,
                "processes": LIMITS.processes,
                "variables": sorted(os.environ),
                "read_only": list(sandbox.read_only),
            }
            seen = sandbox.run_python(
                PROGRAM.read_text(), files={"given.json": json.dumps(given).encode()}, limits=LIMITS
            )
    if not seen.ok:
        raise SandboxError(_broken(sandbox, seen))
    report = json.loads(seen.stdout)
    holes: list[str] = report["holes"]
    for name, (program, limits, wanted) in EXHAUSTING.items():
        outcome = sandbox.run_python(program, limits=limits).outcome
        if outcome != wanted:
            holes.append(f"{name} ended as {outcome}, not as {wanted}")
    if holes:
        raise SandboxError(
            f"the sandbox does not hold here: {'; '.join(holes)}. Update bubblewrap and the kernel, or run on another machine; "
            "nothing untrusted was run"
        )
    return report["layers"]


def _broken(sandbox: Probed, seen: Execution) -> str:
    said = seen.detail or seen.outcome
    if "failed to execute" in said:
        return (
            f"{sandbox.python} cannot be seen inside the sandbox: install python3 in /usr, or give an interpreter "
            "with python= and its directory with read_only="
        )
    return f"a first program does not run in the sandbox ({said}): try `{sandbox.python} -c pass` as another user"
