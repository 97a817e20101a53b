"""The configuration of a run: frozen dataclasses, built by the functions in `configs/`, derived with `replace`.

A config file `configs/NAME.py` defines `config() -> RunConfig`; `--config=NAME` finds it. Everything that changes
what is computed is here and is saved with the run; what only says where to write is in `RunConfig` too.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated

from opencoder_jax.bounds import BELOW_ONE, INT32, LARGEST, SMALLEST, Range, check_ranges
from opencoder_jax.written import MixtureChange, SourceConfig, StepRange, XlaFlag

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
class RopeScaling:
    """Llama 3.1's longer wavelengths of rotary embedding (`rope_type: llama3` at Hugging Face); factor 1: none.

    Wavelengths above original_max_seq_len / low_freq_factor are multiplied by factor, those below original_max_seq_len /
    high_freq_factor stay, those between are interpolated.
    """

    factor: Annotated[float, Range(1, 1e6)] = 1.0
    low_freq_factor: Positive = 1.0
    high_freq_factor: Positive = 4.0
    original_max_seq_len: Size = 8_192


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the Llama-style decoder (OpenCoder table 4 and its published `config.json`)."""

    num_layers: Size
    """Decoder layers."""
    embed_dim: Size
    """Width of the residual stream, D."""
    num_query_heads: Size
    """Query heads of a layer; a multiple of num_kv_heads."""
    num_kv_heads: Size
    """Key/value heads of a layer."""
    head_dim: Size
    """Width of a head."""
    ffn_dim: Size
    """Width of the gated feed-forward layer."""
    vocab_size: Annotated[int, Range(1, 2**30 - 1)] = 96_640
    """Rows of embedding and output matrix; at least the tokenizer's."""
    rope_theta: Annotated[float, Range(1, 1e12)] = 10_000.0
    """Base of the rotary embedding's wavelengths."""
    rope_scaling: RopeScaling = field(default_factory=RopeScaling)
    """How the wavelengths are stretched for sequences longer than those of pre-training."""
    max_seq_len: Size = 4_096
    """Longest sequence that the model is for; data.seq_len may not exceed it."""
    norm_eps: Annotated[float, Range(SMALLEST, 1)] = 1e-5
    """Added to the mean square in the norms."""
    init_std: Annotated[float, Range(SMALLEST, 1e3)] = 0.02
    """Standard deviation of the initial weights."""
    tie_word_embeddings: bool = False
    """The output matrix is the embedding, transposed: one weight, as in SmolLM2 and Llama 3.2."""
    param_dtype: str = "float32"
    """Of the weights: float32 or bfloat16."""
    compute_dtype: str = "bfloat16"
    """Of activations and matmuls: float32 or bfloat16."""
    remat: str = "minimal"
    """One of none, dots, minimal, full, offload (see model.py)."""
    scan_unroll: Size = 1
    """Layers unrolled per step of the layer scan: 1 keeps compile time independent of depth, num_layers unrolls all."""
    implementation: str = "auto"
    """Backend of every kernel: auto, reference, xla, mosaic_gpu, tpu, cudnn (see opencoder_kernels)."""


@dataclass(frozen=True)
class MeshConfig:
    """Sizes of the mesh axes; their product is the device count. At most one may be -1: whatever is left."""

    data: AxisSize = 1
    """Devices over which records are sharded and weights are whole."""
    fsdp: AxisSize = -1
    """Devices over which records and weights are sharded."""
    tensor: AxisSize = 1
    """Devices over which heads, feed-forward layer and vocabulary are sharded."""
    context: AxisSize = 1
    """Devices over which the sequence is sharded (ring attention)."""


