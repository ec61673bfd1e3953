"""Reads lists of images: a CSV file with a path and a label in each row, and perhaps a split."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from convoy.dataloader.errors import DataError, NoSplit
from convoy.dataloader.sources.advice import OWN_PART
from convoy.dataloader.sources.csv_files import TEST, Row, read_rows, split_named
from convoy.dataloader.sources.file_source import FileSource
from convoy.dataloader.sources.held_out import HOLDING_NONE_OUT, HeldOut
from convoy.dataloader.sources.source import classes_text, lacking_notes
from convoy.dataloader.sources.splits import LISTS
from convoy.utils.files import is_url
from convoy.utils.text import printable, some

_THREADS = 16


class ListSource(FileSource):
    """A source with the images of one split of a list.

    A column gives each row's split. Without this column, the list's name does: `train.csv` has its
    validation split in `val.csv` beside it, and any other list is for training. Classes are
    numbered by the sorted labels of the training images; images are ordered by class and path, not
    by row.

    Args:
        path: the list.
        held_out: divides the training images into both splits.
        alone: the other split is not needed; the advice in errors takes this into account.

    Raises:
        DataError: the list is unusable, with file and line; or there is no such split.
        TextError: a list is not text.
    """

    class_names: list[str]
    labels: np.ndarray

    def __init__(
        self,
        path: str,
        split: str = "train",
        held_out: HeldOut | None = None,
        alone: bool = False,
    ):
        splits, unused = read_splits(path, held_out)
        train, rows = splits["train"], splits[split]
        if not rows:
            raise NoSplit(_no_split(path, split, bool(train), alone))
        again = _refuse_two_labels(train if rows is train else [*train, *rows])
        names = sorted({row.label for row in train or rows})
        if train and len(names) == 1:
            raise DataError(
                f"--data_dir {path} has one class ({some(names)}), and a classifier needs two or "
                "more."
            )
        _refuse_unknown(rows, names)
        whole, words = rows, ""
        if held_out is not None:
            rows, words = _divided(path, whole, held_out, split), f", {held_out.words(split)}"
        if not rows:
            raise DataError(
                f"{path}: no class has two images, so --validation_fraction can hold none out."
                f" {HOLDING_NONE_OUT}"
            )
        rows = sorted({row.path: row for row in rows}.values(), key=lambda r: (r.label, r.path))
        _refuse_missing(rows, {*train, *whole})
        numbers = {name: number for number, name in enumerate(names)}
        self.files = [row.path for row in rows]
        self.labels = np.array([numbers[row.label] for row in rows], np.int32)
        self.num_examples, self.num_classes = len(rows), len(names)
        self.class_names, self.root = names, os.path.dirname(path) or "."
        present = sorted({row.label for row in rows})
        count = f"{len(rows)} image{'s' if len(rows) != 1 else ''} of {classes_text(present)}"
        self.found = f"{split}: {count} in {printable(rows[0].file)}{words}"
        if unused:
            self.found += f"; not used: {some(unused)}"
        others = train if held_out is None and split != "train" else []
        lacking = sorted(set(names) - set(present))
        notes = _notes(rows, others, again)
        if not train:
            notes.append("has no training images: its own labels are the classes")
        else:
            single = [] if held_out is None else lacking  # with two, one is held out
            notes += lacking_notes(lacking, single)
            self.lacking = lacking
        self.notes = [f"{path}: {note}" for note in notes]

    def find(self, file: str, offset: int | None) -> int | None:
        """Returns the number of a file; None if it is not in the list."""
        path = os.path.normpath(os.path.join(self.root, file))
        return self._numbers.get(path) if offset is None else None

    def list_digest(self) -> str:
        """Returns a hash of the files' paths and class names, in order."""
        named = zip(self.files, self.labels.tolist(), strict=True)
        text = "\0".join(
            f"{os.path.relpath(file, self.root)}\0{self.class_names[i]}" for file, i in named
        )
        return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _notes(rows: Sequence[Row], train: Sequence[Row], again: int) -> list[str]:
    """Returns warnings about a split's rows.

    Args:
        rows: the split's.
        train: the rows of the train split, if `rows` are others.
        again: number of rows that repeat an image of an earlier row.
    """
    notes = []
    if common := {row.path for row in train} & {row.path for row in rows}:
        notes.append(
            f"{_count(len(common), 'image')} in the train split as well, such as {min(common)}: "
            "their results say nothing about new images"
        )
    if again:
        name = "one row names an image" if again == 1 else f"{again} rows name images"
        notes.append(f"{name} that {'is' if again == 1 else 'are'} listed already")
    return notes


