"""Trainer of opencoder_jax: model, sharding, optimizer, input, training, checkpoints, release."""
