"""Compiler options of the training step, in one place, each with its reason.

`compiler_options(platform, overrides)` goes to `lowered.compile(compiler_options=...)`: the options travel with the
compilation (and into its cache key) instead of through the environment, and `plan` compiles with the same ones.
`RunConfig.xla_flags="name=value,name=value"` overrides or adds; `name=` drops one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

# Share of a GPU's memory that XLA's arena takes. The rest holds the CUDA context, cuBLAS workspaces and NCCL's
# buffers, some 5-8 GB on an 80 GB device with hundreds of peers.
MEMORY_FRACTION = 0.92

# Name -> (value, reason).
GPU: dict[str, tuple[bool | int | str, str]] = {
    "xla_gpu_enable_latency_hiding_scheduler": (
        True,
        "moves the start of a collective up and its end down, so that weights of the next layer travel while this one computes",
    ),
    "xla_gpu_enable_triton_gemm": (
        False,
        "the step's products are large and regular: cuBLASLt takes them, and compilation is not spent on tuning Triton tiles",
    ),
    "xla_gpu_all_gather_combine_threshold_bytes": (
        256 * 2**20,
        "one gather per layer and direction: below 256 MiB the seven matrices of an 8B layer (436 MB in bf16) leave in two messages",
    ),
    "xla_gpu_reduce_scatter_combine_threshold_bytes": (256 * 2**20, "as for the gathers, on the way back"),
    "xla_gpu_all_reduce_combine_threshold_bytes": (
        256 * 2**20,
        "norm scales and scalars join one message; larger ones would wait for the last gradient",
    ),
    "xla_gpu_enable_while_loop_unrolling": (
        "WHILE_LOOP_UNROLLING_DOUBLE_BUFFER",
        "two iterations of the layer scan alternate between two sets of buffers, so that a gather pipelined into the iteration before need not copy its result",
    ),
}
# libtpu's defaults already overlap collectives with computation; nothing here has been shown to beat them.
TPU: dict[str, tuple[bool | int | str, str]] = {}


def compiler_options(platform: str, overrides: str = "") -> dict[str, bool | int | str]:
    """Options for a platform (`gpu` or `cuda`, `tpu`, `cpu`), with overrides applied.

    Raises: ValueError when an override is not NAME=VALUE.
    """
    table: Mapping[str, tuple[bool | int | str, str]] = {"gpu": GPU, "cuda": GPU, "tpu": TPU}.get(platform, {})
    options = {name: value for name, (value, _) in table.items()}
    for item in filter(None, (part.strip() for part in overrides.split(","))):
        name, equals, value = item.removeprefix("--").partition("=")
        if not equals or not name.startswith("xla_"):
            raise ValueError(f"xla_flags: {item!r}: write xla_NAME=VALUE, several with commas, xla_NAME= to drop one")
        options[name] = _value(value)
        if value == "":
            del options[name]
    return options


def set_memory_fraction() -> None:
    """Sets the GPU arena's share unless the user did; to be called before JAX meets a device."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", str(MEMORY_FRACTION))


def _value(text: str) -> bool | int | str:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    return int(text) if text.lstrip("-").isdigit() else text
