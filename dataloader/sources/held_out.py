"""Splits a validation set off the training images, reproducibly.

The hash of an image's own name decides whether it is held out. So it stays in its split when other
images come or go, on every rank, in every run, and on another machine. Needs no TensorFlow.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from convoy.dataloader.errors import DataError

HOLDING_NONE_OUT = "Add images; or train without an evaluation: --mode train, without this flag."


@dataclass(frozen=True)
class HeldOut:
    """The division set by `--validation_fraction` and `--validation_seed`.

    Attributes:
        fraction: fraction of each class's images to hold out, above 0 and below 1.
        seed: another seed holds out other images.

    Raises:
        DataError: the fraction is not between 0 and 1.
    """

    fraction: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise DataError(
                f"--validation_fraction must be above 0 and below 1, not {self.fraction}."
            )

    def part(self, images: Mapping[str, Sequence[str]], split: str) -> dict[str, list[str]]:
        """Returns the images of each class that belong to a split.

        An image is held out if its number, uniform in [0, 1), is below the fraction: about n ·
        fraction of n images. A class with two or more images always has one in each split; a single
        image stays in training.

        Args:
            images: class -> paths below the divided folder.
            split: "train" or "validation".
        """
        return {name: self._of_class(files, split) for name, files in images.items()}

    def _of_class(self, files: Sequence[str], split: str) -> list[str]:
        numbers = {file: self._number(file) for file in files}
        out = {file for file, number in numbers.items() if number < self.fraction}
        if len(files) > 1 and not out:
            out = {min(files, key=numbers.__getitem__)}
        if files and len(out) == len(files):
            out -= {max(files, key=numbers.__getitem__)}
        return [file for file in files if (file in out) == (split == "validation")]

    def _number(self, file: str) -> float:
        # macOS stores accents as separate characters; normalise, so that a copy there has the same
        # names.
        name = file if file.isascii() else unicodedata.normalize("NFC", file)
        text = f"{self.seed}\0{name}".encode(errors="surrogateescape")
        return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") / 2**64

    def words(self, split: str) -> str:
        """Returns text about a split's images, to follow their location."""
        if split == "train":
            return "all but those held out"
        return f"held out by --validation_fraction {self.fraction:g}"


def division(fraction: float | None, seed: int = 0) -> HeldOut | None:
    """Returns the division of the training images, or None without one.

    Raises:
        DataError: the fraction is not between 0 and 1.
    """
    return None if fraction is None else HeldOut(fraction, seed)
