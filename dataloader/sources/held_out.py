"""A validation split out of training images: which of them are held out, whoever asks, and when.

An image is held out by the hash of its own name, so it stays where it is when others come or go,
on every rank, in every launch and after a move to another machine. Needs no TensorFlow.
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
    """What `--validation_fraction` and `--validation_seed` ask for.

    Attributes:
        fraction: of the images of each class, above 0 and below 1.
        seed: another one holds other images out.

    Raises:
        DataError: the fraction is none.
    """

    fraction: float
    seed: int = 0

    def __post_init__(self):
        if not 0 < self.fraction < 1:
            raise DataError(
                f"--validation_fraction must be above 0 and below 1, not {self.fraction}."
            )

    def part(self, images: Mapping[str, Sequence[str]], split: str) -> dict[str, list[str]]:
        """Those images of each class that belong to a split.

        An image is held out if its number, which is uniform in [0, 1), is below the fraction: of
        n images about n · fraction are. A class of two or more always has one in either split, and
        a class of one image keeps it for training.

        Args:
            images: class -> paths below the folder that is divided.
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
        # macOS writes accents as characters of their own: a copy there has the same names.
        name = file if file.isascii() else unicodedata.normalize("NFC", file)
        text = f"{self.seed}\0{name}".encode(errors="surrogateescape")
        return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") / 2**64

    def words(self, split: str) -> str:
        """What to say of a split's images, behind where they are."""
        if split == "train":
            return "all but those held out"
        return f"held out by --validation_fraction {self.fraction:g}"


def division(fraction: float | None, seed: int = 0) -> HeldOut | None:
    """How training images are divided; None: they are not.

    Raises:
        DataError: the fraction is none.
    """
    return None if fraction is None else HeldOut(fraction, seed)
