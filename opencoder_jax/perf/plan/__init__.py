"""What a configuration needs on hardware that is not available: memory, collectives, predicted step time.

`python -m opencoder_jax.perf.plan --config=8b --topology=h100:64x8`. This package imports JAX only inside functions: the
environment of the compiler is set first (`topology.prepare_environment`).
"""
