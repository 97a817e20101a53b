"""small: about 95M parameters, 2.1 B tokens (some 22 per parameter), for one GPU.

Hardware: one GPU of 24 GB or more. Memory, tokens/s and loss: not measured.
Command: python -m opencoder_jax.train --config=small --data.sources=SHARDS --run_dir=runs/small

Every figure is ours: the paper has no model of this size.
"""

from opencoder_jax.config import DataConfig, ModelConfig, RunConfig, ScheduleConfig


def config() -> RunConfig:
    return RunConfig(
        name="small",
        model=ModelConfig(
            num_layers=12,
            embed_dim=640,
            num_query_heads=10,
            num_kv_heads=2,
            head_dim=64,
            ffn_dim=1_792,
            vocab_size=32_768,
            max_seq_len=2_048,
        ),
        data=DataConfig(seq_len=2_048, global_batch_size=256),
        schedule=ScheduleConfig(peak=1e-3, warmup_steps=200),
        num_steps=4_000,
        grad_accum=8,
    )
