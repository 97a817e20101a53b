"""1p5b: OpenCoder-1.5B pre-training, 1,905,650,880 parameters, 2.03 T tokens.

Hardware: 256 GPUs of 80 GB (the authors: 256 H800), 4 records a GPU and step; any number of devices that divides the
batch works, with `--grad_accum` for fewer.
Command: python -m opencoder_jax.train --config=1p5b --data.sources=SHARDS:1 --run_dir=runs/1p5b
Expected: published 20,808 tokens/s/GPU (from 28,034 GPU hours for 2.1 T tokens). The plan for 256 H800s gives 20 GiB a
GPU (docs/experiments/2026-11-21-plan-topologies.md); our memory, tokens/s and loss: not measured.

From the paper and the published config.json: model shape, T 4,096, batch 1,024 (4,194,304 tokens a step), warm-up
2,000 steps, peak 3e-4 held constant. num_steps is the last published pre-training checkpoint (pretrain_iter_0484865);
the released base model branched off at step 373,000. Ours, as nothing is published: AdamW 0.9/0.95/1e-8, decay 0.1,
clip 1.0, fp32 master weights, attention confined to a document. The authors replicate the weights on every GPU (DDP);
here they are sharded over the 8 GPUs of a node.
"""

from opencoder_jax.config import DataConfig, MeshConfig, ModelConfig, RunConfig, ScheduleConfig


def config() -> RunConfig:
    return RunConfig(
        name="1p5b",
        model=ModelConfig(
            num_layers=24,
            embed_dim=2_240,
            num_query_heads=14,
            num_kv_heads=14,
            head_dim=160,
            ffn_dim=6_144,
            vocab_size=96_640,
            rope_theta=10_000.0,
            max_seq_len=4_096,
            remat="dots",  # fits by far, and recomputes no product but SwiGLU's two
        ),
        mesh=MeshConfig(data=-1, fsdp=8),
        data=DataConfig(seq_len=4_096, global_batch_size=1_024),
        schedule=ScheduleConfig(peak=3e-4, final=1e-5, warmup_steps=2_000),
        num_steps=484_865,
    )
