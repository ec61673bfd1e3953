"""What `--mode export` can write, and what each has to hold. Imports no TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from convoy.utils.errors import ConfigError
from convoy.utils.extras import how_to_install

ENOUGH_IMAGES = 300
"""Fewer say little about agreement: one of 300 that differs is 0.3 %."""
SIDE_FILE = "export.json"


@dataclass(frozen=True)
class Format:
    """One kind of export.

    Attributes:
        file: its place in the export's folder.
        agreement: least share of images on which its top-1 class is the Keras model's.
        difference: most that a logit (or feature) may be off; None: the agreement alone counts.
        packages: what it needs beyond TensorFlow.
    """

    file: str
    agreement: float = 0.999
    difference: float | None = 1e-3
    packages: tuple[str, ...] = ()


FORMATS = {
    # TensorFlow Serving looks for numbered versions in a model's folder.
    "savedmodel": Format("savedmodel/1"),
    "tflite": Format("model.tflite"),
    "tflite-int8": Format("model-int8.tflite", agreement=0.95, difference=None),
    "onnx": Format("model.onnx", packages=("onnx", "onnxruntime", "tf2onnx")),
}


def export_formats(text: str) -> list[str]:
    """The formats that `--export_format` names, in the order of `FORMATS`.

    Raises:
        ConfigError: one does not exist, or its packages are not installed.
    """
    asked = {name.strip() for name in text.split(",") if name.strip()}
    if not asked or not asked <= set(FORMATS):
        raise ConfigError(
            f"--export_format {text}: choose from {', '.join(FORMATS)}, with commas between them"
        )
    for name in asked:
        check_packages(name, "--export_format")
    return [name for name in FORMATS if name in asked]


def check_packages(name: str, flag: str) -> None:
    """Raises ConfigError unless what a format needs is installed."""
    missing = [package for package in FORMATS[name].packages if find_spec(package) is None]
    if missing:
        raise ConfigError(f"{flag} {name} needs {', '.join(missing)}: {how_to_install('export')}")
