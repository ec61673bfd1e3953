"""Turns image files into batches.

Public names load on first use, so importing this package does not import TensorFlow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from convoy.utils.lazy import public_names

if TYPE_CHECKING:
    from convoy.dataloader.errors import DataError
    from convoy.dataloader.images.eval_crop import EvalCrop
    from convoy.dataloader.loader import Loader, build_dataset
    from convoy.dataloader.options import InputOptions
    from convoy.dataloader.sources.find import find_source

_HOMES = {
    "DataError": "convoy.dataloader.errors",
    "EvalCrop": "convoy.dataloader.images.eval_crop",
    "InputOptions": "convoy.dataloader.options",
    "Loader": "convoy.dataloader.loader",
    "build_dataset": "convoy.dataloader.loader",
    "find_source": "convoy.dataloader.sources.find",
}

__all__ = ["DataError", "EvalCrop", "InputOptions", "Loader", "build_dataset", "find_source"]


__getattr__, __dir__ = public_names(__name__, _HOMES)
