"""FLOPs of hand-written kernels: to the compiler they are custom calls whose inside it does not see."""

from __future__ import annotations

from opencoder_jax.config import ModelConfig
from opencoder_jax.perf.plan.cost import Cost
from opencoder_jax.perf.plan.hlo import Computation, Instruction, Module, Shape

_TARGETS = ("mosaic_gpu", "tpu_custom_call", "__cudnn$fmha")

# Scope of attention kernels without a causal mask: `UNMASKED` in the kernels' attention/ring.py, which imports JAX.
UNMASKED = "unmasked"

# Share of the peak that a plain product reaches: an 8192^3 bf16 product ran at 769-798 of 989 TFLOP/s on one H200; the
# same is assumed of other devices, TPUs included.
MATMUL_EFFICIENCY = 0.79
# Attention kernels reach less of the peak than plain products: forward 595-645, backward 408-452 TFLOP/s on an H100
# at head dim 128 and T 4k-16k (figures published with FlashAttention-3 and tokamax), relative to 989.
ATTENTION_FORWARD_EFFICIENCY, ATTENTION_BACKWARD_EFFICIENCY = 0.62, 0.43


class KernelCosts:
    """Recognises kernels by their operands, so that a renamed kernel is still counted."""

    def __init__(self, model: ModelConfig):
        self.model = model
        self.unknown: dict[str, int] = {}  # kernels whose FLOPs are not known here, by target

    def attention(self, computation: Computation, instruction: Instruction) -> tuple[Cost, float] | None:
        """Cost of an attention kernel and the share of the peak it reaches.

        A forward kernel reads q, k, v and makes two products; a backward one reads the output's gradient too and makes
        three (for dq), four (for dk and dv) or five (for all). A causal product touches half of the T x S pairs; those of
        a ring of devices after its first step touch all, and are in a scope of that name.
        """
        operands = _operands(computation, instruction)
        wide = [s for s in operands if self._is_heads(s) and s.dtype.startswith(("bf", "f"))]
        wide = [s for s in wide if s.dtype == wide[0].dtype]
        made = [s for s in instruction.shapes if self._is_heads(s) and wide and s.dtype == wide[0].dtype]
        if len(wide) < 3 or not made:
            return None
        q, k = wide[0], wide[1]
        keys = max(k.dims[:-1])
        if len(wide) == 3:
            products, efficiency = 2, ATTENTION_FORWARD_EFFICIENCY
        else:
            products, efficiency = {1: 3, 2: 4}.get(len(made), 5), ATTENTION_BACKWARD_EFFICIENCY
        flops = products * 2.0 * q.size * keys * (1.0 if UNMASKED in instruction.op_name.split("/") else 0.5)
        traffic = sum(s.bytes for s in operands) + instruction.bytes
        return Cost(flops, float(traffic), q.dtype), efficiency

    def cost(self, module: Module, computation: Computation, instruction: Instruction) -> tuple[Cost, float] | None:
        """Cost of a kernel, or of a fusion that cuts a kernel's arguments out of larger arrays, and the share of the
        peak it reaches; None for all else."""
        place = find(module, computation, instruction)
        if place is None:
            return None
        found = self.attention(*place) or products(*place)
        if found is None:
            target = place[1].target
            self.unknown[target] = self.unknown.get(target, 0) + 1
        return found

    def _is_heads(self, shape: Shape) -> bool:
        """[..., T, H] or [..., T, N, H]: not the statistics, one value a row, nor the segment ids, which are integers."""
        return len(shape.dims) >= 3 and shape.dims[-1] >= self.model.head_dim


def find(module: Module, computation: Computation, instruction: Instruction) -> tuple[Computation, Instruction] | None:
    """The kernel that an instruction is, or that a fusion holds, and the computation it is in."""
    if instruction.opcode == "custom-call" and instruction.target.startswith(_TARGETS):
        return computation, instruction
    if instruction.opcode == "fusion":
        inside = (module.computations[name] for name in instruction.called())
        return next((place for c in inside for i in c.instructions if (place := find(module, c, i))), None)
    return None


def products(computation: Computation, instruction: Instruction) -> tuple[Cost, float] | None:
    """Cost of a kernel with rows [M, D] and one or more weights [D, F]: one product with each (SwiGLU forwards, and
    backwards where it computes gate and up again; cross-entropy's logits). The share of the peak is assumed.
    """
    operands = _operands(computation, instruction)
    if not operands or len(operands[0].dims) != 2:
        return None
    rows, depth = operands[0].dims
    weights = [s for s in operands[1:] if len(s.dims) == 2 and s.dims[0] == depth and s.dtype == operands[0].dtype]
    if not weights:
        return None
    flops = sum(2.0 * rows * s.size for s in weights)
    traffic = sum(s.bytes for s in operands) + instruction.bytes
    return Cost(flops, float(traffic), operands[0].dtype), MATMUL_EFFICIENCY


def _operands(computation: Computation, instruction: Instruction) -> list[Shape]:
    return [shape for name in instruction.operands for shape in computation.by_name[name].shapes]
