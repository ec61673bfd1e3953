"""Implements `--mode eval` and its report."""
