"""FLOPs and memory traffic of the instructions of a compiled module, from its text."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from opencoder_jax.perf.plan.hlo import Computation, Instruction, Module, Shape

# Neither read nor write memory by themselves.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "while", "call", "conditional",
    "partition-id", "replica-id", "opt-barrier", "add-dependency", "async-update", "async-done", "domain",
}  # fmt: skip
_GEMM_TARGETS = (
    "__cublas$gemm",
    "__cublas$lt$matmul",
    "__cublas$lt$matmul$f8",
    "__cudnn$conv",
    "__cublas$lt$groupedMatmul",
)


@dataclass(frozen=True)
class Cost:
    flops: float = 0.0
    bytes: float = 0.0
    flops_dtype: str = "bf16"  # operand type of the products, which sets the peak

    def __add__(self, other: Cost) -> Cost:
        dtype = self.flops_dtype if self.flops >= other.flops else other.flops_dtype
        return Cost(self.flops + other.flops, self.bytes + other.bytes, dtype)


def instruction_cost(module: Module, computation: Computation, instruction: Instruction) -> Cost:
    """Cost of one run of an instruction of an executed computation; what it calls (loops, calls) is not in it."""
    op = instruction.opcode
    if op in _FREE or op.endswith("-done"):
        return Cost()
    if op in ("fusion", "fusion-start", "async-start"):
        return _fusion_cost(module, computation, instruction)
    flops, dtype = product_flops(computation, instruction)
    return Cost(flops, _plain_bytes(computation, instruction), dtype)


def product_flops(computation: Computation, instruction: Instruction) -> tuple[float, str]:
    """FLOPs (2 per multiply-add) and operand type of a dot, convolution or library matmul, else 0."""
    op = instruction.opcode
    if op not in ("dot", "convolution") and not (op == "custom-call" and instruction.target in _GEMM_TARGETS):
        return 0.0, "bf16"
    lhs, rhs = (_operand_shape(computation, instruction, i) for i in (0, 1))
    if op == "convolution":
        return _convolution_flops(instruction, lhs, rhs), lhs.dtype
    if op == "dot":
        found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
        contracted = [int(n) for n in found.group(1).split(",") if n] if found else []
    else:
        found = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', instruction.attributes)
        contracted = [int(n.strip('"')) for n in found.group(1).split(",") if n] if found else []
    depth = math.prod(lhs.dims[i] for i in contracted)
    return 2.0 * instruction.shapes[0].size * depth, lhs.dtype


def _convolution_flops(instruction: Instruction, lhs: Shape, rhs: Shape) -> float:
    """TPUs run matmuls as convolutions; padding and dilation that meet no data are not counted."""
    labels = re.search(r"dim_labels=(\S+?)_(\S+?)->([^\s,]+)", instruction.attributes)
    assert labels is not None, instruction.attributes
    lhs_labels, rhs_labels, out_labels = labels.groups()
    spatial = [c for c in out_labels if c.isdigit()]
    window_text = re.search(r"window=\{([^}]*)\}", instruction.attributes)
    window = dict(re.findall(r"(\w+)=([\d_x\-]+)", window_text.group(1))) if window_text else {}
    flops = 2.0 * rhs.dims[rhs_labels.index("i")]
    out = instruction.shapes[0]
    flops *= out.dims[out_labels.index("b")] * out.dims[out_labels.index("f")]
    for i, c in enumerate(spatial):
        flops *= _valid_positions(
            n_in=lhs.dims[lhs_labels.index(c)],
            n_out=out.dims[out_labels.index(c)],
            size=_window(window, "size", i, 1),
            stride=_window(window, "stride", i, 1),
            pad=_window_pad(window, i),
            lhs_dilate=_window(window, "lhs_dilate", i, 1),
            rhs_dilate=_window(window, "rhs_dilate", i, 1),
        )
    return flops


def _valid_positions(
    *, n_in: int, n_out: int, size: int, stride: int, pad: int, lhs_dilate: int, rhs_dilate: int
) -> int:
    if size == 1 and stride == 1 and pad == 0 and lhs_dilate == 1:
        return n_out
    count = 0
    for k in range(size):
        for o in range(n_out):
            at = o * stride + k * rhs_dilate - pad
            count += at % lhs_dilate == 0 and 0 <= at // lhs_dilate < n_in
    return count


def _window(window: dict[str, str], key: str, i: int, default: int) -> int:
    return int(window[key].split("x")[i]) if key in window else default


def _window_pad(window: dict[str, str], i: int) -> int:
    return int(window["pad"].split("x")[i].split("_")[0]) if "pad" in window else 0


def _operand_shape(computation: Computation, instruction: Instruction, i: int) -> Shape:
    return computation.by_name[instruction.operands[i]].shapes[0]


def _plain_bytes(computation: Computation, instruction: Instruction) -> float:
    """Operands read once and the result written once; slices and updates touch only their part."""
    op = instruction.opcode
    if op == "copy-start":  # (copy, original, context)
        return float(sum(s.traffic for s in instruction.shapes[:2]))
    if op in ("slice-start", "dynamic-slice-start"):  # ((operands), slice, context): a TPU's copy into on-chip memory
        return float(instruction.shapes[0].traffic and instruction.shapes[-2].bytes)
    if op in ("dynamic-slice", "slice", "gather"):
        source = computation.by_name[instruction.operands[0]]
        return float((source.traffic and instruction.bytes) + instruction.traffic)
    if op in ("dynamic-update-slice", "scatter"):
        update = instruction.operands[1 if op == "dynamic-update-slice" else -1]
        return 2.0 * computation.by_name[update].traffic
    read = sum(computation.by_name[name].traffic for name in set(instruction.operands) if name in computation.by_name)
    return float(read + instruction.traffic)


def _fusion_cost(module: Module, computation: Computation, instruction: Instruction) -> Cost:
    flops, dtype, traffic = 0.0, "bf16", 0.0
    for name in instruction.called():
        inner = module.computations[name]
        inside, inside_dtype = _inner_flops(module, inner)
        if inside > flops:
            dtype = inside_dtype
        flops += inside
        traffic += _inner_bytes(inner)
    return Cost(flops, traffic, dtype)


def _inner_flops(module: Module, computation: Computation) -> tuple[float, str]:
    total, dtype = 0.0, "bf16"
    for instruction in computation.instructions:
        flops, kind = product_flops(computation, instruction)
        if instruction.opcode in ("fusion", "call"):
            for name in instruction.called():
                inside, kind = _inner_flops(module, module.computations[name])
                flops += inside
        if flops:
            dtype = kind
        total += flops
    return total, dtype


def _inner_bytes(inner: Computation) -> float:
    """What a fusion reads of its parameters and writes: of a parameter that is only sliced, the slices."""
    users = inner.users()
    total = 0.0
    for instruction in inner.instructions:
        if instruction.opcode == "parameter":
            total += _bytes_read(inner, instruction, users)
    for written in _roots(inner):
        total += _bytes_written(inner, written)
    return total


def _bytes_read(inner: Computation, parameter: Instruction, users: dict[str, list[Instruction]]) -> float:
    total, pending, seen = 0.0, [parameter], set()
    while pending:
        value = pending.pop()
        for user in users.get(value.name, []):
            if user.name in seen:
                continue
            seen.add(user.name)
            if user.opcode == "bitcast":
                pending.append(user)
            elif user.opcode in ("dynamic-slice", "slice", "gather") and user.operands[0] == value.name:
                total += user.bytes if parameter.traffic else 0
            elif user.opcode in ("dynamic-update-slice", "scatter") and user.operands[0] == value.name:
                pass  # updated in place
            else:
                return float(parameter.traffic)
    return min(total, float(parameter.traffic))


def _roots(inner: Computation) -> list[Instruction]:
    root = inner.root
    return [inner.by_name[name] for name in root.operands] if root.opcode == "tuple" else [root]


def _bytes_written(inner: Computation, value: Instruction) -> float:
    while value.opcode == "bitcast":
        value = inner.by_name[value.operands[0]]
    if value.opcode == "dynamic-update-slice":
        return float(inner.by_name[value.operands[1]].traffic)
    if value.opcode == "parameter":
        return 0.0
    return float(value.traffic)
