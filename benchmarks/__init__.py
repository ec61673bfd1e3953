"""Compares Convoy with other programs, and measures single parts of it.

Run `python -m benchmarks --help`. docs/design.md lists the folders.
"""
