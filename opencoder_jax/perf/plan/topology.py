"""Machines by name: devices that are not there, and what is known of them.

h100:64x8   64 nodes of 8 GPUs        h100:8   one node of 8
v5p:8x8x4   a TPU slice of 256 chips
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

GB, GIB = 1e9, 2**30


@dataclass(frozen=True)
class DeviceSpec:
    """One device, as JAX counts them. Bandwidths in bytes/s and one direction; FLOP/s are in metrics.PEAK_FLOPS."""

    name: str
    platform: str  # cuda or tpu
    device_kind: str
    memory: int  # bytes
    memory_bandwidth: float
    # To another device of the node (NVLink through NVSwitch), or of the slice along one ring (ICI, both directions).
    fast_network: float
    # To another node, per device; 0 when every device of a topology hangs on the fast network.
    slow_network: float
    source: str
    num_cores: int = 0  # streaming multiprocessors
    l2_bytes: int = 0
    clock_ghz: float = 0.0
    compute_capability: str = ""
    cores_per_chip: int = 1  # devices that JAX makes of one TPU chip


# GPU memory as the driver reports it; bandwidths from the makers' data sheets. NVLink figures are half of the sheet's,
# which adds both directions; a node has one 400 Gb/s network port for each GPU (DGX H100, DGX B200, Azure ND H100 v5).
_HOPPER: dict[str, Any] = {
    "platform": "cuda",
    "num_cores": 132,
    "l2_bytes": 50 * 2**20,
    "clock_ghz": 1.98,
    "compute_capability": "9",
    "slow_network": 50 * GB,
}
DEVICES = {
    spec.name: spec
    for spec in (
        DeviceSpec(name="h100", device_kind="NVIDIA H100 80GB HBM3", memory=84_942_979_072, memory_bandwidth=3_352 * GB,
                   fast_network=450 * GB, source="NVIDIA H100 SXM5 data sheet", **_HOPPER),
        DeviceSpec(name="h800", device_kind="NVIDIA H800", memory=84_942_979_072, memory_bandwidth=3_352 * GB,
                   fast_network=200 * GB, source="NVIDIA H800: H100 SXM5 with NVLink cut to 400 GB/s", **_HOPPER),
        DeviceSpec(name="h200", device_kind="NVIDIA H200", memory=151_397_597_184, memory_bandwidth=4_800 * GB,
                   fast_network=450 * GB, source="NVIDIA H200 SXM data sheet", **_HOPPER),
        DeviceSpec(name="b200", platform="cuda", device_kind="NVIDIA B200", memory=191_514_411_008,
                   memory_bandwidth=7_672 * GB, fast_network=900 * GB, slow_network=50 * GB, num_cores=148,
                   l2_bytes=132_644_864, clock_ghz=1.965, compute_capability="10", source="NVIDIA DGX B200 data sheet"),
        # docs.cloud.google.com/tpu/docs: ICI per chip in both directions, here per ring of the torus (two ports).
        DeviceSpec(name="v5e", platform="tpu", device_kind="TPU v5 lite", memory=16 * GIB, memory_bandwidth=819 * GB,
                   fast_network=90 * GB, slow_network=0, source="Google Cloud TPU v5e; 400 GB/s, 4 ports"),
        DeviceSpec(name="v5p", platform="tpu", device_kind="TPU v5", memory=95 * GIB, memory_bandwidth=2_765 * GB,
                   fast_network=180 * GB, slow_network=0, source="Google Cloud TPU v5p; 4,800 Gb/s, 6 ports"),
        DeviceSpec(name="v6e", platform="tpu", device_kind="TPU v6 lite", memory=32 * GIB, memory_bandwidth=1_638 * GB,
                   fast_network=180 * GB, slow_network=0, source="Google Cloud TPU v6e; 800 GB/s, 4 ports"),
        DeviceSpec(name="tpu7x", platform="tpu", device_kind="TPU7x", memory=96 * GIB, memory_bandwidth=3_690 * GB,
                   fast_network=100 * GB, slow_network=0, cores_per_chip=2,
                   source="Google Cloud TPU7x, half a chip: 1,200 GB/s, 6 ports, two cores to a chip"),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Topology:
    spec: DeviceSpec
    dims: tuple[int, ...]  # (nodes, GPUs of a node), or the chips of a TPU slice along each side

    def __str__(self) -> str:
        return f"{self.spec.name}:{'x'.join(map(str, self.dims))}"

    @property
    def num_devices(self) -> int:
        return math.prod(self.dims) * self.spec.cores_per_chip

    @property
    def devices_per_node(self) -> int:
        """Devices that reach one another on the fast network: a GPU node, or a whole TPU slice."""
        return self.dims[1] if self.spec.platform == "cuda" else self.num_devices

    @property
    def num_nodes(self) -> int:
        return self.num_devices // self.devices_per_node

    @property
    def memory_limit(self) -> int:
        """Bytes that XLA's arena may hold; the rest goes to the CUDA context, NCCL's buffers and libraries."""
        from opencoder_jax.xla_flags import MEMORY_FRACTION

        return int(self.spec.memory * (MEMORY_FRACTION if self.spec.platform == "cuda" else 1.0))


def parse(name: str) -> Topology:
    """`h100:64x8` -> topology. Raises: ValueError naming the choices."""
    kind, _, size = name.partition(":")
    if kind not in DEVICES:
        near = difflib.get_close_matches(kind, DEVICES, 1, 0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"--topology={name}: no device {kind!r}; {hint}there are: {', '.join(DEVICES)}")
    spec = DEVICES[kind]
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", size):
        example = f"{kind}:64x8 (nodes x GPUs)" if spec.platform == "cuda" else f"{kind}:4x4 (chips along each side)"
        raise ValueError(f"--topology={name}: write {example}")
    dims = tuple(int(n) for n in size.split("x"))
    if spec.platform == "cuda":
        dims = (1, *dims) if len(dims) == 1 else dims
        if len(dims) != 2 or dims[1] > 8:
            raise ValueError(f"--topology={name}: write {kind}:NODESxGPUS with at most 8 GPUs to a node")
    elif len(dims) != (2 if kind in ("v5e", "v6e") else 3):
        sides = 2 if kind in ("v5e", "v6e") else 3
        raise ValueError(
            f"--topology={name}: a {kind} slice has {sides} sides, for example {kind}:{'x'.join(['4'] * sides)}"
        )
    return Topology(spec, dims)


def prepare_environment(topology: Topology, compiler: str) -> None:
    """Sets what JAX reads at its start. Call it before anything imports JAX's backends.

    compiler: `device`, the machine's own; `cpu`, fake CPU devices, which give sharding and collectives but neither the
    device's fusions nor its memory.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    # Without these libtpu complains that it is on no TPU; any slice will do, the one compiled for is named later.
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-16")
    # XLA logs a step that does not fit dozens of times; what matters of it comes back as an error or a figure.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if compiler == "cpu":
        rest = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ.get("XLA_FLAGS", ""))
        count = f"--xla_force_host_platform_device_count={topology.num_devices}"
        os.environ["XLA_FLAGS"] = f"{rest} {count}".strip()


