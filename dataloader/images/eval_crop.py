"""Says how evaluation and predict cut an image's square. Imports no TensorFlow."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from convoy.dataloader.images.exif import check_orientation
from convoy.dataloader.images.interpolations import check_interpolation

METHODS = ("crop", "resize", "squash")
PILLOWS = ("bilinear", "bicubic", "nearest")
"""Interpolations of Pillow that `dataloader.images.pillow_resizing` reproduces."""


@dataclass(frozen=True)
class EvalCrop:
    """Settings with which evaluation and predict cut an `N` x `N` square out of an image.

    Attributes:
        padding: pixels of border to leave out. 0 uses the whole short side.
        method: "crop" (EfficientNet): cut the centre square of side
            `floor(N / (N + padding) * min(H, W))`, then resize it to N. "resize" (ResNet,
            torchvision): resize the short side to `N + padding`, keeping the aspect, then cut the
            centre N x N. "squash": resize both sides to `N + padding`, then cut the centre N x N.
        interpolation: one of `interpolations.INTERPOLATIONS`.
        antialias: apply a filter when shrinking, as Pillow does.
        exif_orientation: "apply" turns the image first, as EXIF says; "ignore" does not.
        arithmetic: "own" resizes as `tf.image.resize` and rounds once. "pillow" resizes to the bit
            as Pillow, always with its filter for shrinking; for the methods "resize" and "squash".
            "tensorflow" decodes and resizes with TensorFlow's defaults; for the method "crop".
        rounded: whether pixels become uint8. Only "tensorflow" may leave them float32.
    """

    padding: int = 32
    method: str = "crop"
    interpolation: str = "bilinear"
    antialias: bool = False
    exif_orientation: str = "ignore"
    arithmetic: str = "own"
    rounded: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.padding, bool) or not isinstance(self.padding, int) or self.padding < 0:
            raise ValueError(f"eval crop padding must be 0 or more pixels, got {self.padding!r}.")
        methods = {"own": METHODS, "pillow": METHODS[1:], "tensorflow": METHODS[:1]}
        if self.arithmetic not in methods:
            raise ValueError(f"eval crop arithmetic is unknown: {self.arithmetic!r}.")
        if self.method not in (allowed := methods[self.arithmetic]):
            raise ValueError(f"eval crop method must be one of {allowed}, got {self.method!r}.")
        if self.arithmetic == "pillow" and self.interpolation not in PILLOWS:
            raise ValueError(f"eval crop interpolation must be one of {PILLOWS} in Pillow's way.")
        if not self.rounded and self.arithmetic != "tensorflow":
            raise ValueError("eval crop pixels are rounded, except with arithmetic 'tensorflow'.")
        check_interpolation(self.interpolation)
        check_orientation(self.exif_orientation)

    @property
    def turn(self) -> bool:
        """Returns whether EXIF's orientation is applied."""
        return self.exif_orientation == "apply"

    def in_bytes(self) -> EvalCrop:
        """Returns these settings with rounded pixels, for models that take only uint8."""
        return dataclasses.replace(self, rounded=True)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, for JSON and YAML."""
        return dataclasses.asdict(self)
