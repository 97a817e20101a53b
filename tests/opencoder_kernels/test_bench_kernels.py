"""The GPU path of the benchmark over JAX's own profiler, with a fake for the CUPTI library beneath it."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.experimental.mosaic.gpu import profiler

from scripts.benchmarks import bench_kernels


class Cupti:
    """Reports kernels for each call since it was started, the n-th call of all n times as long as the first."""

    def __init__(self, kernels):
        self.kernels, self.calls, self.at_once = kernels, 0, []

    def ran(self, x):
        self.calls += 1
        return x

    def _cupti_init(self):
        self.start = self.calls

    def _cupti_get_timings(self, finalize):
        del finalize
        self.at_once.append(self.calls - self.start)
        return [(name, ms * n) for n in range(self.start + 1, self.calls + 1) for name, ms in self.kernels]


@pytest.fixture
def cupti(monkeypatch):
    def start(*kernels):
        fake = Cupti(kernels)
        monkeypatch.setattr(profiler, "mosaic_gpu_lib", SimpleNamespace(_mosaic_gpu_ext=fake))
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        return fake

    return start


def counted(fake):
    return lambda x: jax.experimental.io_callback(fake.ran, jax.ShapeDtypeStruct((), np.float32), x, ordered=True)


@pytest.mark.parametrize("repeats", [1, 6, 12])
def test_time_of_a_call_is_the_sum_of_its_kernels(cupti, repeats):
    fake = cupti(("product", 2.0), ("epilogue", 0.5))
    times = bench_kernels.kernel_times(counted(fake), (np.float32(0),), repeats)
    assert len(times) == repeats == sum(fake.at_once)
    assert max(fake.at_once) <= bench_kernels.ITERATIONS
    warm_ups = len(fake.at_once)
    assert set(times) <= {2.5 * n for n in range(1, repeats + warm_ups + 1)}
    assert len(set(times)) == repeats


def test_median_is_in_milliseconds_and_a_compiled_function_is_taken(cupti):
    fake = cupti(("product", 1.0))
    ms, _ = bench_kernels.measured(counted(fake), (np.float32(0),), 5)
    assert fake.at_once == [5]
    assert ms == np.median(fake.calls - np.arange(5))


def test_no_kernel_is_no_time(cupti):
    fake = cupti()
    with pytest.raises(RuntimeError, match="saw no kernel"):
        bench_kernels.kernel_times(counted(fake), (np.float32(0),), 3)
