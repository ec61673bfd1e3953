"""Defines the interface of data sources: the number of examples, and access to their raw bytes."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from convoy.utils.text import printable, some


class Source:
    """Gives access to examples by number.

    Subclasses set the attributes and implement three methods.

    Attributes:
        num_examples: examples in the whole split.
        class_names: one name per class, or None if nothing on disk says.
        num_classes: number of classes, or None if only the records tell.
        labels: int32 `(num_examples,)`, or None if the labels are inside the records.
        shuffle_block: number of neighbours worth reading together (1 if every example is a file).
        damage: examples known to be unreadable from the start: number -> place and reason.
        first_label: the number of the first class in the files; `parse` counts from 0.
        root: the folder of all files of the split.
        found: one line about what was found and what was left out.
        notes: warnings, one line each.
        lost: the warnings about examples that are certainly missing.
        lacking: classes without an example; the warnings mention them.
        absent: classes of the model that the data do not have.
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
    absent: Sequence[str] = ()

    def count_classes(self) -> int | None:
        """Returns `num_classes`, or counts the classes in the records, which may take minutes once.

        Raises:
            DataError: the records give no clear answer.
        """
        return self.num_classes

    def read(self, indices: np.ndarray) -> list[bytes]:
        """Returns the raw bytes of these examples.

        Thread-safe. Raises RecordError at the first bad one.
        """
        raise NotImplementedError

    def encoded(self, i: int) -> bytes:
        """Returns the encoded image of example `i`, without TensorFlow.

        Raises:
            RecordError: the example has no image.
        """
        return self.parse(self.read(np.array([i]))[0], 0)[0]

    def locate(self, i: int) -> tuple[str, int | None]:
        """Returns the file of example `i`, and the first byte of its record.

        The byte is None if the file is the example.
        """
        raise NotImplementedError

    def place(self, i: int) -> tuple[str, int | None]:
        """Like `locate`, with the file's path below `root`: the same wherever the data are."""
        file, offset = self.locate(i)
        return os.path.relpath(file, self.root), offset

    def span(self, i: int) -> tuple[str, int, int | None]:
        """Returns where example `i` is: file, first byte, number of bytes (None: all the rest)."""
        raise NotImplementedError

    def find(self, file: str, offset: int | None) -> int | None:
        """Returns the number of the example with this `place`, or None."""
        raise NotImplementedError

    def list_digest(self) -> str:
        """Returns a hash of the examples and their order, but not of their content."""
        raise NotImplementedError

    def occurring_labels(self) -> list[int]:
        """Returns the labels that occur, in rising order; may take minutes once for records."""
        return [] if self.labels is None else np.unique(self.labels).tolist()

    def all_labels(self) -> np.ndarray:
        """Returns the label of every example, from 0, or -1 if unreadable: int32 `(N,)`.

        May take minutes once for records.
        """
        if self.labels is None:
            raise NotImplementedError
        return self.labels

    def describe(self, i: int) -> str:
        """Returns the location of example `i`, for messages."""
        file, offset = self.locate(i)
        file = printable(file)
        return file if offset is None else f"{file}, record at byte {offset}"

    def outside(self, label: int, num_classes: int) -> str:
        """Returns the message about a label, from 0, that is outside the classes."""
        return (
            f"label {label} (counted from 0) is outside --num_classes {num_classes}. Set"
            " --num_classes to the data's classes, or correct the label."
        )

    def parse(self, raw: bytes, label: int) -> tuple[bytes, int]:
        """Converts raw bytes, and `labels[i]` or 0, to an encoded image and a label from 0.

        Raises:
            RecordError: the bytes do not contain one image and one label.
        """
        raise NotImplementedError


class Wrapped(Source):
    """Another source's examples. Subclasses override what they change.

    Args:
        source: the other source.
    """

    def __init__(self, source: Source):
        self.inner = source
        self.num_examples, self.shuffle_block = source.num_examples, source.shuffle_block
        self.damage, self.root, self.lacking = source.damage, source.root, source.lacking

    def read(self, indices: np.ndarray) -> list[bytes]:
        """See `Source.read`."""
        return self.inner.read(indices)

    def locate(self, i: int) -> tuple[str, int | None]:
        """See `Source.locate`."""
        return self.inner.locate(i)

    def span(self, i: int) -> tuple[str, int, int | None]:
        """See `Source.span`."""
        return self.inner.span(i)

    def find(self, file: str, offset: int | None) -> int | None:
        """See `Source.find`."""
        return self.inner.find(file, offset)

    def list_digest(self) -> str:
        """See `Source.list_digest`."""
        return self.inner.list_digest()


def classes_text(names: Sequence[str]) -> str:
    """Returns text such as "3 classes (cat, dog, owl)"."""
    return f"{len(names)} class{'es' if len(names) != 1 else ''} ({some(names)})"


def lacking_notes(names: Sequence[str], single: Collection[str] = ()) -> list[str]:
    """Returns warnings about classes without an example in a split.

    Args:
        names: the classes without one.
        single: the classes whose only image was kept for training.
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
