"""What the trainer's tests share: a model of 20,000 weights, shards of a learnable stream, runs in other processes."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from opencoder_data.shard_format import ShardWriter

from opencoder_jax import overrides
from opencoder_jax.config import (
    CheckpointConfig,
    DataConfig,
    MeshConfig,
    ModelConfig,
    RunConfig,
    ScheduleConfig,
    SourceConfig,
)

ROOT = Path(__file__).parents[2]
VOCAB, T = 64, 32
# Tests that compile much and compute little.
FAST_COMPILE = "--xla_backend_optimization_level=0"


def micro_config(*sources: Path | str, **changes: object) -> RunConfig:
    """Divisible by every mesh of eight devices: 8 heads, 8 kv heads, batch 8, T 32; fp32. changes: dotted overrides."""
    model = ModelConfig(
        num_layers=2,
        embed_dim=32,
        num_query_heads=8,
        num_kv_heads=8,
        head_dim=4,
        ffn_dim=64,
        vocab_size=VOCAB,
        max_seq_len=T,
        compute_dtype="float32",
        remat="none",
    )
    config = RunConfig(
        name="micro",
        model=model,
        mesh=MeshConfig(),
        data=DataConfig(
            tuple(SourceConfig(str(s)) for s in sources), seq_len=T, global_batch_size=8, max_epochs=1000.0
        ),
        schedule=ScheduleConfig(peak=3e-3, warmup_steps=5),
        checkpoint=CheckpointConfig(save_minutes=60, keep_every=0),
        num_steps=20,
        log_every=1,
    )
    return overrides.apply(config, {name: str(value) for name, value in changes.items()})


def write_shards(
    directory: Path, *, records: int = 64, seed: int = 0, step: int = 1, tokenizer_hash: str = "t"
) -> Path:
    """Documents of some 20 tokens, each token `step` more than the last but for a tenth of noise: soon learnt."""
    rng = np.random.default_rng(seed)
    with ShardWriter(directory, seq_len=T, vocab_size=VOCAB, tokenizer_hash=tokenizer_hash, pad_id=0) as writer:
        total = 0
        while total < records * T:
            n = int(rng.integers(8, 32))
            ids = (rng.integers(VOCAB) + step * np.arange(n)) % VOCAB
            noise = rng.random(n) < 0.1
            ids[noise] = rng.integers(VOCAB, size=int(noise.sum()))
            writer.add(ids, text_bytes=3 * n)
            total += n
    return directory


def environment(variables: dict[str, str]) -> dict[str, str]:
    """Of a child process: one CPU device with one thread unless told otherwise, no inherited cluster."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_", "SLURM_", "OMPI_"))}
    cache = {k: v for k, v in os.environ.items() if k.startswith(("JAX_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE"))}
    return kept | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)} | cache | variables


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def fake_devices(count: int, *flags: str) -> dict[str, str]:
    return {"XLA_FLAGS": " ".join((f"--xla_force_host_platform_device_count={count}", *flags))}


def run_python(code: str, *arguments: str, variables: dict[str, str], timeout: float = 240) -> Any:
    """Runs code that prints one JSON line last; returns it. Raises AssertionError with the child's errors."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment(variables),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@dataclass
class Trainer:
    """`python -m opencoder_jax.train` on `micro_config`, with the overrides and variables of all its runs."""

    directory: Path
    overrides: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)

    def start(
        self,
        run: str,
        *,
        variables: dict[str, str] | None = None,
        before: Callable[[], None] | None = None,
        patch: str = "",
        stdout: Any = subprocess.PIPE,
        **changes: Any,
    ) -> subprocess.Popen[str]:
        """before: called in the child before it becomes Python. patch: code of the configuration's file, which is run within
        the trainer: what it replaces there is a fault. changes: overrides with __ for the dot."""
        config = self.directory / (
            f"micro_{hashlib.sha256(patch.encode()).hexdigest()[:8]}.py" if patch else "micro.py"
        )
        config.write_text(
            f"{patch}\nfrom tests.opencoder_jax.training import micro_config\n"
            f"def config():\n    return micro_config({str(self.directory / 'shards')!r})\n"
        )
        if not (self.directory / "shards").exists():
            write_shards(self.directory / "shards")
        values = self.overrides | {name.replace("__", "."): value for name, value in changes.items()}
        return subprocess.Popen(
            [sys.executable, "-m", "opencoder_jax.train", f"--config={config}", f"--run_dir={self.directory / run}"]
            + [f"--{name}={value}" for name, value in values.items()],
            env=environment({"XLA_FLAGS": FAST_COMPILE} | self.variables | (variables or {})),
            cwd=self.directory,
            preexec_fn=before,
            stdout=stdout,
            stderr=subprocess.STDOUT if stdout is subprocess.PIPE else subprocess.PIPE,
            text=True,
        )

    def run(self, run: str, *, code: int = 0, timeout: float = 240, **changes: Any) -> str:
        """Runs to the end; returns what it printed. Raises AssertionError for another exit code."""
        process = self.start(run, **changes)
        try:
            printed, _ = process.communicate(timeout=timeout)
        finally:
            process.kill()
        assert process.returncode == code, f"exit code {process.returncode}:\n{printed[-4000:]}"
        return printed

    def rows(self, run: str) -> list[dict[str, Any]]:
        path = self.directory / run / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def losses(self, run: str) -> list[float]:
        """Loss of every step from 1, each exactly once."""
        rows = self.rows(run)
        assert [r["step"] for r in rows] == list(range(1, len(rows) + 1))
        return [r["loss"] for r in rows]
