"""Finds out what kind of data a folder holds, and opens it as the right source.

TFRecord files are in `tfrecords.py`, image folders in `folders.py`, lists in `lists.py`,
prepared TensorFlow Datasets in `tfds.py`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from convoy.dataloader.errors import DataError, NoSplit
from convoy.dataloader.sources.advice import holds_classes, nothing_found
from convoy.dataloader.sources.completeness import find_gaps
from convoy.dataloader.sources.held_out import HeldOut
from convoy.dataloader.sources.label_files import read_labels
from convoy.dataloader.sources.source import Source
from convoy.dataloader.sources.splits import (
    SPLIT_NAMES,
    check_place,
    is_list,
    split_called,
    split_folder,
)
from convoy.dataloader.sources.tfrecord_files import RecordFiles, find_record_files
from convoy.utils.text import TextError, some

logger = logging.getLogger("convoy.data")

_NOT_DIVIDED = (
    "--validation_fraction divides images in class folders and lists: {} are divided when they are "
    "made (prepare folder --validation_fraction), or need a validation split of their own."
)
_NO_LABELS = (
    "--first_label is for TFRecord files: class folders, lists and TFDS say how labels count."
)


def log_found(source: Source) -> None:
    """Logs what a source holds, and warnings about it, to "convoy.data"."""
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
        split: "train" or "validation", or a folder's name: "val", "valid", … …
        dataset: "ImageNet" for records or image folders, whichever it finds; `tfds:name`,
            `tfds:name/config` or `tfds:name/config:version` for a prepared TensorFlow Dataset below
            `data_dir`.
        first_label: the number of the first class in TFRecord files; None: the layout's own.
        tell: called with the source, to report what was found (`found`, `notes`); None reports
            nothing.
        held_out: divides images of class folders or of a list without a validation split.
        alone: the other split is not needed. Then class folders outside a split are for training,
            and advice about a missing split is only about this one.

    Raises:
        DataError: the folder is missing, empty, ambiguous, damaged, or has no such split; its
            training data have only one class; or `split` is neither of the two.
    """
    split = split_called(split)
    tfds = dataset.startswith("tfds:")
    data_dir = check_place(data_dir, lists=not tfds)
    try:
        if tfds:
            source = _tfds(data_dir, split, dataset, first_label, held_out)
        elif is_list(data_dir):
            source = _list(data_dir, split, first_label, held_out, alone)
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


def _tfds(
    data_dir: str, split: str, dataset: str, first_label: int | None, held_out: HeldOut | None
) -> Source:
    from convoy.dataloader.sources.tfds import TFDSSource

    if first_label is not None:
        raise DataError(_NO_LABELS)
    if held_out is not None:
        raise DataError(_NOT_DIVIDED.format("TensorFlow Datasets"))
    return TFDSSource(data_dir, dataset, split)


def _list(
    data_dir: str, split: str, first_label: int | None, held_out: HeldOut | None, alone: bool
) -> Source:
    from convoy.dataloader.sources.lists import ListSource

    if first_label is not None:
        raise DataError(_NO_LABELS)
    return ListSource(data_dir, split, held_out, alone)


def _records_or_folders(
    data_dir: str, split: str, first_label: int | None, held_out: HeldOut | None, alone: bool
) -> Source:
    from convoy.dataloader.sources.folders import FolderSource

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
        return _records(data_dir, split, shards, first_label)
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
    raise (NoSplit if others else DataError)(nothing_found(data_dir, split, others, alone))


def _records(data_dir: str, split: str, shards: RecordFiles, first_label: int | None) -> Source:
    from convoy.dataloader.sources.tfrecords import TFRecordSource, background_note

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
