"""Writes the HLO text of a small step, as the installed JAX compiles it, for the tests of the reader (perf/plan/hlo.py).

    python scripts/tools/golden_hlo.py [--out tests/opencoder_jax/golden/hlo]

jax-VERSION-cpu.hlo, and -gpu and -tpu where their compilers are installed (extra aot). To be run once for each new JAX; the
difference from the version before is to be read.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "kernels"), str(ROOT / "data")]

from opencoder_jax.perf.plan import topology  # noqa: E402

# LAYERS matmuls of [ROWS, WIDTH] x [WIDTH, WIDTH], remat, a gradient; mesh data 2, fsdp 2.
LAYERS, ROWS, WIDTH = 3, 256, 128
MACHINES = {"cpu": ("h100:1x4", "cpu"), "gpu": ("h100:1x4", "device"), "tpu": ("v5e:2x2", "device")}


def compiled_text(machine: str, compiler: str) -> str:
    """The optimized HLO of the step. Raises: ValueError when the compiler is not installed."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

    def step(weights, x):
        def layer(h, w):
            return jnp.tanh(h @ w), None

        def loss(weights):
            h, _ = jax.lax.scan(jax.checkpoint(layer), x, weights)
            return jnp.square(h.astype(jnp.float32)).mean()

        return jax.value_and_grad(loss)(weights)

    devices = np.asarray(topology.devices(topology.parse(machine), compiler)).reshape(2, 2, 1, 1)
    mesh = Mesh(devices, ("data", "fsdp", "tensor", "context"), axis_types=(AxisType.Auto,) * 4)

    def layout(*axes):
        return NamedSharding(mesh, PartitionSpec(*axes))

    w, x, scalar = layout(None, "fsdp", None), layout("data", None), layout()
    dtype = jnp.float32 if compiler == "cpu" else jnp.bfloat16
    shapes = jax.ShapeDtypeStruct((LAYERS, WIDTH, WIDTH), dtype), jax.ShapeDtypeStruct((ROWS, WIDTH), dtype)
    options = {"xla_gpu_enable_triton_gemm": False} if "h100" in machine and compiler == "device" else {}
    lowered = jax.jit(step, in_shardings=(w, x), out_shardings=(scalar, w)).lower(*shapes)
    text = lowered.compile(compiler_options=options).as_text() or ""
    return re.sub(r'^(\d+ ")[^"]*/', r"\1", text, flags=re.MULTILINE)  # paths of this machine


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "tests" / "opencoder_jax" / "golden" / "hlo")
    parser.add_argument("--machines", nargs="+", default=list(MACHINES), choices=MACHINES)
    args = parser.parse_args()
    topology.prepare_environment(topology.parse("h100:1x4"), "cpu")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import jax

    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.machines:
        try:
            text = compiled_text(*MACHINES[name])
        except ValueError as error:
            print(f"{name}: {error}")
            continue
        path = args.out / f"jax-{jax.__version__}-{name}.hlo"
        path.write_text(text)
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
