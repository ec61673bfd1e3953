"""Renumbers a data set's classes to match a model's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from convoy.dataloader.sources.source import Source, Wrapped

UNKNOWN = -1
"""Number of a class that the model lacks."""


class Renumbered(Wrapped):
    """Another source's examples with a model's class numbers as labels.

    Args:
        source: the data with its own numbers.
        numbers: for each class of the data in order, the model's number, or `UNKNOWN`.
        class_names: the model's, in its order; None if it has none.
        num_classes: number of the model's classes.
    """

    def __init__(
        self,
        source: Source,
        numbers: Sequence[int],
        class_names: Sequence[str] | None,
        num_classes: int,
    ):
        super().__init__(source)
        self.class_names = None if class_names is None else list(class_names)
        self.num_classes = self._classes = num_classes
        self.first_label = source.first_label
        self._numbers = np.array(numbers, np.int32)
        found = set(numbers)
        self.absent = [name for i, name in enumerate(class_names or []) if i not in found]
        if source.labels is not None:
            self.labels = self._numbers[source.labels]

    def encoded(self, i: int) -> bytes:
        """See `Source.encoded`; only labels change."""
        return self.inner.encoded(i)

    def outside(self, label: int, num_classes: int) -> str:
        """See `Source.outside`; the inner source knows the numbers in the data."""
        return self.inner.outside(label, num_classes)

    def all_labels(self) -> np.ndarray:
        """Returns the model's numbers; -1 for labels that it does not know."""
        labels = self.inner.all_labels()
        known = (labels >= 0) & (labels < len(self._numbers))
        return np.where(known, self._numbers[np.where(known, labels, 0)], -1).astype(np.int32)

    def parse(self, raw: bytes, label: int) -> tuple[bytes, int]:
        """Returns the image, and the model's number of its class."""
        image, label = self.inner.parse(raw, label)
        if self.inner.labels is not None:
            return image, label  # from `labels`, which has the model's numbers
        if 0 <= label < len(self._numbers):
            return image, int(self._numbers[label])
        # keeps labels outside the classes outside
        return image, label if label < 0 else self._classes + label
