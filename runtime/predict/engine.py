"""Says what predict needs of a program that computes a model's answers. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Engine(Protocol):
    """Computes a model's answers, and prepares images for it.

    Attributes:
        text: describes the model and the program, for people.
        class_names: names in the training data, or None.
        classes: number of the model's outputs.
        size: side of the model's images in pixels.
        batch: number of images to compute together.
        at_once: number of calls of `probabilities` that run at the same time, each on its own share
            of the processor. 1: a call uses all of it.
    """

    text: str
    class_names: Sequence[str] | None
    classes: int
    size: int
    batch: int
    at_once: int

    def square(self, encoded: bytes) -> np.ndarray:
        """Returns the model's view of an encoded image, `(size, size, 3)` in 0-255.

        It is uint8, or float32 if `eval_crop(config)` does not round.

        Raises:
            BadImage: the bytes are not an image.
        """

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Returns float32 `(images, classes)` for pixels `(images, size, size, 3)`.

        They are NaN for an image with a logit that is not finite.
        """
