"""Machines by name, and what is refused."""

from __future__ import annotations

import subprocess
import sys

import pytest

from opencoder_jax import xla_flags
from opencoder_jax.metrics import peak_flops
from opencoder_jax.plan import topology


@pytest.mark.parametrize(
    ("name", "devices", "nodes"),
    [("h100:64x8", 512, 64), ("h200:8", 8, 1), ("b200:2x4", 8, 2), ("v5p:8x8x4", 256, 1), ("v6e:4x4", 16, 1), ("tpu7x:2x2x1", 8, 1)],
)  # fmt: skip
def test_names(name, devices, nodes):
    found = topology.parse(name)
    assert (found.num_devices, found.num_nodes) == (devices, nodes)


@pytest.mark.parametrize("spec", topology.DEVICES.values(), ids=lambda s: s.name)
def test_every_device_has_a_peak(spec):
    assert peak_flops(spec.device_kind)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("h10:8", "did you mean h100"),
        ("h100", "write h100:64x8"),
        ("h100:4x16", "at most 8 GPUs"),
        ("h100:0x8", "write h100:64x8"),
        ("v5p:4x4", "3 sides"),
        ("v5e:4x4x4", "2 sides"),
    ],
)
def test_bad_names(name, message):
    with pytest.raises(ValueError, match=message):
        topology.parse(name)


def test_gpu_memory_limit_leaves_room_for_the_runtime():
    machine = topology.parse("h100:1x8")
    assert 5e9 < machine.spec.memory - machine.memory_limit < 8e9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=tiny"], "no --topology"),
        (["--config=tiny", "--topology=z100:8"], "no device 'z100'"),
        (["--config=tiny", "--topology=h100:1x8", "--compiler=gcc"], "choose device or cpu"),
        (["--config=tiny", "--topology=h100:1x8", "--compiler=cpu", "--mesh.fsdp=3"], "does not make 8 devices"),
        (["--config=tiny", "--topology=h100:1x6", "--compiler=cpu", "--mesh.fsdp=6"], "not divisible"),
    ],
)
def test_refusals_are_one_line(arguments, message):
    done = subprocess.run(
        [sys.executable, "-m", "opencoder_jax.plan", *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_compiler_options():
    assert xla_flags.compiler_options("cpu") == {}
    gpu = xla_flags.compiler_options(
        "gpu", "xla_gpu_enable_triton_gemm=true,xla_gpu_all_gather_combine_threshold_bytes=1"
    )
    assert gpu["xla_gpu_enable_triton_gemm"] is True
    assert gpu["xla_gpu_all_gather_combine_threshold_bytes"] == 1
    assert "xla_gpu_enable_triton_gemm" not in xla_flags.compiler_options("gpu", "xla_gpu_enable_triton_gemm=")
    assert all(reason for _, reason in xla_flags.GPU.values())
    with pytest.raises(ValueError, match="write xla_NAME=VALUE"):
        xla_flags.compiler_options("gpu", "triton")
