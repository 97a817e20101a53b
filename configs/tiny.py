"""tiny: 8k vocabulary, 6.3M parameters; trains in minutes on two CPU cores (`make demo`).

Hardware: 2 CPU cores. Every figure is ours; the learning rate and the wide initialisation suit a run of some 1,000 steps.
Command: python -m opencoder_jax.train --config=tiny --data.sources=SHARDS --run_dir=runs/tiny
"""

from opencoder_jax.config import CheckpointConfig, DataConfig, ModelConfig, RunConfig, ScheduleConfig


def config() -> RunConfig:
    return RunConfig(
        name="tiny",
        model=ModelConfig(
            num_layers=3,
            embed_dim=256,
            num_query_heads=4,
            num_kv_heads=2,
            head_dim=64,
            ffn_dim=640,
            vocab_size=8_192,
            max_seq_len=512,
            init_std=0.04,
            compute_dtype="float32",
            remat="none",
            scan_unroll=3,
        ),
        data=DataConfig(seq_len=256, global_batch_size=4),
        checkpoint=CheckpointConfig(save_minutes=5.0, keep_every=500),
        schedule=ScheduleConfig(peak=2e-3, warmup_steps=60),
        num_steps=1_000,
        log_every=50,
    )
