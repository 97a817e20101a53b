"""Where the time of a step goes: `python -m opencoder_jax.profile --config=tiny` traces steps and prints tables."""
