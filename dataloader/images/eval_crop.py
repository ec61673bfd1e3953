"""Says how evaluation and predict cut an image's square. Imports no TensorFlow."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from convoy.dataloader.images.exif import check_orientation
from convoy.dataloader.images.interpolations import check_interpolation


@dataclass(frozen=True)
class EvalCrop:
    """Settings with which evaluation and predict cut an `N` x `N` square out of an image.

    Attributes:
        padding: pixels of border to leave out. 0 uses the whole short side.
        method: "crop" (EfficientNet): cut the centre square of side
            `floor(N / (N + padding) * min(H, W))`, then resize it to N. "resize" (ResNet,
            torchvision): resize the short side to `N + padding`, keeping the aspect, then cut the
            centre N x N.
        interpolation: one of `interpolations.INTERPOLATIONS`.
        antialias: apply a filter when shrinking, as Pillow does.
        exif_orientation: "apply" turns the image first, as EXIF says; "ignore" does not.
    """

    padding: int = 32
    method: str = "crop"
    interpolation: str = "bilinear"
    antialias: bool = False
    exif_orientation: str = "ignore"

    def __post_init__(self) -> None:
        if isinstance(self.padding, bool) or not isinstance(self.padding, int) or self.padding < 0:
            raise ValueError(f"eval crop padding must be 0 or more pixels, got {self.padding!r}.")
        if self.method not in ("crop", "resize"):
            raise ValueError(f"eval crop method must be 'crop' or 'resize', got {self.method!r}.")
        check_interpolation(self.interpolation)
        check_orientation(self.exif_orientation)

    @property
    def turn(self) -> bool:
        """Returns whether EXIF's orientation is applied."""
        return self.exif_orientation == "apply"

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, for JSON and YAML."""
        return dataclasses.asdict(self)
