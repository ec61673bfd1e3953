"""Where examples lie on disk. Here: the interface, TFRecord files, and which source a folder holds.

Image folders are in `folders.py`, prepared TensorFlow Datasets in `tfds.py`. A source knows how
many examples there are and hands out the raw bytes of any of them. TensorFlow is needed only for
the definition of `tf.train.Example`, when records are parsed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from convoy.dataloader.errors import DataError, RecordError
from convoy.dataloader.example import example_keys
from convoy.dataloader.labels import count_classes, labels_of
from convoy.dataloader.records import FRAME_BYTES, RecordIndex, RecordReader, index_files
from convoy.utils.text import TextError, canonical, read_text, split_lines

logger = logging.getLogger("convoy.data")

EXPECTED = (
    "--data_dir should hold TFRecord files (train-* and validation-*, or a version folder of "
    "TensorFlow Datasets) or image folders (train/<class>/*.jpg and val/<class>/*.jpg)."
)
_SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "val", "test")}
_NO_LABELS = "--first_label is for TFRecord files: class folders and TFDS say how labels count."
_NO_CLASS = ("background", "__background__", "dummy", "unused", "none")
_LAYOUT_TRIES = 10  # records that may be damaged before the first good one
_SHARD = re.compile(r"^(?P<set>.*)-(?P<number>\d+)-of-(?P<total>\d+)$")


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


def grey_png(side: int = 16, level: int = 128) -> bytes:
    """An encoded grey image: what stands in for an example that cannot be decoded."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    rows = (b"\0" + bytes([level]) * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


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
    """

    num_examples: int
    class_names: list[str] | None = None
    num_classes: int | None = None
    labels: np.ndarray | None = None
    shuffle_block: int = 1
    damage: Mapping[int, str] = MappingProxyType({})
    first_label: int = 0
    root: str = ""

    def count_classes(self) -> int | None:
        """`num_classes`, or what the records themselves say, which may take minutes once.

        Raises:
            DataError: the records do not say it clearly.
        """
        return self.num_classes

    def read(self, indices: np.ndarray) -> list[bytes]:
        """The raw bytes of these examples. Thread-safe. Raises RecordError at the first bad one."""
        raise NotImplementedError

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

    def describe(self, i: int) -> str:
        """Where example `i` lies, for messages."""
        file, offset = self.locate(i)
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


class TFRecordSource(Source):
    """TFRecord files of `tf.train.Example`s, read at random.

    Args:
        files: in the order that numbers the examples.
        label_offset: what to add to a stored label to count from 0; None takes the layout's own
            (-1 for `image/class/label`, 0 for TFDS's `label`).
        class_names: one name a class, if known.
        layout: the keys of the records; None looks at the first one.

    Raises:
        DataError: a file is no TFRecord file, all are empty, or the first record has neither set
            of keys.
    """

    shuffle_block = 64

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
            raise DataError(f"{some(self.files)}: there is not one record in these files.")
        self._reader = RecordReader(self.files, index)
        self.damage = self._find_damage(index)
        self.layout = self._find_layout() if layout is None else layout
        self._label_offset = -self.layout.first_label if label_offset is None else label_offset
        self.first_label = -self._label_offset
        self.class_names = class_names
        self.num_classes = len(class_names) if class_names else None

    def outside(self, label: int, num_classes: int) -> str:
        written = f"{self.layout.label} is {label + self.first_label}"
        if label < 0:
            return (
                f"{written}, and labels count from {self.first_label} here. Where they count from"
                f" {label + self.first_label}, as those of TF-Slim's data sets do from 0, give"
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
        if self.num_classes is None:
            self.num_classes = count_classes(
                self.files, self._index, self.layout.label, -self._label_offset
            )
        return self.num_classes

    def occurring_labels(self) -> list[int]:
        found = labels_of(self.files, self._index, self.layout.label)
        return [label + self._label_offset for label in found]

    def read(self, indices: np.ndarray) -> list[bytes]:
        return [self._reader.read(int(i)) for i in indices]

    def span(self, i: int) -> tuple[str, int, int | None]:
        file, offset = self._reader.locate(i)
        length = int(self._index.lengths[i])
        return file, offset, -length if length < 0 else length + FRAME_BYTES

    def find(self, file: str, offset: int | None) -> int | None:
        path = os.path.join(self.root, file)
        if offset is None or path not in self.files:
            return None
        number = self.files.index(path)
        first, end = ([0, *self._index.ends.tolist()][k] for k in (number, number + 1))
        i = first + int(np.searchsorted(self._index.offsets[first:end], offset))
        return i if i < end and self._index.offsets[i] == offset else None

    def list_digest(self) -> str:
        digest = hashlib.sha256()
        for name in self.files:
            digest.update(os.path.relpath(name, self.root).encode(errors="surrogateescape") + b"\0")
        for array in (self._index.ends, self._index.offsets, self._index.lengths):
            digest.update(array.tobytes())
        return digest.hexdigest()

    def locate(self, i: int) -> tuple[str, int | None]:
        return self._reader.locate(i)

    def check_every_record(self) -> None:
        """Compares checksums on every read, even where only NumPy can compute them."""
        self._reader.checked = True

    def payload_of(self, i: int) -> tuple[str, int, int]:
        """The file of example `i`, where its payload begins, and the payload's length in bytes."""
        return self._reader.payload_of(i)

    def parse(self, raw: bytes, label: int) -> tuple[bytes, int]:
        # Not by tf.io.parse_single_example, which can crash on damaged bytes (TensorFlow 2.18).
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
            raise RecordError(f"{self.layout.label} is {labels[0]}, which is no class")
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
            logger.warning(
                "%d damaged places in TFRecord files; what was in them counts as one bad example "
                "each. The first: %s",
                *(len(damage), next(iter(damage.values()))),
            )
        return damage

    def _find_layout(self) -> Layout:
        """The layout of the first record that can be read at all."""
        problem = ""
        for i in range(min(self.num_examples, _LAYOUT_TRIES)):
            try:
                keys = example_keys(self._reader.read(i))
                break
            except RecordError as error:
                problem = problem or f"{self.describe(i)}: {error}."
            except ValueError as error:
                what = f"not a serialized tf.train.Example ({error})."
                problem = problem or f"{self.describe(i)}: {what}"
        else:
            raise DataError(problem)
        for layout in LAYOUTS:
            if layout.image in keys and layout.label in keys:
                return layout
        wanted = " or ".join(f"{layout.image!r} with {layout.label!r}" for layout in LAYOUTS)
        raise DataError(
            f"{self.describe(i)}: the record has the keys {', '.join(keys) or '(none)'}; "
            f"expected {wanted}."
        )


def find_source(
    data_dir: str | None,
    split: str,
    dataset: str = "ImageNet",
    first_label: int | None = None,
) -> Source:
    """Finds out what `data_dir` holds and opens one split of it.

    Args:
        data_dir: the folder given as `--data_dir`.
        split: "train" or "validation".
        dataset: "ImageNet" for records or image folders, whichever are there; `tfds:name`,
            `tfds:name/config` or `tfds:name/config:version` for a prepared TensorFlow Dataset
            below `data_dir`.
        first_label: of TFRecord files, the number of the first class; None: the layout's own.

    Raises:
        DataError: the folder is missing, empty, ambiguous, damaged, or has no such split.
        ValueError: `split` is neither of the two.
    """
    if split not in _SPLIT_NAMES:
        raise ValueError(f"split must be 'train' or 'validation', got {split!r}.")
    if not data_dir:
        raise DataError(f"No data: give the folder with --data_dir. {EXPECTED}")
    data_dir = os.fspath(data_dir)
    if not os.path.isdir(data_dir):
        what = "is not a folder" if os.path.exists(data_dir) else "does not exist"
        raise DataError(f"--data_dir {data_dir} {what}. {EXPECTED}")
    try:
        if dataset.startswith("tfds:"):
            if first_label is not None:
                raise DataError(_NO_LABELS)
            from convoy.dataloader.tfds import TFDSSource

            return TFDSSource(data_dir, dataset, split)
        return _records_or_folders(data_dir, split, first_label)
    except TextError as error:
        raise DataError(f"{error}.") from error
    except OSError as error:
        raise DataError(
            f"{error.filename}: cannot be read ({error.strerror}). Check the permissions of "
            "--data_dir and of the folders in it."
        ) from error


def find_record_files(data_dir: str) -> list[str]:
    """The TFRecord files of both splits.

    Raises:
        DataError: there are none, or they are of different sets.
    """
    files = []
    if os.path.isdir(data_dir):
        files = [path for split in _SPLIT_NAMES for path in _find_shards(data_dir, split)]
    if not files:
        raise DataError(f"--data_dir {data_dir} holds no TFRecord files (train-*, validation-*).")
    return files


def _records_or_folders(data_dir: str, split: str, first_label: int | None) -> Source:
    from convoy.dataloader.folders import FolderSource, split_folder

    shards = _find_shards(data_dir, split)
    folder = split_folder(data_dir, split)
    if shards and folder:
        raise DataError(
            f"--data_dir {data_dir} holds both TFRecord files ({os.path.basename(shards[0])}) and "
            f"the image folder {folder} for the {split} split. Move one of them away."
        )
    if shards:
        offset = None if first_label is None else -first_label
        source = TFRecordSource(shards, offset, class_names=read_labels(data_dir))
        if offset is None:
            _tell_of_background(data_dir, source)
        _compare_with_manifest(data_dir, split, source.num_examples)
        return source
    if folder and first_label is not None:
        raise DataError(_NO_LABELS)
    if folder:
        return FolderSource(data_dir, split)
    raise DataError(_nothing_found(data_dir, split))


def _tell_of_background(data_dir: str, source: TFRecordSource) -> None:
    """Warns where names may be one off: TF-Slim's lists begin with a class 0 that has no images."""
    names = source.class_names or []
    if source.first_label == 1 and names[:1] and names[0].lower() in _NO_CLASS:
        logger.warning(
            "%s: labels.txt begins with %r, which is the name of label 1 here. Where it is that of"
            " label 0, as in TF-Slim's data sets, give --first_label 0",
            *(data_dir, names[0]),
        )


def _compare_with_manifest(data_dir: str, split: str, found: int) -> None:
    """Warns if `dataloader.prepare` wrote another number of examples than there are now."""
    path = os.path.join(data_dir, "manifest.json")
    try:
        with open(path, encoding="utf-8") as file:
            written = json.load(file)["splits"][split]["examples"]
    except (OSError, ValueError, LookupError, TypeError):
        return  # not ours, or none
    if written != found:
        logger.warning(
            "%s: %d examples were written to the %s split and %d are there: copy it again",
            *(path, written, split, found),
        )


def _nothing_found(data_dir: str, split: str) -> str:
    seen = sorted(name for name in os.listdir(data_dir) if not name.startswith("."))
    if not seen:
        return f"--data_dir {data_dir} is empty. {EXPECTED}"
    from convoy.dataloader.folders import split_folder

    other = "validation" if split == "train" else "train"
    if _find_shards(data_dir, other) or split_folder(data_dir, other):
        start = f"--data_dir {data_dir} has a {other} split but no {split} split"
    else:
        start = f"--data_dir {data_dir} holds no data for the {split} split"
    return f"{start} (found: {some(seen)}). {EXPECTED}"


def some(names: Sequence[str], count: int = 5) -> str:
    """The first few names, for messages."""
    return ", ".join(names[:count]) + (f", … ({len(names)} in all)" if len(names) > count else "")


def _find_shards(data_dir: str, split: str) -> list[str]:
    """The TFRecord files of a split, sorted; of its name's spellings, the first that has any."""
    with os.scandir(data_dir) as entries:
        files = sorted(
            entry.name
            for entry in entries
            if not entry.name.startswith(".")
            and not entry.name.endswith((".idx", ".index"))
            and entry.is_file()
        )
    for name in _SPLIT_NAMES[split]:
        ours = [file for file in files if file.startswith(f"{name}-")]
        theirs = re.compile(rf"^.+-{name}\.tfrecord-\d+-of-\d+$")
        found = ours or [file for file in files if theirs.match(file)]
        if found:
            _check_shards(data_dir, found)
            return [os.path.join(data_dir, file) for file in found]
    return []


def _check_shards(data_dir: str, files: Iterable[str]) -> None:
    """Refuses two sets of shards in one folder; warns of a set with gaps."""
    sets: dict[tuple[str, int], set[int]] = {}
    for file in files:
        match = _SHARD.match(file)
        if match:
            key = (match["set"], int(match["total"]))
            sets.setdefault(key, set()).add(int(match["number"]))
    if len(sets) > 1:
        names = some([f"{name}-*-of-{total}" for name, total in sorted(sets)])
        raise DataError(
            f"--data_dir {data_dir} holds shards of different sets ({names}): left over from an "
            "earlier preparation? Keep one set."
        )
    for (name, total), numbers in sets.items():
        missing = sorted(set(range(total)) - numbers)
        if missing:
            logger.warning(
                "%s: %d of the %d shards %s-* are missing (%s); going on with the others",
                *(data_dir, len(missing), total, name, some([str(n) for n in missing])),
            )


def read_labels(
    data_dir: str, files: Sequence[str] = ("labels.txt", "label.labels.txt")
) -> list[str] | None:
    """Class names, one a line, from the first of these files (TFDS writes the second) there is.

    Raises:
        DataError, TextError: see `read_names`.
    """
    for name in files:
        path = os.path.join(data_dir, name)
        if os.path.isfile(path):
            return read_names(path, path)
    return None


def read_names(path: str, name: str) -> list[str]:
    """Class names, one a line, of a file that a person may have written; `name` is for errors.

    Raises:
        DataError: a line is empty, and not only at the end; that would move all names after it.
        TextError: it is not text.
        OSError: it cannot be read.
    """
    names = [canonical(line) for line in split_lines(read_text(path, name))]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise DataError(f"{name} is empty: expected one class name a line.")
    if "" in names:
        raise DataError(
            f"{name}: line {names.index('') + 1} is empty: expected one class name a line."
        )
    return names
