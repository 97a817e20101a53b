"""Evaluation: a sandbox for untrusted programs, benchmarks, and clients of model servers. Imports no other package of the project."""
