"""What each mode does: `Runner(configure(mode="eval", …)).run()`, without the command line."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convoy.runtime.command_line.cli import configure
    from convoy.runtime.runner import Runner
    from convoy.runtime.settings.config import Config
    from convoy.utils.errors import ConfigError

# Imported on first use, so that `runtime.settings.config` costs no TensorFlow.
_HOMES = {
    "Config": "convoy.runtime.settings.config",
    "ConfigError": "convoy.utils.errors",
    "Runner": "convoy.runtime.runner",
    "configure": "convoy.runtime.command_line.cli",
}

__all__ = ["Config", "ConfigError", "Runner", "configure"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
