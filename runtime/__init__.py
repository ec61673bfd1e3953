"""Runs each mode without the command line: `Runner(configure(mode="eval", …)).run()`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convoy.utils.lazy import public_names

if TYPE_CHECKING:
    from convoy.runtime.command_line.cli import configure
    from convoy.runtime.runner import Runner
    from convoy.runtime.settings.config import Config
    from convoy.utils.errors import ConfigError

# Loaded on first use, so that `runtime.settings.config` does not import TensorFlow.
_HOMES = {
    "Config": "convoy.runtime.settings.config",
    "ConfigError": "convoy.utils.errors",
    "Runner": "convoy.runtime.runner",
    "configure": "convoy.runtime.command_line.cli",
}

__all__ = ["Config", "ConfigError", "Runner", "configure"]


__getattr__, __dir__ = public_names(__name__, _HOMES)
