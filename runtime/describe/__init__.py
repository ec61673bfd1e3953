"""Implements `--mode list`, `summary` and `env`."""
