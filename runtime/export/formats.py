"""Lists the formats of `--mode export`, and the limits for each. Imports no TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from convoy.model.weights import onnx_file
from convoy.utils.errors import ConfigError
from convoy.utils.extras import how_to_install

ENOUGH_IMAGES = 300
"""Number of images for a useful comparison: with 300, one that differs is 0.3 %."""
SIDE_FILE = "export.json"
_ONNX = ("onnx", "onnxruntime", "tf2onnx")


@dataclass(frozen=True)
class Format:
    """An export format.

    Attributes:
        file: its place in the export's folder.
        agreement: minimum fraction of images with the Keras model's top-1 class.
        difference: largest difference of a logit (or feature); None: only the agreement counts.
        packages: the packages it needs beside TensorFlow.
        lost: largest loss of top-1 accuracy on labelled images, as a fraction; None: any.
        fewest_images: number of images below which it is refused.
    """

    file: str
    agreement: float = 0.999
    difference: float | None = 1e-3
    packages: tuple[str, ...] = ()
    lost: float | None = None
    fewest_images: int = 0

    def objection(self, agreement: float, lost: float | None) -> str | None:
        """Says what is wrong with a top-1; None if nothing is.

        Args:
            agreement: fraction of images with the Keras model's class.
            lost: the Keras model's accuracy less this one's, as a fraction; None: not known.
        """
        if agreement < self.agreement:
            return f"top-1 agrees on {agreement:.2%} of the images, {self.agreement:.1%} is needed"
        # Rounded, as 0.91 - 0.9 is more than 0.01.
        if self.lost is not None and lost is not None and round(lost, 9) > self.lost:
            return f"top-1 is {100 * lost:.2f} points lower, and {100 * self.lost:g} is allowed"
        return None


FORMATS = {
    # TensorFlow Serving expects numbered versions in a model's folder.
    "savedmodel": Format("savedmodel/1"),
    "tflite": Format("model.tflite"),
    "tflite-int8": Format("model-int8.tflite", agreement=0.95, difference=None),
    "onnx": Format(onnx_file.NAME, packages=_ONNX),
    # Of 50 images, one that differs is 2 %.
    "onnx-int8": Format(
        "model-int8.onnx",
        agreement=0.98,
        difference=None,
        packages=_ONNX,
        lost=0.01,
        fewest_images=50,
    ),
}
INT8 = tuple(name for name in FORMATS if "int8" in name)
"""Formats that need training images for their ranges, and images to be judged by."""


def export_formats(text: str) -> list[str]:
    """Returns the formats in `--export_format`, in the order of `FORMATS`.

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
    """Raises ConfigError unless a format's packages are installed."""
    missing = [package for package in FORMATS[name].packages if find_spec(package) is None]
    if missing:
        raise ConfigError(f"{flag} {name} needs {', '.join(missing)}: {how_to_install('export')}")
