"""Every kernel compiles at the 1.5B and 8B shapes for an H100, an H200, a TPU v5p and a TPU v6e, none of which is here.

The loss compiles for a part of the vocabulary too, as a device has it over the mesh axis tensor.

Held to budgets: what the assembler says of each GPU kernel (registers a thread; bytes of spill stores, 0 being the aim, and
what is above it a few values around a loop), and the temporaries of the linear cross-entropy. Kernels of 3 warpgroups are
assembled with 168 registers a thread, which the computing ones raise to 232 at run time.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import subprocess
import sys

import pytest

from tests.opencoder_kernels.aot_programs import PROGRAMS

pytestmark = [
    pytest.mark.aot,
    pytest.mark.skipif(importlib.util.find_spec("jax_cuda13_plugin") is None, reason="needs the extra [aot]"),
]

# (registers, bytes of spill stores) allowed, kernel by kernel in the order of compilation. jax 0.12 does not assemble again
# what an earlier program of the list needed too (the forward kernels, d logits of a chunk); 0.11 does.
BUDGETS = {
    ("attention", "8b"): [(168, 16)],
    ("attention", "1p5b"): [(168, 32)],
    ("attention_backward", "8b"): [(168, 16), (168, 128), (168, 0)],  # forward, d keys and values, d queries
    ("attention_backward", "1p5b"): [(168, 32), (168, 256), (168, 0)],
    ("swiglu", "8b"): [(168, 0)],
    ("swiglu", "1p5b"): [(168, 0)],
    ("swiglu_backward", "8b"): [(168, 0)],
    ("swiglu_backward", "1p5b"): [(168, 0)],
    ("rms_norm", "8b"): [(72, 0)],
    ("rms_norm", "1p5b"): [(88, 0)],
    ("rms_norm_backward", "8b"): [(72, 0), (240, 0)],
    ("rms_norm_backward", "1p5b"): [(88, 0), (248, 0)],
    ("linear_cross_entropy", "8b"): [(168, 0)],
    ("linear_cross_entropy", "1p5b"): [(168, 0)],
    ("linear_cross_entropy_backward", "8b"): [(168, 0), (128, 0)],  # logits and statistics, d logits
    ("linear_cross_entropy_backward", "1p5b"): [(168, 0), (128, 0)],
    ("linear_cross_entropy", "8b_tensor4"): [(168, 0)],
    ("linear_cross_entropy", "8b_tensor8"): [(168, 0)],
    ("linear_cross_entropy_backward", "8b_tensor4"): [(168, 0), (128, 0)],
    ("linear_cross_entropy_backward", "8b_tensor8"): [(168, 0), (128, 0)],
}
LOSS_TEMPORARIES = 1e9  # bytes, of 8,192 tokens x 96,640, above arguments and gradients


@functools.cache
def reports(device: str) -> dict[str, str]:
    """Program -> what was printed while it was compiled; one process for all of a device."""
    command = [sys.executable, "-m", "tests.opencoder_kernels.aot_programs", device]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=580, check=False
    )
    parts = re.split(r"^PROGRAM (.*)$", done.stdout, flags=re.MULTILINE)
    assert len(parts) == 1 + 2 * len(PROGRAMS), done.stdout[-3000:]
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def compiled(device: str, name: str, shape: str) -> tuple[str, int]:
    """(report, bytes of temporaries)."""
    report = reports(device)[f"{name}:{shape}"]
    found = re.search(r"COMPILED temporaries (\d+)", report)
    assert found, report[-3000:]
    return report, int(found[1])


def check_loss(name: str, temporaries: int):
    if name.startswith("linear_cross_entropy"):
        assert temporaries < LOSS_TEMPORARIES


@pytest.mark.parametrize("device", ["h100", "h200"])
@pytest.mark.parametrize(("name", "shape"), BUDGETS)
def test_hopper(name, shape, device):
    report, temporaries = compiled(device, name, shape)
    kernels = [
        (int(registers), int(spilled))
        for spilled, registers in re.findall(
            r"bytes stack frame, (\d+) bytes spill stores.*?Used (\d+) registers", report, flags=re.DOTALL
        )
    ]
    assert kernels, report[-3000:]
    allowed = iter(BUDGETS[name, shape])  # used up from kernel to kernel
    assert all(any(r <= most and s <= spills for most, spills in allowed) for r, s in kernels), kernels
    check_loss(name, temporaries)


@pytest.mark.parametrize("device", ["v5p", "v6e"])
@pytest.mark.parametrize(("name", "shape"), PROGRAMS)
def test_tpu(name, shape, device):
    check_loss(name, compiled(device, name, shape)[1])
