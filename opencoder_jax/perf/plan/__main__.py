"""`python -m opencoder_jax.perf.plan --config=8b --topology=h100:64x8 [--mesh.fsdp=64 ...] [--search]`

    --topology=NAME       machine: h100, h800, h200, b200 (NODESxGPUS), v5e, v6e (AxB chips), v5p, tpu7x (AxBxC chips)
    --compiler=device     the machine's own compiler (extra [aot]); cpu: fake CPU devices, collectives only indicative
    --out=DIR             where plan.md, plan.json and step.hlo.txt go (default runs/plan/CONFIG-TOPOLOGY)
    --search[=K]          ranks meshes, remat policies and micro-batches and compiles the K best (see search.py)

Every other --field=value overrides the configuration, as for training. Exit codes: 0 it fits, 2 rejected (one line says
why), 3 it does not fit (the last line says what to change).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from opencoder_data import command
from opencoder_data.shard_format import write_atomically

from opencoder_jax import overrides
from opencoder_jax.config import RunConfig
from opencoder_jax.perf.plan import topology as machines

EXIT_MEMORY = 3
FILES = ("plan.md", "plan.json", "step.hlo.txt")


def run(arguments: list[str]) -> int:
    own, rest = overrides.take(arguments, {"topology": "", "compiler": "device", "out": "", "search": ""})
    if not own["topology"]:
        raise ValueError(f"no --topology=NAME given, for example h100:64x8; devices: {', '.join(machines.DEVICES)}")
    if own["compiler"] not in ("device", "cpu"):
        raise ValueError(f"--compiler={own['compiler']}: choose device or cpu")
    topology = machines.parse(own["topology"])
    config = overrides.parse(rest, own)
    out = Path(own["out"] or f"runs/plan/{config.name}-{str(topology).replace(':', '-')}")
    machines.prepare_environment(topology, own["compiler"])
    if own["search"]:
        from opencoder_jax.perf.plan.search import search

        count = 4 if own["search"] == "yes" else int(own["search"]) if own["search"].isdigit() else 0
        if count < 1:
            raise ValueError(f"--search={own['search']}: write a number of candidates to compile, or nothing (4)")
        return search(config, topology, own["compiler"], out, rest, count)
    return plan(config, topology, own["compiler"], out)


def plan(config: RunConfig, topology: machines.Topology, compiler: str, out: Path) -> int:
    from opencoder_jax.perf.plan import report
    from opencoder_jax.perf.plan.compile import OutOfMemory
    from opencoder_jax.perf.plan.planner import make_plan
    from opencoder_jax.sharding import MESH_AXES, mesh_shape

    shape: dict[str, int] = dict(zip(MESH_AXES, mesh_shape(config.mesh, topology.num_devices), strict=True))
    out.mkdir(parents=True, exist_ok=True)  # before the compiler's minutes
    try:
        made, compiled = make_plan(config, topology, compiler)
    except OutOfMemory as error:
        for name in FILES:  # of an earlier plan
            (out / name).unlink(missing_ok=True)
        print(f"does not fit: {report.out_of_memory(config, shape, error.needed, topology)}")
        print(f"the compiler says: {error}")
        return EXIT_MEMORY
    (out / "plan.md").write_text(report.text(made), encoding="utf-8")
    (out / "step.hlo.txt").write_text(compiled.hlo, encoding="utf-8")
    # The one that a search reads.
    write_atomically(out / "plan.json", json.dumps(made.as_dict(), indent=1).encode() + b"\n")
    print(report.text(made))
    print(f"written to {out}: {', '.join(FILES)}")
    if not made.memory.fits:
        print(f"does not fit: {report.out_of_memory(config, shape, made.memory.peak, topology)}")
        return EXIT_MEMORY
    return 0


if __name__ == "__main__":
    command.end(overrides.command(run, sys.argv[1:], __doc__))