def read_splits(
    path: str, held_out: HeldOut | None = None
) -> tuple[dict[str, list[Row]], list[str]]:
    """Returns the rows of both splits, and text about what is not used.

    Args:
        path: the list.
        held_out: divides the training images; then both splits list all of them.

    Raises:
        DataError, TextError: see `ListSource`.
    """
    rows = read_rows(path)
    own = split_named(os.path.basename(path))
    splits: dict[str, list[Row]] = {"train": [], "validation": [], TEST: []}
    for row in rows:
        splits[row.split or own or "train"].append(row)
    if own == "train" and not any(row.split for row in rows):
        for split in ("validation", TEST):
            if beside := _beside(path, split):
                splits[split] = read_rows(beside)
                break
    if held_out is not None and splits["validation"]:
        raise DataError(
            f"--validation_fraction holds a part of the training images out, and "
            f"{splits['validation'][0].where} is for validation: leave the flag out (or, where a "
            "run's settings have it, give --validation_fraction null)."
        )
    unused = []
    test = splits.pop(TEST)
    if held_out is not None:
        splits["validation"] = splits["train"]
    elif not splits["validation"]:
        splits["validation"], test = test, []
    if test:
        unused.append(f"{len(test)} rows of test")
    return splits, unused


def _beside(path: str, split: str) -> str | None:
    """Returns the list of a split beside the training list.

    Raises:
        DataError: there are several.
    """
    folder, ending = os.path.dirname(path), os.path.splitext(path)[1]
    with os.scandir(folder or ".") as entries:
        names = sorted(
            entry.name
            for entry in entries
            if entry.name.lower().endswith(LISTS) and split_named(entry.name) == split
        )
    same = [name for name in names if name.endswith(ending)] or names
    if len(same) > 1:
        raise DataError(
            f"{some(same)} lie beside {path}, and each may be the {split} split. Keep one there."
        )
    return os.path.join(folder, same[0]) if same else None


def _no_split(path: str, split: str, others: bool, alone: bool) -> str:
    name, ending = os.path.splitext(os.path.basename(path))
    if split == "train":
        return (
            f"--data_dir {path} has rows for validation and no train split: add some, or only "
            "evaluate, with --mode eval."
        )
    if not others:
        return f"--data_dir {path} has no rows, and so no {split} split."
    if alone:
        return (
            f"--data_dir {path} has no validation split: to evaluate on all of its images, call it "
            f"val{ending}, or give it a column split that says val. {OWN_PART}"
        )
    beside = f"or a list val{ending} beside it" if split_named(name + ending) else "(train, val)"
    return (
        f"--data_dir {path} has no {split} split: give it a column split {beside}, hold a part of "
        "the images out with --validation_fraction 0.1, or leave evaluation out with --mode train."
    )


def _refuse_two_labels(rows: Sequence[Row]) -> int:
    """Returns the number of rows that repeat an image of an earlier row in the same split.

    Raises:
        DataError: their labels differ.
    """
    first: dict[str, Row] = {}
    for row in rows:
        other = first.setdefault(row.path, row)
        if other.label != row.label:
            raise DataError(
                f"{row.where}: {row.written} is {row.label!r}, and {other.label!r} in "
                f"{other.where}. Keep one of the two."
            )
    counts = Counter((row.path, row.split, row.file) for row in rows)
    return counts.total() - len(counts)


def _refuse_unknown(rows: Sequence[Row], names: Collection[str]) -> None:
    known = set(names)
    for row in rows:
        if row.label not in known:
            raise DataError(
                f"{row.where}: {row.label!r} is not a class of the training images "
                f"({some(sorted(known))}). Correct it, or remove the row."
            )


def _refuse_missing(rows: Sequence[Row], others: Collection[Row]) -> None:
    """Raises DataError if an image is missing.

    Args:
        rows: rows to check.
        others: rows to check as well if one is missing, so that the message counts all missing
            images.
    """
    missing = _those(_is_missing, rows)
    if not missing:
        return
    missing = _those(_is_missing, list({*rows, *others}))
    row = min(missing, key=lambda row: (row.file, row.line))
    what, hint = "does not exist", ""
    if is_url(row.written):
        what, hint = "is a URL", ": images are read from local disks"
    elif os.path.exists(row.path):
        what = "is not a file"
    elif "\\" in row.written:
        hint = ": write / between folders"
    elif row.written.startswith("~"):
        hint = f": it is looked for at {row.path}"
    elif not os.path.isabs(row.written):
        folder = os.path.join(os.path.dirname(row.file), "") or "the current folder"
        hint = f": relative paths are looked for beside the list, in {folder}"
    more = f" ({len(missing)} such rows)" if len(missing) > 1 else ""
    raise DataError(f"{row.where}: {row.written} {what}{hint}{more}.")


def _is_missing(row: Row) -> bool:
    return not os.path.isfile(row.path)


def _those(test: Callable[[Row], bool], rows: Sequence[Row]) -> list[Row]:
    # threads hide the latency of network disks
    parts = [rows[i::_THREADS] for i in range(_THREADS)]
    with ThreadPoolExecutor(_THREADS) as pool:
        return [row for part in pool.map(lambda p: list(filter(test, p)), parts) for row in part]


def _divided(path: str, rows: Sequence[Row], held_out: HeldOut, split: str) -> list[Row]:
    """Returns the rows of one split. Images are named as in class folders beside the list."""
    root = os.path.dirname(path) or "."
    images: dict[str, list[str]] = {}
    by_name = {os.path.relpath(row.path, root): row for row in rows}
    for name, row in by_name.items():
        images.setdefault(row.label, []).append(name)
    return [by_name[name] for part in held_out.part(images, split).values() for name in part]


def _count(number: int, what: str) -> str:
    return f"one {what} is" if number == 1 else f"{number} {what}s are"
