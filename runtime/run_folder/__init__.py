"""Reads and writes a run's folder: checkpoints, log, owner."""
