"""`python -m opencoder_jax.perf.sweep.sweep --config=8b --meshes="fsdp=8;fsdp=4,tensor=2" [--steps=10] [--field=value ...]`

Times the training step on one mesh after another, each in a fresh process: a mesh that fails does not end the sweep.
Meshes are written AXIS=SIZE,... with `;` between them; axes left out have size 1, and fewer devices than there are may
be used. Finished meshes are kept in DIR/results.jsonl and not run again.

On several hosts, start it on each of them as training is started (`srun`, or the JAX_* variables), DIR on a file system
that all share: a mesh takes the first hosts that suffice for it, so that one sweep goes from one host to all.

    --scaling=strong|weak   the same global batch for all (default), or the first mesh's batch per device for all
    --steps=10 --warmup=2   timed and untimed steps
    --out=DIR               default runs/sweep/CONFIG; receives results.jsonl, report.md, report.png, a log per mesh
    --fake                  CPU devices made up by XLA: proves the machinery; its figures are no measurements

Exit codes: 0 all meshes ran, 1 some failed (the report says which and why), 2 rejected.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from opencoder_data import command
from opencoder_data.shard_format import write_atomically

from opencoder_jax import overrides
from opencoder_jax.config import MeshConfig, RunConfig, replace
from opencoder_jax.perf.sweep import hosts as sweep_hosts
from opencoder_jax.perf.sweep import report as sweep_report

EXIT_FAILED = 1
AXES = tuple(f.name for f in dataclasses.fields(MeshConfig))


def run(arguments: list[str]) -> int:
    return child(arguments[1:]) if arguments[:1] == ["--child"] else sweep(arguments)


def parse_meshes(text: str) -> list[dict[str, int]]:
    """`fsdp=8;fsdp=4,tensor=2` -> axis sizes. Raises: ValueError naming the part that is wrong."""
    meshes = []
    for part in filter(None, (p.strip() for p in text.split(";"))):
        sizes, named = dict.fromkeys(AXES, 1), set()
        for item in part.split(","):
            name, _, size = item.strip().partition("=")
            if name in named:
                raise ValueError(f"--meshes: {part!r} names {name} twice; write ; between meshes")
            named.add(name)
            if name not in AXES or not re.fullmatch(r"[1-9]\d*", size):
                raise ValueError(f"--meshes: {item!r}: write AXIS=SIZE with an axis of {', '.join(AXES)}")
            sizes[name] = int(size)
        meshes.append(sizes)
    if not meshes:
        raise ValueError('no --meshes given, for example --meshes="fsdp=8;fsdp=4,tensor=2"')
    return meshes


def sweep(arguments: list[str]) -> int:
    own, rest = overrides.take(
        arguments,
        {"meshes": "", "scaling": "strong", "steps": "10", "warmup": "2", "out": "", "fake": "", "timeout": "3600"},
    )
    config, meshes = overrides.parse(rest, own), parse_meshes(own["meshes"])
    if own["scaling"] not in ("strong", "weak"):
        raise ValueError(f"--scaling={own['scaling']}: choose strong or weak")
    if any(argument.startswith("--mesh.") for argument in rest):
        raise ValueError("--meshes sets the mesh; leave --mesh.AXIS out")
    for name, least in (("steps", 1), ("warmup", 0), ("timeout", 1)):
        if not own[name].isdigit() or int(own[name]) < least:
            raise ValueError(f"--{name}={own[name]}: write a number of at least {least}")
    configs = [config_for(config, mesh, meshes[0], own["scaling"]) for mesh in meshes]
    hosts = sweep_hosts.join(os.environ, fake=bool(own["fake"]))
    if hosts.place is not None:
        say(hosts, f"{hosts.place.num_processes} processes with {hosts.local_devices} devices each")
    out = Path(own["out"] or f"runs/sweep/{config.name}")
    out.mkdir(parents=True, exist_ok=True)
    results = out / "results.jsonl"
    known = {}
    if hosts.is_first and results.exists():
        whole = [line for line in results.read_text().splitlines(keepends=True) if line.endswith("\n")]
        write_atomically(results, "".join(whole).encode())  # without the line that a kill cut short
        known = {row["key"]: row for row in map(json.loads, whole)}
    rows = []
    for index, (mesh, here) in enumerate(zip(meshes, configs, strict=True)):
        key = fingerprint(here, own)
        row = known.get(key)
        wanted = hosts.from_first("run" if row is None or "error" in row else "known") == "run"
        if wanted:
            say(hosts, f"{sweep_report.mesh_name(mesh)}: running")
            row = {"key": key, "mesh": mesh, **run_everywhere(hosts, index, here, own, out)}
            if hosts.is_first:
                with results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
        if hosts.is_first:
            assert row is not None
            rows.append(row)
            say(
                hosts,
                f"{sweep_report.mesh_name(mesh)}: {row.get('error') or f'{row["tokens_per_second"]:,.0f} tokens/s'}",
            )
    if not hosts.is_first:
        return 0
    text = sweep_report.text(config.name, rows, scaling=own["scaling"], fake=bool(own["fake"]))
    (out / "report.md").write_text(text)
    undrawn = sweep_report.draw(rows, out / "report.png", scaling=own["scaling"], fake=bool(own["fake"]))
    print(text)
    print(
        f"written to {out}: report.md, results.jsonl" + (f"; no report.png: {undrawn}" if undrawn else ", report.png")
    )
    return EXIT_FAILED if any("error" in row for row in rows) else 0


def config_for(config: RunConfig, mesh: dict[str, int], first: dict[str, int], scaling: str) -> RunConfig:
    """The configuration on a mesh; weak scaling keeps the batch per device of the first mesh."""
    batch = config.data.global_batch_size
    if scaling == "weak":
        scaled = batch * math.prod(mesh.values()) / math.prod(first.values())
        if scaled != int(scaled):
            raise ValueError(
                f"--scaling=weak: {sweep_report.mesh_name(mesh)} needs a batch of {scaled}; choose a batch that divides"
            )
        batch = int(scaled)
    return replace(config, mesh=MeshConfig(**mesh), data=replace(config.data, global_batch_size=batch))


def fingerprint(config: RunConfig, own: dict[str, str]) -> str:
    what = overrides.to_json(config) + str([own[name] for name in ("steps", "warmup", "fake")])
    return hashlib.sha256(what.encode()).hexdigest()[:16]


def say(hosts: sweep_hosts.Hosts, line: str) -> None:
    if hosts.is_first:
        print(line, flush=True)


def run_everywhere(
    hosts: sweep_hosts.Hosts, index: int, config: RunConfig, own: dict[str, str], out: Path
) -> dict[str, Any]:
    """The index-th mesh on the hosts that it takes; what the first one measured, or `error` with what went wrong."""
    name = re.sub(r"\W+", "-", sweep_report.mesh_name(dataclasses.asdict(config.mesh)))
    count = math.prod(dataclasses.asdict(config.mesh).values())
    try:
        variables = hosts.variables(count, index)
    except ValueError as error:
        return {"error": str(error)}
    files = {suffix: out / f"{name}.{suffix}" for suffix in ("config.json", "result.json", "log")}
    if hosts.is_first:
        files["config.json"].write_text(overrides.to_json(config))
        files["result.json"].unlink(missing_ok=True)
    elif hosts.place is not None:
        files["log"] = out / f"{name}.{hosts.place.process_id}.log"
    hosts.from_first("written")
    row = {} if variables is None else run_child(files, own, count // hosts.taken(count), variables)
    errors = [error for error in dict.fromkeys(hosts.from_all(row.get("error", ""))) if error]
    return {"error": "; ".join(errors)} if errors else row


def run_child(files: dict[str, Path], own: dict[str, str], fakes: int, variables: dict[str, str]) -> dict[str, Any]:
    """One mesh in a process of its own; what it measured (nothing unless it is the first), or `error` with its last line."""
    job, answer, log = files["config.json"], files["result.json"], files["log"]
    environment = dict(os.environ) | variables
    if own["fake"]:
        rest = re.sub(r"--xla_force_host_platform_device_count=\d+", "", environment.get("XLA_FLAGS", ""))
        environment["XLA_FLAGS"] = f"{rest} --xla_force_host_platform_device_count={fakes}".strip()
        environment["JAX_PLATFORMS"] = "cpu"
    arguments = ["opencoder_jax.perf.sweep.sweep", "--child", str(job), str(answer), own["steps"], own["warmup"]]
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
    try:
        with (
            log.open("w") as file,
            command.child_process(arguments, env=environment, stdout=file, **streams) as process,
        ):
            code = process.wait(float(own["timeout"]))
    except subprocess.TimeoutExpired:
        return {"error": f"stopped after {own['timeout']} s (--timeout); see {log}"}
    if code == 0 and variables.get("JAX_PROCESS_ID", "0") != "0":
        return {}
    if code == 0 and answer.exists():
        return json.loads(answer.read_text())
    if code < 0:
        return {"error": f"ended by signal {-code}; see {log}"}
    return {"error": f"{_reason(log.read_text()) or f'exit code {code}'}; see {log}"}


def _reason(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    telling = [x for x in lines if x.startswith("error:") or "RESOURCE_EXHAUSTED" in x or re.match(r"[\w.]*Error: ", x)]
    return (telling or lines or [""])[-1].removeprefix("error: ")[:300]


def child(arguments: list[str]) -> int:
    """Measures one mesh and writes the answer: timed steps, then two under the profiler for the split of time."""
    job, answer, steps, warmup = arguments
    from opencoder_jax.xla_flags import set_memory_fraction

    set_memory_fraction()
    import jax

    from opencoder_jax import distributed
    from opencoder_jax.perf.plan import hlo
    from opencoder_jax.perf.profile import table, trace
    from opencoder_jax.perf.timing import measure

    distributed.initialize()
    config = overrides.from_dict(json.loads(Path(job).read_text()))
    count = math.prod(dataclasses.asdict(config.mesh).values())
    devices = jax.devices()
    if count > len(devices):
        raise ValueError(f"the mesh asks for {count} devices, there are {len(devices)}")
    directory = Path(answer).with_suffix(".trace") if distributed.is_first() else None
    done = measure(
        config,
        steps=int(steps),
        warmup=int(warmup),
        traced=2,
        trace_dir=directory,
        hlo_dir=directory,
        devices=devices[:count],
    )
    if directory is None:
        return 0
    module = hlo.parse((directory / "train_step.optimized.hlo").read_text())
    split = table.summarise(trace.read(trace.newest(directory)), module)
    row = dataclasses.asdict(done) | {
        "median_seconds": done.median_seconds,
        "split": split.by_kind | {"exposed": split.exposed_collective, "host gap": split.host_gap},
        "traced_seconds": split.step_seconds,
    }
    Path(answer).with_suffix(".profile.md").write_text(table.text(split))
    Path(answer).write_text(json.dumps(row))
    return 0


if __name__ == "__main__":
    command.end(overrides.command(run, sys.argv[1:], __doc__))
