"""Everything there is to measure on one Hopper GPU, in one go of at most 25 minutes; the same command goes on where it stopped.

    python scripts/benchmarks/gpu_session.py              writes docs/benchmarks/DEVICE/
    python scripts/benchmarks/gpu_session.py --smoke --out /tmp/session    small sizes, on a CPU too: does the script run?

Needs this checkout, Python 3.12, jax[cuda13] 0.11.2 or newer, flax, optax and orbax-checkpoint, nothing else. Parts, each in a
process of its own with a limit of time: machine, correctness of every kernel, kernel table, training steps with profile
tables, compiled against measured memory and predicted against measured step time. A part that fails does not end the
others. session.json records what is done; --again NAME runs a part again. docs/guides/gpu-session.md says more.

Exit codes: 0 all parts done, 1 some failed or had no time left (the last lines say which), 2 wrong use.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PATHS = [str(ROOT), str(ROOT / "kernels"), str(ROOT / "data")]  # nothing has to be installed
sys.path[:0] = PATHS

from opencoder_data import command  # noqa: E402

from scripts.benchmarks import bench_gpu, session_tables  # noqa: E402

MINUTES = 25.0
LEAST_SECONDS = 20.0  # a part with less time left is not begun
ARENA = 0.75  # share of the memory that JAX is told to take while it is asked for the device
DONE, FAILED, LATE = "done", "failed", "not done in its time"
MACHINE = """
import json, jax
device = jax.devices()[0]
try:
    from jax._src.lib import xla_client
    target = str(xla_client.get_topology_for_devices(jax.devices()).target_config)
except Exception as error:
    target = f"{type(error).__name__}: {error}"
limit = (device.memory_stats() or {}).get("bytes_limit", 0)
print(json.dumps({"kind": device.device_kind, "platform": device.platform, "jax": jax.__version__, "arena": limit,
                  "devices": len(jax.devices()), "target_config": target}))
