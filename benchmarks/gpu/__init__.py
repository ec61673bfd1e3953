"""Compares training on one GPU: `python -m benchmarks.gpu`."""
