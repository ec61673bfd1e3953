"""From files to batches. Public names load on first use: importing this costs no TensorFlow."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convoy.dataloader.errors import DataError
    from convoy.dataloader.images.crops import EvalCrop
    from convoy.dataloader.loader import Loader, build_dataset
    from convoy.dataloader.options import InputOptions
    from convoy.dataloader.sources.find import find_source

_HOMES = {
    "DataError": "convoy.dataloader.errors",
    "EvalCrop": "convoy.dataloader.images.crops",
    "InputOptions": "convoy.dataloader.options",
    "Loader": "convoy.dataloader.loader",
    "build_dataset": "convoy.dataloader.loader",
    "find_source": "convoy.dataloader.sources.find",
}

__all__ = ["DataError", "EvalCrop", "InputOptions", "Loader", "build_dataset", "find_source"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOMES))