"""


@dataclass(frozen=True)
class Part:
    """name: in session.json. module: run as `python -m`. arguments: given the seconds it has. seconds: at most."""

    name: str
    module: str
    arguments: Callable[[float], list[str]]
    seconds: float


@dataclass
class Session:
    """out: what is kept, in the repository. work: logs, traces, HLO and rows of a part that is not finished."""

    out: Path
    work: Path
    device: dict[str, Any]
    smoke: bool

    @property
    def file(self) -> Path:
        return self.out / "session.json"

    def parts(self) -> list[Part]:
        """In the order of their worth, should the time run out."""
        shapes = ["tiny"] if self.smoke else ["8b", "1p5b"]
        memory = 0.0 if self.smoke else self.device["memory_gib"]
        models = list(bench_gpu.entries(memory))
        interpreter = ["--interpret", "gpu"] if self.smoke and self.device["platform"] == "cpu" else []
        rows = self.work / "kernels.jsonl"

        def correctness(shape: str) -> Callable[[float], list[str]]:
            return lambda seconds: [
                "--shapes", shape, *interpreter, "--out", str(self.out), "--name", f"correctness_{shape}",
                "--seconds", f"{seconds - 60:.0f}",
            ]  # fmt: skip

        def table(shape: str) -> Callable[[float], list[str]]:
            repeats = "3" if self.smoke else "20"
            return lambda seconds: [
                "--shapes", shape, "--repeats", repeats, "--out", str(self.out), "--name", f"kernels_{shape}",
                "--rows", str(rows), "--seconds", f"{seconds - 40:.0f}",
            ]  # fmt: skip

        def step(model: str) -> Callable[[float], list[str]]:
            less = ["--model.num_layers=1", "--model.scan_unroll=1", "--data.seq_len=128"] if self.smoke else []
            return lambda seconds: [
                "--models", model, "--memory", str(memory), "--steps", "3" if self.smoke else "10",
                "--timeout", f"{seconds - 10:.0f}", "--out", str(self.work / f"step_{model}"), *less,
            ]  # fmt: skip

        right = [Part(f"correctness {s}", "scripts.benchmarks.check_kernels", correctness(s), 240) for s in shapes]
        steps = [Part(f"step {m}", "scripts.benchmarks.bench_gpu", step(m), 300) for m in models]
        tables = [Part(f"kernels {s}", "scripts.benchmarks.bench_kernels", table(s), 300) for s in shapes]
        return [*right, *steps[:1], *tables[:1], *steps[1:], *tables[1:]]


def main(arguments: list[str]) -> int:
    parser = command.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="default docs/benchmarks/DEVICE")
    parser.add_argument("--work", type=Path, help="logs, traces, HLO; default runs/gpu_session/DEVICE")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of this call, all parts together")
    parser.add_argument("--again", action="append", default=[], metavar="PART", help="run a part again that is done")
    parser.add_argument("--smoke", action="store_true", help="small sizes, on any device: does the script run?")
    args = parser.parse_args(arguments)
    return command.run(lambda: run(args), stopped=f"{command.STOPPED}: finished parts are kept")


def run(args: argparse.Namespace) -> int:
    """The parts that are not done yet, as far as the time goes. Raises: ValueError for a device without entries."""
    end = time.monotonic() + 60 * args.minutes
    device = machine()
    if device["platform"] != "gpu" and not args.smoke:
        raise ValueError(f"the device is {device['kind']!r}, not a GPU; --smoke runs small sizes anywhere")
    if not args.smoke and device["memory_gib"] < 70:
        raise ValueError(
            f"{device['kind']} has {device['memory_gib']:.0f} GiB; the smallest entries need 70: try --smoke"
        )
    name = device["kind"].lower().replace(" ", "_") + ("_smoke" if args.smoke else "")
    session = Session(args.out or ROOT / "docs" / "benchmarks" / name, args.work or ROOT / "runs" / "gpu_session" / name,
                      device, args.smoke)  # fmt: skip
    session.out, session.work = session.out.resolve(), session.work.resolve()
    for directory in (session.out, session.work):
        directory.mkdir(parents=True, exist_ok=True)
    (session.out / "machine.json").write_text(json.dumps(device, indent=1) + "\n")
    parts = session.parts()
    known = [part.name for part in parts]
    if unknown := [part for part in args.again if part not in known]:
        raise ValueError(f"--again {unknown[0]}: no such part; there are: {', '.join(known)}")
    record = read_record(session.file)
    for part in args.again:
        record.pop(part, None)
    for part in parts:
        if record.get(part.name, {}).get("state") == DONE:
            print(f"{part.name}: done before", flush=True)
            continue
        left = end - time.monotonic()
        if left < min(LEAST_SECONDS, part.seconds):
            record[part.name] = {"state": LATE, "why": f"no time left of {args.minutes:g} minutes"}
        else:
            record[part.name] = run_part(part, min(part.seconds, left), session)
        write_record(session.file, record)
        session_tables.write(session.out, session.work, device, record)
        print(f"{part.name}: {record[part.name]['state']}", flush=True)
    missing = [name for name in known if record[name]["state"] != DONE]
    for name in missing:
        print(f"{name}: {record[name]['state']}: {record[name]['why']}")
    print(f"written to {session.out}" + ("; the same command goes on with what is missing" if missing else ""))
    return 1 if missing else 0


def machine() -> dict[str, Any]:
    """The first device as JAX sees it, in a process that lets go of it again. Raises: ValueError when JAX finds none."""
    done = subprocess.run(
        [sys.executable, "-c", MACHINE], env=environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"JAX does not start here: {said}; install jax[cuda13], flax, optax and orbax-checkpoint")
    device = json.loads(done.stdout.splitlines()[-1])
    device |= {"driver": "", "memory_gib": device["arena"] / ARENA / 2**30}
    if device["platform"] == "gpu" and shutil.which("nvidia-smi"):
        query = [
            "nvidia-smi",
            "--query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit",
            "--format=csv,noheader",
        ]
        device["driver"] = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    return device


def environment() -> dict[str, str]:
    """Of the children: this checkout's packages before whatever else is there."""
    paths = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    return dict(os.environ) | {"PYTHONPATH": os.pathsep.join([*paths, *PATHS])}


def run_part(part: Part, seconds: float, session: Session) -> dict[str, Any]:
    """Its state and, unless it is done, why not. What it writes goes to a log."""
    log = session.work / f"{part.name.replace(' ', '_')}.log"
    print(f"{part.name}: at most {seconds:.0f} s, log {log}", flush=True)
    begin = time.monotonic()
    row: dict[str, Any] = {"state": DONE, "commit": commit(), "jax": session.device["jax"]}
    with log.open("w") as file:
        options: dict[str, Any] = {"stdout": file, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
        child = command.child_process([part.module, *part.arguments(seconds)], env=environment(), cwd=ROOT, **options)
        with child as process:
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                row |= {"state": LATE, "why": f"stopped after {seconds:.0f} s; see {log}"}
                code = 0
    if code:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        row |= {"state": FAILED, "why": f"exit code {code}: {(lines or [''])[-1][:300]}; see {log}"}
    return row | {"seconds": round(time.monotonic() - begin, 1)}


def read_record(path: Path) -> dict[str, Any]:
    """What an earlier call recorded. Raises: ValueError for a file that does not read."""
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text())["parts"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: not a record of a session; remove it to begin again") from None


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"parts": record}, indent=1) + "\n")
    os.replace(part, path)


def commit() -> str:
    """Of this checkout; "unknown" in a copy without git."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    command.end(main(sys.argv[1:]))
