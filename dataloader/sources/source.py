"""The interface of data sources. A source knows how many examples there are, and hands out the raw
bytes of any of them.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from convoy.utils.text import printable, some


class Source:
    """Examples by number. Subclasses fill in the attributes and the three methods.

    Attributes:
        num_examples: examples in the whole split.
        class_names: one name a class, or None when nothing on disk tells.
        num_classes: number of classes, or None when only the records know.
        labels: int32 `(num_examples,)`, or None when the labels are inside the records.
        shuffle_block: neighbours worth reading together (1 where every example is a file).
        damage: examples known to be unreadable from the start: number -> where and why.
        first_label: the number of the first class in the files; `parse` counts from 0.
        root: the folder that all files of the split lie in.
        found: a line that tells what there is, and what was left out.
        notes: warnings, a line each.
        lost: those of them about examples that are certainly missing.
        lacking: classes without an example that they tell of.
    """

    num_examples: int
    class_names: list[str] | None = None
    num_classes: int | None = None
    labels: np.ndarray | None = None
    shuffle_block: int = 1
    damage: Mapping[int, str] = MappingProxyType({})
    first_label: int = 0
    root: str = ""
    found: str = ""
    notes: Sequence[str] = ()
    lost: Sequence[str] = ()
    lacking: Sequence[str] = ()

    def count_classes(self) -> int | None:
        """`num_classes`, or what the records themselves say, which may take minutes once.

        Raises:
            DataError: the records do not say it clearly.
        """
        return self.num_classes

    def read(self, indices: np.ndarray) -> list[bytes]:
        """The raw bytes of these examples. Thread-safe. Raises RecordError at the first bad one."""
        raise NotImplementedError

    def encoded(self, i: int) -> bytes:
        """The encoded image of example `i`, got without TensorFlow.

        Raises:
            RecordError: the example does not hold one.
        """
        return self.parse(self.read(np.array([i]))[0], 0)[0]

    def locate(self, i: int) -> tuple[str, int | None]:
        """The file of example `i`, and the byte its record begins at; None: the file is it."""
        raise NotImplementedError

    def place(self, i: int) -> tuple[str, int | None]:
        """As `locate`, with the file's path below `root`: the same wherever the data lie."""
        file, offset = self.locate(i)
        return os.path.relpath(file, self.root), offset

    def span(self, i: int) -> tuple[str, int, int | None]:
        """Where the bytes of example `i` lie: file, first byte, number; None: to the file's end."""
        raise NotImplementedError

    def find(self, file: str, offset: int | None) -> int | None:
        """The number of the example whose `place` this is, or None."""
        raise NotImplementedError

    def list_digest(self) -> str:
        """A hash of which examples there are, and in which order; not of their content."""
        raise NotImplementedError

    def occurring_labels(self) -> list[int]:
        """The labels that at least one example has, rising; may take minutes once for records."""
        return [] if self.labels is None else np.unique(self.labels).tolist()

    def all_labels(self) -> np.ndarray:
        """The label of every example, from 0, -1 where it cannot be read: int32 `(N,)`; may take
        minutes once for records.
        """
        if self.labels is None:
            raise NotImplementedError
        return self.labels

    def describe(self, i: int) -> str:
        """Where example `i` lies, for messages."""
        file, offset = self.locate(i)
        file = printable(file)
        return file if offset is None else f"{file}, record at byte {offset}"

    def outside(self, label: int, num_classes: int) -> str:
        """What to say of a label, from 0, that is outside the classes."""
        return (
            f"label {label} (counted from 0) is outside --num_classes {num_classes}. Set"
            " --num_classes to the data's classes, or correct the label."
        )

    def parse(self, raw: bytes, label: int) -> tuple[bytes, int]:
        """Raw bytes, and `labels[i]` or 0 -> encoded image, label from 0.

        Raises:
            RecordError: the bytes do not hold one image and one label.
        """
        raise NotImplementedError


def classes_text(names: Sequence[str]) -> str:
    """Such as "3 classes (cat, dog, owl)"."""
    return f"{len(names)} class{'es' if len(names) != 1 else ''} ({some(names)})"


def lacking_notes(names: Sequence[str], single: Collection[str] = ()) -> list[str]:
    """Warnings about classes without an example in a split.

    Args:
        single: those of them whose only image was kept for training.
    """
    notes = []
    if kept := [name for name in names if name in single]:
        which = some(kept)
        notes.append(
            f"{which} has one image: it is trained on, and not evaluated"
            if len(kept) == 1
            else f"{len(kept)} classes have one image each: they are trained on, and not evaluated"
            f" ({which})"
        )
    if none := [name for name in names if name not in single]:
        which = f"{len(none)} classes" if len(none) > 1 else "one class"
        notes.append(f"no images of {which}: {some(none)}")
    return notes
