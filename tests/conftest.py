"""What the tests share: one cache of compiled programs, for this process, the processes that tests start, and xdist's workers."""

from __future__ import annotations

import os
import shutil
import tempfile

import pytest

# Before any test module imports JAX. A cache of this run alone: one that is kept would hide what a clean machine compiles.
CACHE = "OPENCODER_TEST_COMPILATION_CACHE"
_made = CACHE not in os.environ
if _made:
    os.environ[CACHE] = tempfile.mkdtemp(prefix="opencoder-jax-cache-")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.environ[CACHE])
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def pytest_unconfigure(config: pytest.Config) -> None:
    if _made:
        shutil.rmtree(os.environ[CACHE], ignore_errors=True)
