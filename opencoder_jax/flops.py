"""Numbers defined once: peak FLOP/s of a device, FLOPs per token of a model, model FLOPs utilization. No JAX."""

from __future__ import annotations

import re
from typing import NamedTuple

from opencoder_jax.config import ModelConfig

# Dense bf16 peak FLOP/s of one device (without sparsity), by a word of JAX's device_kind; the first that fits counts.
# NVIDIA: data sheets of A100, H100 (SXM 989, NVL 835, PCIe 756), H200, DGX B200, GB200. TPU: cloud.google.com/tpu/docs.
PEAK_FLOPS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H800": 989e12,
    "H200": 989e12,
    "GH200": 989e12,
    "GB200": 2500e12,
    "B200": 2250e12,
    "A100": 312e12,
    "A800": 312e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU7x": 2307e12,
}


# Parts of a card: MIG slices ("... MIG 1g.10gb") and virtual GPUs ("GRID A100-20C", "NVIDIA H100-2-20C").
_SLICE = re.compile(r"\bMIG\b|\bGRID\b|\bvGPU\b|-\d+[ABCQ]\b", re.IGNORECASE)


def peak_flops(device_kind: str) -> float | None:
    """bf16 FLOP/s of a device; None when not in the table or only a slice of a card (MFU is then not given)."""
    if _SLICE.search(device_kind):
        return None
    found = (flops for name, flops in PEAK_FLOPS.items() if re.search(rf"(?<![A-Za-z0-9]){name}(?!\d)", device_kind))
    return next(found, None)


def flops_per_token(cfg: ModelConfig, seq_len: int, *, causal: bool) -> float:
    """FLOPs of forward and backward pass per token, recomputation not counted (PaLM appendix B).

    6 per weight that is multiplied (the embedding look-up is none), and attention's two products: 12 L N H T in the
    full convention, half of it in the causal one, which counts what a causal kernel must do.
    """
    matrices = (
        cfg.num_layers
        * cfg.embed_dim
        * (2 * cfg.num_query_heads * cfg.head_dim + 2 * cfg.num_kv_heads * cfg.head_dim + 3 * cfg.ffn_dim)
        + cfg.embed_dim * cfg.vocab_size
    )
    attention = 12 * cfg.num_layers * cfg.num_query_heads * cfg.head_dim * seq_len
    return 6.0 * matrices + attention * (0.5 if causal else 1.0)


class Mfu(NamedTuple):
    """Share of the bf16 peak that the model's FLOPs use, in both conventions of attention; None without a known peak."""

    causal: float | None
    full: float | None


def mfu(tokens_per_second_per_device: float, cfg: ModelConfig, seq_len: int, device_kind: str) -> Mfu:
    """Model FLOPs utilization (PaLM appendix B): FLOPs of `flops_per_token` over the device's bf16 peak."""
    peak = peak_flops(device_kind)
    if peak is None:
        return Mfu(None, None)
    used = (tokens_per_second_per_device * flops_per_token(cfg, seq_len, causal=causal) for causal in (True, False))
    return Mfu(*(flops / peak for flops in used))