@dataclass(frozen=True)
class DataConfig:
    sources: tuple[SourceConfig, ...] = ()
    """Directories of token shards and their shares of the mixture, normalized over all."""
    eval_sources: tuple[SourceConfig, ...] = ()
    """Held-out shard directories, evaluated one by one (one per language, say)."""
    mixture_changes: tuple[MixtureChange, ...] = ()
    """Weights of all sources from a step on: annealing inside one run."""
    seq_len: Size = 4_096
    """Tokens of a record, T; the shards were packed with it."""
    global_batch_size: Size = 1_024
    """Records of an optimizer step, over all devices and micro-batches."""
    shuffle: bool = True
    """Records in random order, a function of the seed."""
    max_epochs: Annotated[float, Range(1e-6, 1e9)] = 4.0
    """Passes over a source that may be used before the run is rejected as too long for its data."""
    verify: str = "full"
    """Shard check at start: full (checksums; files unchanged since a good check are not read again), size, always."""


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW. Betas, epsilon, decay and clip are not published for OpenCoder; these are this project's choice."""

    b1: Decay = 0.9
    """Decay of Adam's first moment."""
    b2: Decay = 0.95
    """Decay of Adam's second moment."""
    eps: Annotated[float, Range(SMALLEST, 1)] = 1e-8
    """Added to the root of Adam's second moment."""
    weight_decay: Annotated[float, Range(SMALLEST, 1e3, also=(0,))] = 0.1
    """Decoupled weight decay of the matrices; the norms have none."""
    clip_norm: PositiveOrZero = 1.0
    """Global gradient norm above which gradients are scaled down; 0: never."""
    moment_dtype: str = "float32"
    """Of Adam's first moment; the second has the parameters' dtype."""


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate by step. WSD (paper section 3.2): linear warm-up, constant, exponential decay in annealing."""

    kind: str = "wsd"
    """wsd (decay_steps may be 0: annealing is then a run of its own) or cosine."""
    peak: Positive = 3e-4
    """Largest learning rate, after the warm-up."""
    final: PositiveOrZero = 1e-5
    """Learning rate at the end of the decay."""
    warmup_steps: CountOrZero = 2_000
    """Steps of linear warm-up from 0."""
    decay_steps: CountOrZero = 0
    """Last steps in which the rate decays (wsd); 0: it stays at the peak."""


@dataclass(frozen=True)
class CheckpointConfig:
    save_minutes: Minutes = 30.0
    """Minutes between checkpoints."""
    max_save_minutes: Annotated[float, Range(0.01, 1e6)] = 60.0
    """A save that takes longer ends the run: its writer hangs."""
    keep_every: CountOrZero = 10_000
    """A permanent checkpoint every so many steps (0: only the last)."""
    max_rolling: Count = 2
    """The newest so many are kept, and the permanent ones."""
    verify: str = "full"
    """Check before resuming: full (every checksum), size (lengths only)."""
    allow_data_change: bool = False
    """Resume although shards, tokenizer or mixture are not those the run began with."""


@dataclass(frozen=True)
class ProfileConfig:
    steps: StepRange | None = None
    """Steps to trace for xprof; empty: none."""


@dataclass(frozen=True)
class RunConfig:
    name: str
    """Of the run; runs/NAME is the default of run_dir."""
    model: ModelConfig
    mesh: MeshConfig = field(default_factory=MeshConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    num_steps: Count = 0
    """Optimizer steps of the whole run."""
    grad_accum: Size = 1
    """Micro-batches per step whose gradients are summed."""
    z_loss: Annotated[float, Range(SMALLEST, 1e3, also=(0,))] = 0.0
    """Coefficient of the squared log-partition in the loss (PaLM section 5); 0: none."""
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    """Of initialization and data order."""
    eval_every: CountOrZero = 0
    """Steps between evaluations on data.eval_sources; 0: only at the end."""
    log_every: Count = 10
    """Steps between printed lines; metrics.jsonl has every step."""
    max_nonfinite: Count = 10
    """Abort after this many non-finite updates in a row; each single one is skipped."""
    max_silence_minutes: Annotated[float, Range(0.01, 1e6)] = 10.0
    """End the run when a batch, a step, an evaluation's batch or a written row takes longer: what it waits for hangs."""
    run_dir: str = ""
    """Directory of the run: checkpoints, metrics, resolved config. An existing run there is resumed."""
    init_from: str = ""
    """Run whose last checkpoint gives parameters and optimizer state to a new run (annealing, tuning)."""
    dump_hlo: bool = False
    """Write the compiled step to RUN/hlo."""
    xla_flags: tuple[XlaFlag, ...] = ()
    """Compiler options on top of those of xla_flags.py; an empty value drops one."""


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
    steps = config.profile.steps
    if steps is not None and steps.start >= steps.stop:
        raise ValueError(f"profile.steps={steps}: write start:stop, for example 10:15")


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
