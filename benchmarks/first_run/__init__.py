"""Measures the accuracy of the plain command (no flags but the folders) on small data sets.

Compares it with a search over flags, Keras' usual script and timm's defaults. Run `python -m
benchmarks.first_run --help`; docs/first_run.md has the results.
"""