def devices(topology: Topology, compiler: str) -> Sequence[Any]:
    """The devices to compile for: abstract ones, or fake CPU devices.

    Raises: ValueError when the device's compiler is not installed, or has no such slice.
    """
    import jax
    from jax.experimental import topologies

    if compiler == "cpu":
        found = jax.devices("cpu")
        if len(found) < topology.num_devices:
            raise ValueError(f"{topology}: this process has {len(found)} CPU devices; call prepare_environment first")
        return found[: topology.num_devices]
    spec = topology.spec
    try:
        if spec.platform == "cuda":
            nodes, gpus = topology.dims
            made = topologies.get_topology_desc(
                platform="cuda", target_config=gpu_target_config(spec), topology=f"1x{nodes}x{gpus}"
            )
        else:
            made = topologies.get_topology_desc(platform="tpu", topology_name=str(topology))
    except Exception as error:  # JaxRuntimeError, RuntimeError, NotImplementedError, by how it is missing
        text = str(error).splitlines()[0]
        if any(
            sign in text.lower() for sign in ("libtpu", "plugin", "backend", "not implemented for", "not installed")
        ):
            text = (
                "its compiler is not installed: uv sync --inexact --extra aot (or --compiler=cpu for collectives only)"
            )
        elif spec.platform == "tpu":
            text += f"; a slice that there is: {spec.name}:{'x'.join(['4'] * len(topology.dims))}"
        raise ValueError(f"--topology={topology}: {text}") from error
    return made.devices


def gpu_target_config(spec: DeviceSpec) -> str:
    """A GpuTargetConfigProto in text form: what XLA's GPU compiler asks of a device.

    The limits common to Hopper and Blackwell are from the CUDA C++ programming guide, table of compute capabilities.
    """
    fields = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "threads_per_core_limit": 2048,
        "shared_memory_per_block": 48 * 1024,
        "shared_memory_per_core": 228 * 1024,
        "shared_memory_per_block_optin": 227 * 1024,
        "registers_per_core_limit": 65536,
        "registers_per_block_limit": 65536,
        "fpus_per_core": 128,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 65535,
        "block_dim_limit_z": 65535,
        "core_count": spec.num_cores,
        "clock_rate_ghz": spec.clock_ghz,
        "memory_bandwidth": int(spec.memory_bandwidth),
        "l2_cache_size": spec.l2_bytes,
        "device_memory_size": spec.memory,
    }
    lines = "\n".join(f"  {name}: {value}" for name, value in fields.items())
    capability = f"major: {spec.compute_capability} feature_extension: ACCELERATED_FEATURES"
    return (
        f"gpu_device_info {{\n{lines}\n  cuda_compute_capability {{ {capability} }}\n"
        f'  name: "{spec.device_kind}"\n}}\nplatform_name: "CUDA"\n'
        f'dnn_version_info {{ major: 9 minor: 10 }}\ndevice_description_str: "{spec.device_kind}"\n'
    )
