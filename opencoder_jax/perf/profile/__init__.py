"""Where the time of a step goes: `python -m opencoder_jax.perf.profile --config=tiny` traces steps and prints tables."""
