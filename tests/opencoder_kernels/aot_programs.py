"""Compiles kernels for a target without hardware (AOT) and prints what the assembler says of each. Run as a program:

    python -m tests.opencoder_kernels.aot_programs DEVICE [NAME:SHAPE[:IMPLEMENTATION] ...]

DEVICE: h100, h200, v5p, v6e. Without names, all of `PROGRAMS`. Needs the extra [aot].
"""

from __future__ import annotations

import os
import sys
import traceback

# A Hopper GPU as the compiler wants it described; figures from NVIDIA's data sheets.
H200 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: 4800000000000 l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: 150000000000 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 minor: 0 } registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H200"
"""

# B, T, query heads, key/value heads, head dim, model dim, feed-forward dim, vocabulary (OpenCoder table 4).
SHAPES = {"8b": (1, 8192, 32, 8, 128, 4096, 14_336, 96_640), "1p5b": (1, 4096, 14, 14, 160, 2240, 6144, 96_640)}
# The 8B's vocabulary over mesh tensor=4 and 8: parts that are multiples of 32 and of 16.
PARTS = {f"8b_tensor{n}": (*SHAPES["8b"][:-1], 96_640 // n) for n in (4, 8)}

NAMES = tuple(
    f"{op}{way}" for op in ("attention", "swiglu", "rms_norm", "linear_cross_entropy") for way in ("", "_backward")
)
# Every kernel at both shapes, and the loss on parts of the vocabulary.
PROGRAMS = [(name, shape) for name in NAMES for shape in SHAPES]
PROGRAMS += [(name, shape) for name in NAMES if name.startswith("linear") for shape in PARTS]
GPUS = {
    "h200": H200,
    "h100": H200.replace("150000000000", "85000000000").replace("NVIDIA H200", "NVIDIA H100 80GB HBM3"),
}


def devices(device: str):
    from jax.experimental import topologies

    if device in GPUS:
        return topologies.get_topology_desc(platform="cuda", target_config=GPUS[device], topology="1x1x1").devices
    name = {"v5p": "v5p:2x2x1", "v6e": "v6e:2x2"}[device]
    return topologies.get_topology_desc(platform="tpu", topology_name=name).devices[:1]


def build(name: str, shape: str, implementation: str):
    """(function, arguments as (shape, dtype)) of one kernel at a model's shape."""
    import jax
    import jax.numpy as jnp
    import opencoder_kernels as kernels

    B, T, N, K, H, D, F, V = (SHAPES | PARTS)[shape]
    q, kv, ids = ((B, T, N, H), jnp.bfloat16), ((B, T, K, H), jnp.bfloat16), ((B, T), jnp.int32)

    def attend(q, k, v, ids):
        return kernels.attention(q, k, v, q_segment_ids=ids, kv_segment_ids=ids, implementation=implementation)

    def gradient(f, num):
        return jax.grad(lambda *args: f(*args).astype(jnp.float32).sum(), tuple(range(num)))

    if name == "attention":
        return attend, (q, kv, kv, ids)
    if name == "attention_backward":
        return gradient(attend, 3), (q, kv, kv, ids)
    x, w = ((B, T, D), jnp.bfloat16), ((D, F), jnp.bfloat16)
    if name in ("swiglu", "swiglu_backward"):

        def swiglu(x, w_gate, w_up):
            return kernels.swiglu(x, w_gate, w_up, implementation=implementation)

        return (swiglu if name == "swiglu" else gradient(swiglu, 3)), (x, w, w)

    if name in ("linear_cross_entropy", "linear_cross_entropy_backward"):

        def loss(hidden, w_out, targets, weights):
            return kernels.linear_cross_entropy(
                hidden, w_out, targets, weights, z_loss=1e-4, implementation=implementation
            )[0]

        args = (x, ((D, V), jnp.bfloat16), ((B, T), jnp.int32), ((B, T), jnp.float32))
        return (loss if name == "linear_cross_entropy" else jax.grad(loss, (0, 1))), args

    def norm(x, weight):
        return kernels.rms_norm(x, weight, eps=1e-5, implementation=implementation)

    return (norm if name == "rms_norm" else gradient(norm, 2)), (x, ((D,), jnp.bfloat16))


def main(device: str, *programs: str) -> None:
    import jax
    import numpy as np
    from jax.sharding import AxisType, Mesh, NamedSharding
    from jax.sharding import PartitionSpec as P

    mesh = Mesh(np.array(devices(device)).reshape(1, 1, 1, 1), ("data", "fsdp", "tensor", "context"),
                axis_types=(AxisType.Auto,) * 4)  # fmt: skip
    whole = NamedSharding(mesh, P())
    for program in programs or map(":".join, PROGRAMS):
        name, shape, *implementation = program.split(":")
        print("PROGRAM", program, flush=True)
        try:
            with jax.set_mesh(mesh):
                f, args = build(name, shape, *(implementation or ["mosaic_gpu" if device in GPUS else "tpu"]))
                args = [jax.ShapeDtypeStruct(s, d, sharding=whole) for s, d in args]
                compiled = jax.jit(f, out_shardings=whole).lower(*args).compile()
            print("COMPILED temporaries", compiled.memory_analysis().temp_size_in_bytes, flush=True)
        except Exception:  # the others' reports are wanted too
            traceback.print_exc()


if __name__ == "__main__":
    os.environ |= {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no device is claimed
        "MOSAIC_GPU_DUMP_PTXAS": "1",
        # Without a device no product is tuned, and XLA would take Triton's, which does not add in place (chunked.py).
        "XLA_FLAGS": "--xla_gpu_enable_triton_gemm=false",
    }
    main(*sys.argv[1:])
