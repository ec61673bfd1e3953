"""Reads from a file how to apply its weights: architecture, image size, crop and class names.

Reads no tensors, and imports no TensorFlow.

| file | contains |
|---|---|
| a checkpoint's folder | all of it: `runtime` reads its `config.yaml` and `state.json` |
| our `.safetensors` | the metadata from `export_weights` |
| our `.onnx` | all of it |
| timm's, with its `config.json` beside it | all of it but the architecture |
| `.keras`, and `.h5` with a model's config | the image size |
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convoy.model.weights import onnx_file

ABOUT = "about"
"""Metadata key of our `.safetensors`."""
_LONGEST_HEADER = 100 << 20


def how_applied(path: str | Path) -> dict[str, Any]:
    """Returns what a weight file says about how to apply it.

    Returns:
        Some of `arch`, `image_size` (pixels a side), `eval_crop` ("crop", "resize" or "squash"),
        `crop_padding` (pixels) or `crop_pct` (fraction), `interpolation`, `exif_orientation`,
        `evaluation_like`, and `class_names`. Empty if the file says nothing or cannot be read:
        reading the weights will report that.
    """
    path = Path(path)
    try:
        if onnx_file.is_onnx(path):
            return onnx_file.settings(path)
        with path.open("rb") as stream:
            head = stream.read(16)
        if head.startswith(b"PK\x03\x04"):
            return _of_keras(path)
        if head[8:9] == b"{":
            return _of_metadata(path) | _of_timm(path)
        return _of_timm(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile):
        return {}


def _of_metadata(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length)) if length <= _LONGEST_HEADER else {}
    said = json.loads(header.get("__metadata__", {}).get(ABOUT, "{}"))
    kinds = {"arch": str, "image_size": int, "eval_crop": str, "crop_padding": int}
    found = {k: said[k] for k, kind in kinds.items() if isinstance(said.get(k), kind)}
    for name in ("interpolation", "exif_orientation"):
        if isinstance(said.get(name), str):
            found[name] = said[name]
    return found | _names(said.get("class_names"))


def _of_keras(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        if "config.json" not in archive.namelist():  # PyTorch's archives
            return _of_timm(path)
        layers = json.loads(archive.read("config.json"))["config"]["layers"]
    inputs = next(layer for layer in layers if layer["class_name"] == "InputLayer")
    _, height, width, _ = inputs["config"]["batch_shape"]
    return {"image_size": height} if isinstance(height, int) and height == width else {}


def _of_timm(path: Path) -> dict[str, Any]:
    """Reads the `config.json` beside files from timm's hub."""
    beside = path.with_name("config.json")
    if not beside.exists():
        return {}
    said = json.loads(beside.read_text(encoding="utf-8"))
    settings = said.get("pretrained_cfg", said)
    if not isinstance(settings, Mapping) or "crop_pct" not in settings:
        return {}
    found: dict[str, Any] = {"eval_crop": "resize"}
    if settings.get("crop_mode") == "squash":
        found["eval_crop"] = "squash"
    size = settings.get("test_input_size") or settings.get("input_size")
    if isinstance(size, list) and len(size) == 3 and size[1] == size[2]:
        found["image_size"] = int(size[1])
    found["crop_pct"] = float(settings.get("test_crop_pct") or settings["crop_pct"])
    if settings.get("interpolation") in ("bilinear", "bicubic"):
        found["interpolation"] = settings["interpolation"]
    return found | _names(settings.get("label_names") or said.get("label_names"))


def _names(value: Any) -> dict[str, list[str]]:
    good = isinstance(value, list) and value and all(isinstance(name, str) for name in value)
    return {"class_names": value} if good else {}
