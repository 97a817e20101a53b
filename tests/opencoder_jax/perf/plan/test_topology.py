"""Machines by name, and what is rejected."""

from __future__ import annotations

import jax
import pytest

from opencoder_jax import xla_flags
from opencoder_jax.metrics import peak_flops
from opencoder_jax.perf.plan import topology


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


def test_gpu_memory_limit_leaves_space_for_the_runtime():
    machine = topology.parse("h100:1x8")
    assert 5e9 < machine.spec.memory - machine.memory_limit < 8e9


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


class Lowered:
    """Compiles with the options that this XLA knows, and says of others what XLA says."""

    known = frozenset({"xla_gpu_enable_latency_hiding_scheduler", "xla_gpu_enable_triton_gemm"})

    def compile(self, compiler_options):
        for name, value in compiler_options.items():
            if name not in self.known:
                raise jax.errors.JaxRuntimeError(f"INVALID_ARGUMENT: No such compile option: '{name}'")
            if value == "nonsense":
                raise jax.errors.JaxRuntimeError(
                    f"INVALID_ARGUMENT: While setting option {name}, 'nonsense' is not a valid bool value."
                )
        return dict(compiler_options)


def test_options_that_this_xla_does_not_know_are_left_out(monkeypatch):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.8")
    with pytest.warns(UserWarning, match="No such compile option: 'xla_gpu_.*': left out with jax"):
        compiled, record = xla_flags.compile_lowered(Lowered(), "gpu")
    assert compiled.keys() == Lowered.known
    assert record == compiled | {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.8"}
    monkeypatch.setattr(Lowered, "known", frozenset(xla_flags.GPU))
    with pytest.raises(ValueError, match=r"xla_flags: No such compile option: 'xla_gpu_speed'"):
        xla_flags.compile_lowered(Lowered(), "gpu", "xla_gpu_speed=11")
    with pytest.raises(ValueError, match=r"xla_flags: While setting option .* is not a valid bool value"):
        xla_flags.compile_lowered(Lowered(), "gpu", "xla_gpu_enable_triton_gemm=nonsense")


def test_an_unknown_option_of_the_user_is_rejected_by_the_compiler_itself():
    lowered = jax.jit(lambda x: x + 1).lower(1.0)
    with pytest.raises(ValueError, match="No such compile option: 'xla_gpu_speed'"):
        xla_flags.compile_lowered(lowered, "cpu", "xla_gpu_speed=11")


def test_this_xla_knows_every_option_of_the_tables():
    """XLA reads the options of all platforms wherever it runs; the oldest jax supported has them too (make test-lowest)."""
    lowered = jax.jit(lambda x: x + 1).lower(1.0)
    for name, (value, _) in (xla_flags.GPU | xla_flags.TPU).items():
        assert lowered.compile(compiler_options={name: value})(1.0) == 2
