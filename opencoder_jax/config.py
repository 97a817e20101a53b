"""The configuration of a run: frozen dataclasses, built by the functions in `configs/`, derived with `replace`.

A config file `configs/NAME.py` defines `config() -> RunConfig`; `--config=NAME` finds it. Everything that changes
what is computed is here and is saved with the run; what only says where to write is in `RunConfig` too.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated

from opencoder_jax.bounds import BELOW_ONE, INT32, LARGEST, SMALLEST, Range, check_ranges

# Numbers with their ranges; what a size of a model or mesh may be is far above what any device holds.
Count = Annotated[int, Range(1, INT32)]
CountOrZero = Annotated[int, Range(0, INT32)]
Size = Annotated[int, Range(1, 2**24)]
AxisSize = Annotated[int, Range(1, 2**24, also=(-1,))]
Positive = Annotated[float, Range(SMALLEST, LARGEST)]
PositiveOrZero = Annotated[float, Range(SMALLEST, LARGEST, also=(0,))]
Decay = Annotated[float, Range(0, BELOW_ONE)]
Minutes = Annotated[float, Range(0, 1e6)]


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the Llama-style decoder (OpenCoder table 4 and its published `config.json`)."""

    num_layers: Size
    embed_dim: Size
    num_query_heads: Size
    num_kv_heads: Size
    head_dim: Size
    ffn_dim: Size
    vocab_size: Annotated[int, Range(1, 2**30 - 1)] = 96_640
    rope_theta: Annotated[float, Range(1, 1e12)] = 10_000.0
    max_seq_len: Size = 4_096
    norm_eps: Annotated[float, Range(SMALLEST, 1)] = 1e-5
    init_std: Annotated[float, Range(SMALLEST, 1e3)] = 0.02
    param_dtype: str = "float32"
    compute_dtype: str = "bfloat16"
    # One of none, dots, minimal, full, offload (see model.py).
    remat: str = "minimal"
    # Layers unrolled per step of the layer scan: 1 keeps compile time independent of depth, num_layers unrolls all.
    scan_unroll: Size = 1
    # Backend of every kernel: auto, reference, xla, mosaic_gpu, tpu, cudnn (see opencoder_kernels).
    implementation: str = "auto"


@dataclass(frozen=True)
class MeshConfig:
    """Sizes of the mesh axes; their product is the device count. At most one may be -1: whatever is left."""

    data: AxisSize = 1
    fsdp: AxisSize = -1
    tensor: AxisSize = 1
    context: AxisSize = 1


@dataclass(frozen=True)
class SourceConfig:
    """One directory of token shards and its share of the mixture (weights are normalised over the sources)."""

    path: str
    weight: PositiveOrZero = 1.0


