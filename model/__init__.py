"""Builds convnets as Keras functional models. Importing this package does not import TensorFlow.

For example:

    from convoy.model import build_model
    net = build_model("efficientnet-b0", num_classes=10, image_size=64)
    logits = net(images)  # uint8 or float in 0-255, (batch, 64, 64, 3) -> float32 (batch, 10)
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from convoy.utils.lazy import public_names
from convoy.utils.machine.device import check_backend

if TYPE_CHECKING:
    from convoy.model.build import build_model
    from convoy.model.catalog import get_arch, list_archs

_HOMES = {
    "build_model": "convoy.model.build",
    "get_arch": "convoy.model.catalog",
    "list_archs": "convoy.model.catalog",
}

__all__ = ["build_model", "get_arch", "list_archs"]


_load, __dir__ = public_names(__name__, _HOMES)


def __getattr__(name: str) -> Any:
    if name == "build_model":
        check_backend()  # before Keras is imported, which may lack that backend
    return _load(name)


def _name_layers() -> None:
    """Registers our layers with Keras if it is already imported, so that `.keras` files load."""
    keras = sys.modules.get("keras")
    if keras and hasattr(keras, "backend") and keras.backend.backend() == "tensorflow":
        import_module("convoy.model.build")


_name_layers()
