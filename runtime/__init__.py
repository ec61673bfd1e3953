"""What each mode does. `Runner(config).run()` is the whole program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.config import Config
    from runtime.runner import Runner

__all__ = ["Config", "Runner"]


def __getattr__(name: str) -> Any:
    # Imported on first use, so that `runtime.config` costs no TensorFlow.
    if name == "Runner":
        from runtime.runner import Runner

        return Runner
    if name == "Config":
        from runtime.config import Config

        return Config
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
