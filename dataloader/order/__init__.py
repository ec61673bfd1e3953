"""Computes the order of examples in an epoch, and each rank's share of it. Uses only NumPy."""
