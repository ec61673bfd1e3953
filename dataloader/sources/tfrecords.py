"""Reads examples from TFRecord files of `tf.train.Example`s.

It needs TensorFlow only for the definition of `tf.train.Example`, to parse records.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convoy.dataloader.errors import DataError, RecordError
from convoy.dataloader.sources.class_count import UNREAD, count_classes, every_label, labels_of
from convoy.dataloader.sources.source import Source, classes_text
from convoy.dataloader.tfrecord.example import decode_example, example_keys
from convoy.dataloader.tfrecord.random_access import (
    FRAME_BYTES,
    RecordIndex,
    RecordReader,
    index_files,
)
from convoy.utils.text import some

_NO_CLASS = ("background", "__background__", "dummy", "unused", "none")
# Number of records to examine for their keys: the first ones and, if these are damaged, that many
# spread over all files.
_FIRST_TRIES, _MORE_TRIES = 10, 1000


@dataclass(frozen=True)
class Layout:
    """The keys of an Example and the number of its first class."""

    image: str
    label: str
    first_label: int


LAYOUTS = (
    Layout("image/encoded", "image/class/label", first_label=1),  # the classic ImageNet builder
    Layout("image", "label", first_label=0),  # TensorFlow Datasets
)


class TFRecordSource(Source):
    """A source that reads TFRecord files of `tf.train.Example`s at random positions.

    Args:
        files: in the order in which their examples are numbered.
        label_offset: what to add to a stored label to count from 0; None takes the layout's own
            (-1 for `image/class/label`, 0 for TFDS's `label`).
        class_names: one name per class, if known.
        layout: the keys of the records; None takes them from the first record.

    Raises:
        DataError: a file is not a TFRecord file, all are empty, or the first record has neither set
            of keys.
    """

    shuffle_block = 64
    notes: list[str]

    def __init__(
        self,
        files: Sequence[str],
        label_offset: int | None = None,
        class_names: list[str] | None = None,
        layout: Layout | None = None,
    ):
        self.files = [os.fspath(path) for path in files]
        self.root = os.path.dirname(self.files[0])
        self._index = index = index_files(self.files)
        self.num_examples = len(index.offsets)
        if not self.num_examples:
            raise DataError(f"{some(self.files)}: these files hold no records.")
        self._reader = RecordReader(self.files, index)
        self.notes = []
        self.damage = self._find_damage(index)
        self.layout = self._find_layout() if layout is None else layout
        self._label_offset = -self.layout.first_label if label_offset is None else label_offset
        self.first_label = -self._label_offset
        self.class_names = class_names
        self.num_classes = len(class_names) if class_names else None
        self.found = self._describe()

    def _describe(self) -> str:
        counts = self.records_by_file()
        least, most = min(counts), max(counts)
        each = f" of {least} to {most} records" if least < most else ""
        files = f"{len(counts)} TFRecord file{'s' if len(counts) > 1 else ''}{each}"
        classes = f" of {classes_text(self.class_names)}" if self.class_names else ""
        return f"{self.num_examples} images{classes} in {files} in {self.root}"

    def records_by_file(self) -> list[int]:
        """Returns the number of records in each file."""
        return np.diff(self._index.ends, prepend=0).tolist()

    def outside(self, label: int, num_classes: int) -> str:
        """Describes the label as the record has it, and the way out."""
        written = f"{self.layout.label} is {label + self.first_label}"
        if label < 0:
            return (
                f"{written}, and labels count from {self.first_label} here. If they count from"
                f" {label + self.first_label}, as TF-Slim's data sets count from 0, give"
                f" --first_label {label + self.first_label}; or correct the label."
            )
        classes, remedy = f"--num_classes {num_classes}", "Set --num_classes to the data's classes"
        if self.class_names and len(self.class_names) == num_classes:
            classes, remedy = f"the {num_classes} names of labels.txt", "Add its name there"
        return (
            f"{written}, counted from {self.first_label} (--first_label), and is outside {classes}."
            f" {remedy}, or correct the label."
        )

    def count_classes(self) -> int | None:
        """Reads all labels, once; see `class_count.count_classes`."""
        if self.num_classes is None:
            self.num_classes = count_classes(
                self.files, self._index, self.layout.label, -self._label_offset
            )
        return self.num_classes

    def occurring_labels(self) -> list[int]:
        """Reads all labels, unless they are cached."""
        found = labels_of(self.files, self._index, self.layout.label)
        return [label + self._label_offset for label in found]

    def all_labels(self) -> np.ndarray:
        """Reads all labels, unless they are cached."""
        stored = every_label(self.files, self._index, self.layout.label)
        labels = stored + self._label_offset
        labels[(stored == UNREAD) | (labels < 0) | (labels >= 2**31)] = -1
        return labels.astype(np.int32)

    def read(self, indices: np.ndarray) -> list[bytes]:
        """Returns the records; see `RecordReader.read` for what is checked."""
        return [self._reader.read(int(i)) for i in indices]

    def encoded(self, i: int) -> bytes:
        """Returns the image in a record, without TensorFlow."""
        raw = self._reader.read(i)
        try:
            (image,) = decode_example(raw)[self.layout.image] or []
        except (KeyError, ValueError) as error:
            raise RecordError(f"{self.layout.image} holds no image") from error
        if not isinstance(image, bytes):
            raise RecordError(f"{self.layout.image} holds no image")
        return image

    def span(self, i: int) -> tuple[str, int, int | None]:
        """Returns the record with its framing; of a damaged one, the number of bytes that exist."""
        file, offset = self._reader.locate(i)
        length = int(self._index.lengths[i])
        return file, offset, -length if length < 0 else length + FRAME_BYTES

    def find(self, file: str, offset: int | None) -> int | None:
        """Returns the number of the record that begins at this byte of a file."""
        path = os.path.join(self.root, file)
        if offset is None or path not in self.files:
            return None
        number = self.files.index(path)
        first, end = ([0, *self._index.ends.tolist()][k] for k in (number, number + 1))
        i = first + int(np.searchsorted(self._index.offsets[first:end], offset))
        return i if i < end and self._index.offsets[i] == offset else None

    def list_digest(self) -> str:
        """Returns a hash of the files' names and their records' places."""
        digest = hashlib.sha256()
        for name in self.files:
            digest.update(os.path.relpath(name, self.root).encode(errors="surrogateescape") + b"\0")
        for array in (self._index.ends, self._index.offsets, self._index.lengths):
            digest.update(array.tobytes())
        return digest.hexdigest()

    def locate(self, i: int) -> tuple[str, int | None]:
        """Returns the record's file and first byte."""
        return self._reader.locate(i)

    def check_every_record(self) -> None:
        """Compares checksums on every read, even if only the slower NumPy can compute them."""
        self._reader.checked = True

    def payload_of(self, i: int) -> tuple[str, int, int]:
        """Returns the file of example `i`, the start of its payload, and its length in bytes."""
        return self._reader.payload_of(i)

    def parse(self, raw: bytes, label: int) -> tuple[bytes, int]:
        """Returns the image and the label of a serialized `tf.train.Example`."""
        # Avoids tf.io.parse_single_example, which can crash on damaged bytes (TensorFlow 2.18).
        from google.protobuf.message import DecodeError
        from tensorflow.core.example.example_pb2 import Example

        try:
            features = Example.FromString(raw).features.feature
        except DecodeError as error:
            raise RecordError(f"not a serialized tf.train.Example ({error})") from error
        images = self._values(features, self.layout.image, "bytes_list")
        labels = self._values(features, self.layout.label, "int64_list")
        number = labels[0] + self._label_offset
        if abs(number) >= 2**31:
            raise RecordError(f"{self.layout.label} is {labels[0]}, which cannot be a class number")
        return images[0], number

    def _values(self, features: Any, key: str, kind: str) -> Sequence[Any]:
        if key not in features:
            raise RecordError(
                f"the record has no {key} (but {some(sorted(features)) or 'nothing'})"
            )
        held = features[key].WhichOneof("kind") or "nothing"
        values = getattr(features[key], kind).value
        if len(values) != 1:
            found = f"{len(values)} values" if held == kind else held.removesuffix("_list")
            raise RecordError(f"{key} holds {found}, not one {kind.removesuffix('_list')} value")
        return values

    def _find_damage(self, index: RecordIndex) -> dict[int, str]:
        damage = {}
        for i in index.holes():
            try:
                self._reader.read(i)
            except RecordError as error:
                damage[i] = f"{self.describe(i)}: {error}"
        if damage:
            self.notes.append(
                f"{len(damage)} damaged places in TFRecord files; each counts as one bad "
                f"example. The first: {next(iter(damage.values()))}"
            )
        return damage

    def _find_layout(self) -> Layout:
        """Returns the layout of the first record that has one; earlier records are bad examples."""
        last = self.num_examples - 1
        more = np.unique(np.linspace(0, last, min(_MORE_TRIES, last + 1)).astype(np.int64))
        problem = keyless = ""
        for i in [*range(min(last + 1, _FIRST_TRIES)), *more.tolist()]:
            try:
                keys = example_keys(self._reader.read(i))
            except RecordError as error:
                problem = problem or f"{self.describe(i)}: {error}."
                continue
            except ValueError as error:
                what = f"not a serialized tf.train.Example ({error})."
                problem = problem or f"{self.describe(i)}: {what}"
                continue
            for layout in LAYOUTS:
                if layout.image in keys and layout.label in keys:
                    return layout
            keyless = keyless or f"{self.describe(i)}: the record has the keys {_some_keys(keys)}"
        wanted = " or ".join(f"{layout.image!r} with {layout.label!r}" for layout in LAYOUTS)
        raise DataError(f"{keyless}; expected {wanted}." if keyless else problem)


def _some_keys(keys: Sequence[str]) -> str:
    return some(keys, 20) or "(none)"


def background_note(data_dir: str, source: TFRecordSource) -> list[str]:
    """Warns if names may be off by one: TF-Slim's lists begin with a class 0 without images."""
    names = source.class_names or []
    if source.first_label == 1 and names[:1] and names[0].lower() in _NO_CLASS:
        return [
            f"{data_dir}: labels.txt begins with {names[0]!r}, which names label 1 here. "
            "If it names label 0, as in TF-Slim's data sets, give --first_label 0"
        ]
    return []
