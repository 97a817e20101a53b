"""8b_4k: OpenCoder-8B, the first 130,000 steps at T 4,096: 7,771,262,976 parameters, 1.09 T tokens.

Hardware: 512 GPUs of 80 GB (the authors: 512 H100, tensor parallel 2 + DDP, micro-batch 1), 4 records a GPU and step;
any number of devices that divides the batch works, with `--grad_accum` for fewer.
Command: python -m opencoder_jax.train --config=8b_4k --data.sources=SHARDS:1 --run_dir=runs/8b_4k
Expected: published 7,523 tokens/s/GPU over the whole training (96,000 GPU hours for 2.6 T tokens). The plan for
512 H100s gives 39 GiB a GPU (docs/experiments/2026-11-21-plan-topologies.md); our memory, tokens/s and loss: not measured.

From the paper and the published config.json: model shape with 32 query and 8 key/value heads, rotary base 500,000,
batch 2,048 at T 4,096 (8,388,608 tokens a step), warm-up 2,000 steps, peak 3e-4. The paper gives the warm-up as 2,000
steps and as 8 B tokens, which fits the 1.5B; here the 2,000 steps hold (16.8 B tokens). Ours, as nothing is published:
AdamW 0.9/0.95/1e-8, decay 0.1, clip 1.0, fp32 master weights, attention confined to a document, and the mesh: weights
sharded over 64 GPUs instead of tensor parallel 2.
"""

from opencoder_jax.config import DataConfig, MeshConfig, ModelConfig, RunConfig, ScheduleConfig


def config() -> RunConfig:
    return RunConfig(
        name="8b_4k",
        model=ModelConfig(
            num_layers=32,
            embed_dim=4_096,
            num_query_heads=32,
            num_kv_heads=8,
            head_dim=128,
            ffn_dim=14_336,
            vocab_size=96_640,
            rope_theta=500_000.0,
            max_seq_len=8_192,
            remat="dots",  # fits by far, and recomputes no product but SwiGLU's two
        ),
        mesh=MeshConfig(data=-1, fsdp=64),
        data=DataConfig(seq_len=4_096, global_batch_size=2_048),
        schedule=ScheduleConfig(peak=3e-4, final=1e-5, warmup_steps=2_000),
        num_steps=130_000,
    )
