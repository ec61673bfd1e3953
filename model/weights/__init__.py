"""Weights from files and to files: all that other parts of the program need.

Example:

    from convoy.model import build_model
    from convoy.model.weights import inspect, load_pretrained

    hint = inspect("tf_efficientnet_b0.pth", "efficientnet-b0")
    model = build_model("efficientnet-b0", num_classes=10, **hint.arguments)
    report = load_pretrained(model, "efficientnet-b0", hint.path)
    print("\n".join(report.lines()))

Reading is in `weight_files` (and `weight_torch`), names and layouts in `weight_names`, what a file
implies in `weight_suggest`, assigning in `weight_import`, writing in `weight_export`.
"""

from __future__ import annotations

from convoy.model.weights.export import NAMES, ConvertReport, check_target, convert, export_weights
from convoy.model.weights.files import WeightFile, WeightFileError, read_weights
from convoy.model.weights.load import LoadReport, freeze_backbone, load_pretrained
from convoy.model.weights.suggest import Suggestion, inspect

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
