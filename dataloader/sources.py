"""Where examples lie on disk. Here: the interface, and which source a folder holds.

TFRecord files are in `record_source.py`, image folders in `folders.py`, lists in `lists.py`,
prepared TensorFlow Datasets in `tfds.py`. A source knows how many examples there are and hands out
the raw bytes of any of them.
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from convoy.dataloader.advice import holds_classes, nothing_found
from convoy.dataloader.completeness import find_gaps
from convoy.dataloader.errors import DataError
from convoy.dataloader.held_out import HeldOut
from convoy.dataloader.label_files import read_labels
from convoy.dataloader.record_files import find_record_files
from convoy.dataloader.splits import (
    SPLIT_NAMES,
    check_place,
    is_list,
    split_called,
    split_folder,
)
from convoy.utils.text import TextError, printable, some

logger = logging.getLogger("convoy.data")

_NOT_DIVIDED = (
    "--validation_fraction divides images in class folders and lists: {} are divided when they are "
    "made (prepare folder --validation_fraction), or need a validation split of their own."
)
_NO_LABELS = (
    "--first_label is for TFRecord files: class folders, lists and TFDS say how labels count."
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


def log_found(source: Source) -> None:
    """Tells what a source holds, and warns of what is odd, by the logger "convoy.data"."""
    logger.info("%s", source.found)
    for note in source.notes:
        logger.warning("%s", note)


def find_source(
    data_dir: str | None,
    split: str,
    dataset: str = "ImageNet",
    first_label: int | None = None,
    tell: Callable[[Source], None] | None = log_found,
    held_out: HeldOut | None = None,
    alone: bool = False,
) -> Source:
    """Finds out what `data_dir` holds and opens one split of it.

    Args:
        data_dir: the folder given as `--data_dir`, or a CSV file that lists images.
        split: "train" or "validation", or as folders are called: "val", "valid", …
        dataset: "ImageNet" for records or image folders, whichever are there; `tfds:name`,
            `tfds:name/config` or `tfds:name/config:version` for a prepared TensorFlow Dataset
            below `data_dir`.
        first_label: of TFRecord files, the number of the first class; None: the layout's own.
        tell: is handed the source, to say what was found (`found`, `notes`); None for nothing.
        held_out: divides images of class folders, or of a list, that have no validation split.
        alone: the other split is not asked for: class folders that are no split are for training
            then, and advice about a split that is missing is about that one.

    Raises:
        DataError: the folder is missing, empty, ambiguous, damaged, or has no such split, or its
            training data have one class, or `split` is neither of the two.
    """
    split = split_called(split)
    tfds = dataset.startswith("tfds:")
    data_dir = check_place(data_dir, lists=not tfds)
    try:
        if tfds:
            if first_label is not None:
                raise DataError(_NO_LABELS)
            if held_out is not None:
                raise DataError(_NOT_DIVIDED.format("TensorFlow Datasets"))
            from convoy.dataloader.tfds import TFDSSource

            source: Source = TFDSSource(data_dir, dataset, split)
        elif is_list(data_dir):
            if first_label is not None:
                raise DataError(_NO_LABELS)
            from convoy.dataloader.lists import ListSource

            source = ListSource(data_dir, split, held_out, alone)
        else:
            source = _records_or_folders(data_dir, split, first_label, held_out, alone)
    except TextError as error:
        raise DataError(f"{error}.") from error
    except OSError as error:
        raise DataError(
            f"{error.filename}: cannot be read ({error.strerror}). Check the permissions of "
            "--data_dir and of the folders in it."
        ) from error
    if split == "train" and source.num_classes == 1:
        raise DataError(f"{source.root}: one class, and a classifier needs two or more.")
    if tell is not None:
        tell(source)
    return source


def _records_or_folders(
    data_dir: str, split: str, first_label: int | None, held_out: HeldOut | None, alone: bool
) -> Source:
    from convoy.dataloader.folders import FolderSource
    from convoy.dataloader.record_source import TFRecordSource, background_note

    shards = find_record_files(data_dir, split)
    folder = split_folder(data_dir, split)
    if shards.files and folder:
        raise DataError(
            f"--data_dir {data_dir} holds both TFRecord files "
            f"({os.path.basename(shards.files[0])}) and the image folder {folder} for the {split} "
            "split. Move one of them away."
        )
    if shards.files and held_out is not None:
        raise DataError(_NOT_DIVIDED.format("TFRecord files"))
    if shards.files:
        offset = None if first_label is None else -first_label
        source = TFRecordSource(shards.files, offset, class_names=read_labels(data_dir))
        source.found = f"{split}: {source.found}"
        if shards.unused:
            source.found += f"; not used: {some(shards.unused)}"
        lost, doubts = find_gaps(data_dir, split, source.files, source.records_by_file())
        source.lost = [*shards.lost, *lost]
        source.notes = [*source.lost, *doubts, *source.notes]
        if offset is None:
            source.notes += background_note(data_dir, source)
        return source
    if (folder or held_out) and first_label is not None:
        raise DataError(_NO_LABELS)
    if folder or held_out:
        return FolderSource(data_dir, split, held_out)
    others = [
        other
        for other in SPLIT_NAMES
        if find_record_files(data_dir, other).files or split_folder(data_dir, other)
    ]
    if alone and split == "train" and not others and holds_classes(data_dir):
        if first_label is not None:
            raise DataError(_NO_LABELS)
        return FolderSource(data_dir, split, whole=True)
    raise DataError(nothing_found(data_dir, split, others, alone))
