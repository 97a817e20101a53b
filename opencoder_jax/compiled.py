"""What is read of the compiled training step: its memory on a device and its HLO text. One definition for train, plan,
profile, sweep and timing. Imports no JAX.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Names of the files: the step before (StableHLO) and after optimization (HLO, scheduled).
STABLEHLO, OPTIMIZED_HLO = "train_step.stablehlo.mlir", "train_step.optimized.hlo"


@dataclass(frozen=True)
class StepMemory:
    """Bytes on one device, as the compiler counted them.

    Attributes:
      arguments: state and batch.
      results: those that reuse no argument's memory.
      temporaries: activations, gradients, gathered weights, workspaces.
      code: the program itself; not in the peak, since it is not allocated in the arena.
    """

    arguments: int
    results: int
    temporaries: int
    code: int

    @property
    def peak(self) -> int:
        """Bytes that have to be there while the step runs."""
        return self.arguments + self.results + self.temporaries


def step_memory(compiled: Any) -> StepMemory | None:
    """Memory of a `jax.stages.Compiled`; None where its backend does not count it."""
    stats = compiled.memory_analysis()
    if stats is None:
        return None
    return StepMemory(
        arguments=stats.argument_size_in_bytes,
        results=max(0, stats.output_size_in_bytes - stats.alias_size_in_bytes),
        temporaries=stats.temp_size_in_bytes,
        code=stats.generated_code_size_in_bytes,
    )


def write_hlo(directory: Path, optimized: str, stablehlo: str | None = None) -> list[Path]:
    """Writes the text of the step after optimization, and before it where given; returns the files."""
    directory.mkdir(parents=True, exist_ok=True)
    texts = {OPTIMIZED_HLO: optimized} | ({} if stablehlo is None else {STABLEHLO: stablehlo})
    for name, text in texts.items():
        (directory / name).write_text(text, encoding="utf-8")
    return [directory / name for name in texts]
