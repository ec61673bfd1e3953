"""Implements `--mode predict`: labels for images."""
