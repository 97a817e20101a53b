"""The configuration of a run: frozen dataclasses, built by the functions in `configs/`, derived with `replace`.

A config file `configs/NAME.py` defines `config() -> RunConfig`; `--config=NAME` finds it. Everything that changes
what is computed stands here and is saved with the run; what only says where to write stands in `RunConfig` too.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the Llama-style decoder (OpenCoder table 4 and its published `config.json`)."""

    num_layers: int
    embed_dim: int
    num_query_heads: int
    num_kv_heads: int
    head_dim: int
    ffn_dim: int
    vocab_size: int = 96_640
    rope_theta: float = 10_000.0
    max_seq_len: int = 4_096
    norm_eps: float = 1e-5
    init_std: float = 0.02
    param_dtype: str = "float32"
    compute_dtype: str = "bfloat16"
    # One of none, dots, minimal, full, offload (see model.py).
    remat: str = "minimal"
    # Layers unrolled per step of the layer scan: 1 keeps compile time independent of depth, num_layers unrolls all.
    scan_unroll: int = 1
    # Back end of every kernel: auto, reference, xla, mosaic_gpu, tpu, cudnn (see opencoder_kernels).
    implementation: str = "auto"


@dataclass(frozen=True)
class MeshConfig:
    """Sizes of the mesh axes; their product is the device count. At most one may be -1: whatever is left."""

    data: int = 1
    fsdp: int = -1
    tensor: int = 1
    context: int = 1


@dataclass(frozen=True)
class SourceConfig:
    """One folder of token shards and its share of the mixture (weights are normalised over the sources)."""

    path: str
    weight: float = 1.0


@dataclass(frozen=True)
class DataConfig:
    sources: tuple[SourceConfig, ...] = ()
    # Held-out shard folders, evaluated one by one (one per language, say).
    eval_sources: tuple[SourceConfig, ...] = ()
    # Weights of all sources from a step on, "STEP:WEIGHT,WEIGHT;STEP:...": annealing inside one run.
    mixture_changes: str = ""
    seq_len: int = 4_096
    global_batch_size: int = 1_024
    shuffle: bool = True
    # Passes over a source that may be used before the run is refused as too long for its data.
    max_epochs: float = 4.0
    # Shard check at start: full (checksums; files unchanged since a good check are not read again), size, always.
    verify: str = "full"


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW. Betas, epsilon, decay and clip are not published for OpenCoder; these are this project's choice."""

    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    # Of Adam's first moment; the second has the parameters' dtype.
    moment_dtype: str = "float32"


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate by step. WSD (paper section 3.2): linear warm-up, constant, exponential decay in annealing."""

    # wsd (decay_steps may be 0: annealing is then a run of its own) or cosine.
    kind: str = "wsd"
    peak: float = 3e-4
    final: float = 1e-5
    warmup_steps: int = 2_000
    decay_steps: int = 0


@dataclass(frozen=True)
class CheckpointConfig:
    save_minutes: float = 30.0
    # A permanent checkpoint every so many steps (0: only the last).
    keep_every: int = 10_000
    # The newest so many are kept, and the permanent ones.
    max_rolling: int = 2
    # Check before resuming: full (every checksum), size (lengths only).
    verify: str = "full"
    # Resume although shards, tokenizer or mixture are not those the run began with.
    allow_data_change: bool = False


@dataclass(frozen=True)
class ProfileConfig:
    # "start:stop" steps to trace for xprof, empty for none.
    steps: str = ""


@dataclass(frozen=True)
class RunConfig:
    name: str
    model: ModelConfig
    mesh: MeshConfig = field(default_factory=MeshConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    num_steps: int = 0
    # Micro-batches per step whose gradients are summed.
    grad_accum: int = 1
    z_loss: float = 0.0
    seed: int = 0
    # Steps between evaluations on data.eval_sources (0: only at the end) and between printed metrics.
    eval_every: int = 0
    log_every: int = 10
    # Abort after this many non-finite updates in a row; each single one is skipped.
    max_nonfinite: int = 10
    # Folder of the run: checkpoints, metrics, resolved config. An existing run there is resumed.
    run_dir: str = ""
    # Run whose last checkpoint gives parameters and optimizer state to a new run (annealing, tuning).
    init_from: str = ""
    dump_hlo: bool = False
    # Compiler options on top of xla_flags.py: xla_NAME=VALUE,xla_NAME=VALUE; an empty value drops one.
    xla_flags: str = ""


replace = dataclasses.replace


def check(config: RunConfig) -> None:
    """Raises ValueError, naming the field, for values that no run can have."""
    for name, least in (("num_steps", 1), ("grad_accum", 1), ("log_every", 1), ("eval_every", 0), ("max_nonfinite", 1)):
        _at_least(name, getattr(config, name), least)
    _at_least("data.global_batch_size", config.data.global_batch_size, 1)
    _at_least("data.seq_len", config.data.seq_len, 1)
    _at_least("checkpoint.max_rolling", config.checkpoint.max_rolling, 1)
    _at_least("checkpoint.keep_every", config.checkpoint.keep_every, 0)
    _at_least("checkpoint.save_minutes", config.checkpoint.save_minutes, 0)
    _at_least("optimizer.clip_norm", config.optimizer.clip_norm, 0)
    _at_least("schedule.final", config.schedule.final, 0)
    for name in ("num_layers", "embed_dim", "num_query_heads", "num_kv_heads", "head_dim", "ffn_dim", "vocab_size"):
        _at_least(f"model.{name}", getattr(config.model, name), 1)
    dtypes = {"model.param_dtype": config.model.param_dtype, "model.compute_dtype": config.model.compute_dtype}
    for name, dtype in (dtypes | {"optimizer.moment_dtype": config.optimizer.moment_dtype}).items():
        if dtype not in ("float32", "bfloat16"):
            raise ValueError(f"{name}={dtype!r}: choose float32 or bfloat16")
    if config.schedule.peak < config.schedule.final:
        raise ValueError(f"schedule.peak={config.schedule.peak} is below schedule.final={config.schedule.final}")
    if config.data.seq_len > config.model.max_seq_len:
        raise ValueError(
            f"data.seq_len={config.data.seq_len} exceeds model.max_seq_len={config.model.max_seq_len}; raise the latter"
        )
    if config.checkpoint.verify not in ("full", "size"):
        raise ValueError(f"checkpoint.verify={config.checkpoint.verify!r}: choose full or size")
    profile_steps(config)


def profile_steps(config: RunConfig) -> range:
    """Steps to trace. Raises: ValueError for anything but "start:stop"."""
    if not config.profile.steps:
        return range(0)
    start, _, stop = config.profile.steps.partition(":")
    if not (start.isdigit() and stop.isdigit() and int(start) < int(stop)):
        raise ValueError(f"profile.steps={config.profile.steps!r}: write start:stop, for example 10:15")
    return range(int(start), int(stop))


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise ValueError(f"{name}={value} must be at least {least}")