@dataclass(frozen=True)
class DataConfig:
    sources: tuple[SourceConfig, ...] = ()
    # Held-out shard directories, evaluated one by one (one per language, say).
    eval_sources: tuple[SourceConfig, ...] = ()
    # Weights of all sources from a step on, "STEP:WEIGHT,WEIGHT;STEP:...": annealing inside one run.
    mixture_changes: str = ""
    seq_len: Size = 4_096
    global_batch_size: Size = 1_024
    shuffle: bool = True
    # Passes over a source that may be used before the run is rejected as too long for its data.
    max_epochs: Annotated[float, Range(1e-6, 1e9)] = 4.0
    # Shard check at start: full (checksums; files unchanged since a good check are not read again), size, always.
    verify: str = "full"


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW. Betas, epsilon, decay and clip are not published for OpenCoder; these are this project's choice."""

    b1: Decay = 0.9
    b2: Decay = 0.95
    eps: Annotated[float, Range(SMALLEST, 1)] = 1e-8
    weight_decay: Annotated[float, Range(SMALLEST, 1e3, also=(0,))] = 0.1
    clip_norm: PositiveOrZero = 1.0
    # Of Adam's first moment; the second has the parameters' dtype.
    moment_dtype: str = "float32"


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate by step. WSD (paper section 3.2): linear warm-up, constant, exponential decay in annealing."""

    # wsd (decay_steps may be 0: annealing is then a run of its own) or cosine.
    kind: str = "wsd"
    peak: Positive = 3e-4
    final: PositiveOrZero = 1e-5
    warmup_steps: CountOrZero = 2_000
    decay_steps: CountOrZero = 0


@dataclass(frozen=True)
class CheckpointConfig:
    save_minutes: Minutes = 30.0
    # A save that takes longer ends the run: its writer hangs.
    max_save_minutes: Annotated[float, Range(0.01, 1e6)] = 60.0
    # A permanent checkpoint every so many steps (0: only the last).
    keep_every: CountOrZero = 10_000
    # The newest so many are kept, and the permanent ones.
    max_rolling: Count = 2
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
    num_steps: Count = 0
    # Micro-batches per step whose gradients are summed.
    grad_accum: Size = 1
    z_loss: Annotated[float, Range(SMALLEST, 1e3, also=(0,))] = 0.0
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    # Steps between evaluations on data.eval_sources (0: only at the end) and between printed metrics.
    eval_every: CountOrZero = 0
    log_every: Count = 10
    # Abort after this many non-finite updates in a row; each single one is skipped.
    max_nonfinite: Count = 10
    # End the run when a batch, a step, an evaluation's batch or a written row takes longer: what it waits for hangs.
    max_silence_minutes: Annotated[float, Range(0.01, 1e6)] = 10.0
    # Directory of the run: checkpoints, metrics, resolved config. An existing run there is resumed.
    run_dir: str = ""
    # Run whose last checkpoint gives parameters and optimizer state to a new run (annealing, tuning).
    init_from: str = ""
    dump_hlo: bool = False
    # Compiler options on top of xla_flags.py: xla_NAME=VALUE,xla_NAME=VALUE; an empty value drops one.
    xla_flags: str = ""


replace = dataclasses.replace


def check(config: RunConfig) -> None:
    """Raises ValueError, naming the field, for values that no run can have."""
    check_ranges(config)
    _check_choices(config)
    _check_schedule(config.schedule)
    if config.data.seq_len > config.model.max_seq_len:
        raise ValueError(
            f"data.seq_len={config.data.seq_len} exceeds model.max_seq_len={config.model.max_seq_len}; raise the latter"
        )
    if config.data.global_batch_size * config.data.seq_len > INT32:
        raise ValueError(
            f"data.global_batch_size={config.data.global_batch_size} x data.seq_len={config.data.seq_len} are more than "
            f"{INT32} tokens, which a step counts with 32 bits; lower one of them"
        )
    profile_steps(config)


def _check_choices(config: RunConfig) -> None:
    dtypes = ("float32", "bfloat16")
    for name, value, choices in (
        ("model.param_dtype", config.model.param_dtype, dtypes),
        ("model.compute_dtype", config.model.compute_dtype, dtypes),
        ("optimizer.moment_dtype", config.optimizer.moment_dtype, dtypes),
        ("schedule.kind", config.schedule.kind, ("wsd", "cosine")),
        ("data.verify", config.data.verify, ("full", "size", "always")),
        ("checkpoint.verify", config.checkpoint.verify, ("full", "size")),
    ):
        if value not in choices:
            *others, last = choices
            raise ValueError(f"{name}={value!r}: choose {', '.join(others)} or {last}")


def _check_schedule(schedule: ScheduleConfig) -> None:
    if schedule.peak < schedule.final:
        raise ValueError(f"schedule.peak={schedule.peak} is below schedule.final={schedule.final}")
    if schedule.kind == "cosine" and schedule.decay_steps:
        raise ValueError(
            f"schedule.decay_steps={schedule.decay_steps} has no effect with schedule.kind=cosine, which decays over all "
            "steps after the warm-up; set it to 0, or schedule.kind=wsd"
        )
    if schedule.kind == "wsd" and schedule.decay_steps and schedule.final / schedule.peak < SMALLEST:
        raise ValueError(
            f"schedule.final={schedule.final} cannot be reached from schedule.peak={schedule.peak} by exponential decay; "
            "set a larger schedule.final, or schedule.decay_steps=0"
        )


def profile_steps(config: RunConfig) -> range:
    """Steps to trace. Raises: ValueError for anything but "start:stop"."""
    if not config.profile.steps:
        return range(0)
    start, _, stop = config.profile.steps.partition(":")
    if not (start.isdigit() and stop.isdigit() and int(start) < int(stop)):
        raise ValueError(f"profile.steps={config.profile.steps!r}: write start:stop, for example 10:15")
    return range(int(start), int(stop))
