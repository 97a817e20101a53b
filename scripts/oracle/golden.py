"""Writes what the oracle computes for small models into tests/opencoder_jax/golden/llama.npz.

    PYTHONPATH=scripts python -m oracle.golden

The quick tests compare with these arrays; the tests marked `oracle` compare with the oracle itself. Weights and
batches come from seeds (numpy's frozen RandomState), so that only results are stored.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from oracle.client import ROOT, call
from safetensors.numpy import save_file

from opencoder_jax.config import DataConfig, MeshConfig, ModelConfig, RunConfig, ScheduleConfig
from opencoder_jax.hf import mapping as hf

GOLDEN = ROOT / "tests" / "opencoder_jax" / "golden" / "llama.npz"
STEPS, B, T, NEW = 50, 2, 24, 24

# Both published families, made small: head dim 160 with as many key/value heads; grouped queries and the other base.
FAMILIES = {
    "mha160": ModelConfig(
        num_layers=2, embed_dim=320, num_query_heads=2, num_kv_heads=2, head_dim=160, ffn_dim=352, vocab_size=160,
        max_seq_len=128, compute_dtype="float32", remat="none",
    ),
    "gqa": ModelConfig(
        num_layers=2, embed_dim=64, num_query_heads=8, num_kv_heads=2, head_dim=16, ffn_dim=160, vocab_size=160,
        max_seq_len=128, rope_theta=500_000.0, compute_dtype="float32", remat="none",
    ),
}  # fmt: skip


def weights(cfg: ModelConfig, seed: int) -> dict[str, np.ndarray]:
    """Random fp32 tensors under their Hugging Face names: matrices of deviation 0.08, norm scales around 1."""
    draw = np.random.RandomState(seed)
    tensors = {}
    for row in hf.table(cfg):
        noise = draw.standard_normal(row.shape)
        tensors[row.name] = (0.08 * noise if len(row.shape) > 1 else 1 + 0.1 * noise).astype(np.float32)
    return tensors


def batches(cfg: ModelConfig, seed: int, steps: int) -> dict[str, Any]:
    """tokens, targets int64 [steps, B, T]; mask float32 with some zeros.

    Every batch is new text of one noisy source (four times in five a token's successor is fixed): something to learn, but
    nothing to learn by heart, where losses near 0 would magnify the last digit.
    """
    draw = np.random.RandomState(1_000 + seed)
    common = cfg.vocab_size // 8
    successor = draw.permutation(common)
    jumps, fresh = draw.rand(steps, B, T + 1) < 0.2, draw.randint(0, common, (steps, B, T + 1))
    records = fresh.astype(np.int64)
    for t in range(1, T + 1):
        records[..., t] = np.where(jumps[..., t], fresh[..., t], successor[records[..., t - 1]])
    return {
        "tokens": records[..., :-1],
        "targets": records[..., 1:],
        "mask": (draw.rand(steps, B, T) < 0.9).astype(np.float32),
    }


def run_config(cfg: ModelConfig) -> RunConfig:
    return RunConfig(
        name="parity",
        model=cfg,
        mesh=MeshConfig(fsdp=1),
        data=DataConfig(seq_len=T, global_batch_size=B),
        schedule=ScheduleConfig(peak=1e-3, final=1e-4, warmup_steps=5, decay_steps=20),
        num_steps=STEPS,
    )


def rates(config: RunConfig) -> np.ndarray:
    from opencoder_jax.optimizer import learning_rate

    schedule = learning_rate(config.schedule, config.num_steps)
    return np.array([float(np.asarray(schedule(step))) for step in range(config.num_steps)])


def save_model(directory: str | Path, cfg: ModelConfig, tensors: dict[str, np.ndarray]) -> None:
    fields = hf.hf_config(cfg, dtype="float32", bos_token_id=None, eos_token_id=None)
    (Path(directory) / "config.json").write_text(json.dumps(fields))
    save_file(
        {k: np.ascontiguousarray(v) for k, v in tensors.items()},
        Path(directory) / "model.safetensors",
        {"format": "pt"},
    )


def prompts(cfg: ModelConfig, seed: int) -> dict[str, Any]:
    """Three prompts of 4, 7 and 11 tokens, left-padded with 0; mask int64."""
    draw = np.random.RandomState(2_000 + seed)
    tokens, mask = np.zeros((3, 11), np.int64), np.zeros((3, 11), np.int64)
    for row, n in enumerate((4, 7, 11)):
        tokens[row, -n:] = draw.randint(1, cfg.vocab_size, n)
        mask[row, -n:] = 1
    return {"tokens": tokens, "mask": mask}


def adamw(config: RunConfig) -> dict[str, Any]:
    o = config.optimizer
    return {"adamw": np.array([o.b1, o.b2, o.eps, o.weight_decay]), "clip": np.array(o.clip_norm)}


def oracle_results(cfg: ModelConfig, seed: int, directory: str | Path) -> dict[str, np.ndarray]:
    """logits, loss, grad.*; losses of the trajectory; greedy tokens."""
    save_model(directory, cfg, weights(cfg, seed))
    config = run_config(cfg)
    inputs: dict[str, dict[str, Any]] = {
        "gradients": {name: array[0] for name, array in batches(cfg, seed, 1).items()},
        "train": batches(cfg, seed, STEPS) | {"rates": rates(config)} | adamw(config),
        "generate": prompts(cfg, seed) | {"steps": NEW},
    }
    arrays = {f"{command}.{name}": array for command, group in inputs.items() for name, array in group.items()}
    return {name.split(".", 1)[1]: array for name, array in call("parity", directory, **arrays).items()}


def sample(name: str, array: np.ndarray) -> np.ndarray:
    """What is stored of an array: gradients as norm and a spread of 32 entries, logits of every sixth token."""
    if name.startswith("grad."):
        flat = array.ravel()
        return np.concatenate([[np.linalg.norm(flat)], flat[:: max(1, flat.size // 32)][:32]]).astype(np.float32)
    return array[:, ::6] if name == "logits" else array


def main() -> None:
    arrays = {}
    for family, cfg in FAMILIES.items():
        with tempfile.TemporaryDirectory() as directory:
            for name, array in oracle_results(cfg, 0, directory).items():
                arrays[f"{family}/{name}"] = sample(name, array)
    GOLDEN.parent.mkdir(exist_ok=True)
    np.savez_compressed(GOLDEN, config=np.array(json.dumps({k: asdict(v) for k, v in FAMILIES.items()})), **arrays)
    print(f"{GOLDEN}: {GOLDEN.stat().st_size:,} bytes, {len(arrays)} arrays")


if __name__ == "__main__":
    main()
