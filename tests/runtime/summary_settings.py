"""Parses flags in a mode that needs neither data nor a checkpoint."""

from convoy.runtime.command_line.cli import parse


def settings(*args):
    """Returns the config of `--mode summary` with these flags."""
    return parse(["--mode", "summary", *args])
