"""Implements `--mode report`: pages about runs."""
