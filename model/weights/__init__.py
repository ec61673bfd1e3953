r"""Reads weights from files and writes them: the interface for the rest of the program.

For example:

    from convoy.model import build_model
    from convoy.model.weights import inspect, load_pretrained

    hint = inspect("tf_efficientnet_b0.pth", "efficientnet-b0")
    model = build_model("efficientnet-b0", num_classes=10, **hint.arguments)
    report = load_pretrained(model, "efficientnet-b0", hint.path)
    print("\n".join(report.lines()))

`files` (and `torch_pickle`) reads, `names` maps names and layouts, `suggest` infers the model from
a file, `load` assigns, `export` writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from convoy.utils.lazy import public_names

if TYPE_CHECKING:
    from convoy.model.weights.export import (
        NAMES,
        ConvertReport,
        check_target,
        convert,
        export_weights,
    )
    from convoy.model.weights.files import WeightFile, WeightFileError, read_weights
    from convoy.model.weights.load import LoadReport, freeze_backbone, load_pretrained
    from convoy.model.weights.suggest import Suggestion, inspect

_HOMES = {
    "NAMES": "convoy.model.weights.export",
    "ConvertReport": "convoy.model.weights.export",
    "check_target": "convoy.model.weights.export",
    "convert": "convoy.model.weights.export",
    "export_weights": "convoy.model.weights.export",
    "WeightFile": "convoy.model.weights.files",
    "WeightFileError": "convoy.model.weights.files",
    "read_weights": "convoy.model.weights.files",
    "LoadReport": "convoy.model.weights.load",
    "freeze_backbone": "convoy.model.weights.load",
    "load_pretrained": "convoy.model.weights.load",
    "Suggestion": "convoy.model.weights.suggest",
    "inspect": "convoy.model.weights.suggest",
}

__all__ = [
    "NAMES",
    "ConvertReport",
    "LoadReport",
    "Suggestion",
    "WeightFile",
    "WeightFileError",
    "check_target",
    "convert",
    "export_weights",
    "freeze_backbone",
    "inspect",
    "load_pretrained",
    "read_weights",
]

__getattr__, __dir__ = public_names(__name__, _HOMES)
