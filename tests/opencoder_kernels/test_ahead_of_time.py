"""Every kernel compiles at the 1.5B and 8B shapes for an H200, TPU v5p and TPU v6e, none of which is here.

The assembler's spill stores are held to a budget per kernel (bytes per thread; 0 is the aim, and what is above it is a
few values around a loop). Every kernel runs 3 warpgroups and so is assembled with 168 registers a thread, which the
computing warpgroups raise to 232 at run time.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.aot,
    pytest.mark.skipif(importlib.util.find_spec("jax_cuda13_plugin") is None, reason="needs the extra [aot]"),
]

# Kernels in the order of compilation; bytes of spill stores allowed.
BUDGETS = {
    ("attention", "8b"): [16],
    ("attention", "1p5b"): [32],
    ("attention_backward", "8b"): [16, 128, 0],  # forward, d keys and values, d queries
    ("attention_backward", "1p5b"): [32, 256, 0],
    ("swiglu", "8b"): [0],
    ("swiglu", "1p5b"): [0],
    ("swiglu_backward", "8b"): [0],
    ("swiglu_backward", "1p5b"): [0],
}


def compile_for(name: str, shape: str, device: str) -> str:
    command = [sys.executable, "-m", "tests.opencoder_kernels.aot_programs", name, shape, device]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert "COMPILED" in done.stdout, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.parametrize(("name", "shape"), BUDGETS)
def test_hopper(name, shape):
    report = compile_for(name, shape, "h200")
    spills = [int(n) for n in re.findall(r"bytes stack frame, (\d+) bytes spill stores", report)]
    registers = [int(n) for n in re.findall(r"Used (\d+) registers", report)]
    budget = BUDGETS[name, shape]
    assert len(spills) == len(budget), report[-3000:]
    assert all(s <= b for s, b in zip(sorted(spills), sorted(budget), strict=True)), (spills, budget)
    assert max(registers) <= 168, registers


@pytest.mark.parametrize("device", ["v5p", "v6e"])
@pytest.mark.parametrize("shape", ["8b", "1p5b"])
def test_tpu(shape, device):
    compile_for("attention_backward", shape, device)
