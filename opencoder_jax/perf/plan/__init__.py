"""What a configuration needs on a target without hardware (AOT): memory, collectives, predicted step time.

`opencoder plan --config=8b --topology=h100:64x8`. No module of this package imports JAX before it is used: the environment of
the compiler is set first (`topology.prepare_environment`), and tables are read where there is no JAX.
"""
