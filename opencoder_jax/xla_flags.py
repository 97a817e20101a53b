"""Compiler options of the training step, in one place, each with its reason.

`compile_lowered` gives them to `lowered.compile(compiler_options=...)`: the options travel with the compilation (and
into its cache key) instead of through the environment, and `plan`, `profile` and `sweep` compile with the same ones.
`RunConfig.xla_flags="name=value,name=value"` overrides or adds; `name=` drops one.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from typing import Any

# Share of a GPU's memory that XLA's arena takes. The rest holds the CUDA context, cuBLAS workspaces and NCCL's
# buffers, some 5-8 GB on an 80 GB device with hundreds of peers.
MEMORY_FRACTION = 0.92
_FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION"

# Name -> (value, reason). Pipelined collectives have no option of their own any more (jax 0.11.2 and 0.12.0.1 know none):
# XLA pipelines those of the layer scan by itself.
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
    "xla_gpu_reduce_scatter_combine_threshold_bytes": (256 * 2**20, "as for the gathers, in the backward pass"),
    "xla_gpu_all_reduce_combine_threshold_bytes": (
        256 * 2**20,
        "norm scales and scalars join one message; larger ones would wait for the last gradient",
    ),
    "xla_gpu_enable_while_loop_unrolling": (
        "WHILE_LOOP_UNROLLING_DOUBLE_BUFFER",
        "two iterations of the layer scan alternate between two sets of buffers, so that a gather pipelined into the iteration before need not copy its result",
    ),
    "xla_gpu_memory_limit_slop_factor": (
        112,
        "per cent of (0.8 x the device's memory - arguments) up to which XLA computes nothing again by itself, kernels included; its 95 wastes a third of the arena (0.8 x 1.12 = 0.9, the arena has 0.92)",
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


def compile_lowered(lowered: Any, platform: str, overrides: str = "") -> tuple[Any, dict[str, bool | int | str]]:
    """The compiled program, and what a run records: the options it was compiled with and, on a GPU, the arena's share.

    An option of the tables above that the XLA available does not know (any more, or yet) is dropped with a warning: the
    step computes the same without it. Args: lowered: a `jax.stages.Lowered`. overrides: as for `compiler_options`.
    Raises: ValueError when the option that XLA rejects is in `overrides`; JaxRuntimeError for other failures.
    """
    import jax

    options = compiler_options(platform, overrides)
    asked = {part.strip().removeprefix("--").partition("=")[0] for part in overrides.split(",")}
    while True:
        try:
            compiled = lowered.compile(compiler_options=options)
            break
        except jax.errors.JaxRuntimeError as error:
            rejected = re.search(r"No such compile option: '(\w+)'|While setting option (\w+), .*", str(error))
            name = rejected and (rejected.group(1) or rejected.group(2))
            if rejected is None or name not in options:
                raise
            if name in asked:
                raise ValueError(f"xla_flags: {rejected.group(0)}") from error
            warnings.warn(f"{rejected.group(0)}: left out with jax {jax.__version__}", stacklevel=2)
            del options[name]
    record = dict(options)
    if platform in ("gpu", "cuda") and _FRACTION in os.environ:
        record[_FRACTION] = os.environ[_FRACTION]
    return compiled, record


def set_memory_fraction() -> None:
    """Sets the GPU arena's share unless the user did; to be called before JAX meets a device."""
    os.environ.setdefault(_FRACTION, str(MEMORY_FRACTION))


def _value(text: str) -> bool | int | str:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    return int(text) if text.lstrip("-").isdigit() else text
