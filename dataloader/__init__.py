"""From files to batches. Public names load on first use: importing this costs no TensorFlow."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataloader.decode import EvalCrop
    from dataloader.errors import DataError
    from dataloader.loader import Loader, build_dataset
    from dataloader.options import InputOptions
    from dataloader.sources import find_source

_HOMES = {
    "DataError": "dataloader.errors",
    "EvalCrop": "dataloader.decode",
    "InputOptions": "dataloader.options",
    "Loader": "dataloader.loader",
    "build_dataset": "dataloader.loader",
    "find_source": "dataloader.sources",
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
