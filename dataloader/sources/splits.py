"""Finds a folder's splits under the names that people give them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from convoy.dataloader.errors import DataError
from convoy.dataloader.images.file_kinds import is_folder, is_passed_over
from convoy.utils.files import is_url
from convoy.utils.text import canonical

EXPECTED = (
    "--data_dir should hold TFRecord files (train-* and validation-*, or a version folder of "
    "TensorFlow Datasets) or image folders (train/<class>/*.jpg and val/<class>/*.jpg), or be a "
    ".csv file with columns path and label."
)
# A name in a later row counts only if no earlier name is found.
SPLIT_NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "train": (("train", "training"),),
    "validation": (("validation", "val", "valid", "dev", "eval"), ("test", "testing")),
}
_SPLITS = {name: split for split, rows in SPLIT_NAMES.items() for name in rows[0]}
LISTS = (".csv", ".tsv")
ARCHIVE = re.compile(r"\.(zip|rar|7z|tar|tgz|tar\.\w+)$", re.IGNORECASE)
# Endings of names such as "training_set", "val-images", "testdata".
_ENDING = re.compile(r"[-_. ]*(set|dataset|data|images|imgs|split)$")


def split_called(name: str) -> str:
    """Returns the split that a user means: "train" or "validation" (also called val).

    Raises:
        DataError: it is neither.
    """
    if name not in _SPLITS:
        raise DataError(f"split {name!r} is not one of {', '.join(_SPLITS)}.")
    return _SPLITS[name]


def check_place(data_dir: str | None, *, lists: bool = False) -> str:
    """Returns the folder; raises DataError if it is missing, a URL, or not a folder.

    Args:
        data_dir: the value of `--data_dir`.
        lists: accept a file that lists images, too.
    """
    if not data_dir:
        raise DataError(f"No data: give the folder with --data_dir. {EXPECTED}")
    data_dir = os.fspath(data_dir)
    if is_url(data_dir):
        raise DataError(
            f"--data_dir {data_dir}: data are read from local disks, not from URLs. Copy or mount "
            "them, and give that folder."
        )
    if lists and is_list(data_dir):
        return data_dir
    if not os.path.isdir(data_dir):
        what = "is not a folder" if os.path.exists(data_dir) else "does not exist"
        if ARCHIVE.search(data_dir) and os.path.exists(data_dir):
            raise DataError(f"--data_dir {data_dir} {what}. Archives are not read: unpack it.")
        if data_dir.lower().endswith(".txt") and os.path.exists(data_dir):
            raise DataError(
                f"--data_dir {data_dir} {what}. A list of images needs their labels too: write a "
                ".csv file whose first line is path,label (docs/data.md)."
            )
        raise DataError(f"--data_dir {data_dir} {what}. {EXPECTED}")
    return data_dir


def subfolders(folder: str) -> list[str]:
    """Returns the folders in a folder, sorted, without hidden and system folders."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if is_folder(e) and not is_passed_over(e.name))


def is_list(path: str | os.PathLike[str] | None) -> bool:
    """Returns whether `--data_dir` is a file that lists images."""
    if not path:
        return False
    return os.fspath(path).lower().endswith(LISTS) and os.path.isfile(path)


def plain_name(folder: str) -> str:
    """Returns a folder's name in lower case, without endings of split names ("train_images")."""
    return _ENDING.sub("", canonical(folder).lower())


def split_folder(root: str, split: str, *, test: bool = True) -> str | None:
    """Returns the folder of a split: the one with any of the split's names and class folders in it.

    Args:
        root: the folder of the splits.
        split: "train" or "validation".
        test: accept a folder of test images as the validation split if there is no other.

    Raises:
        DataError: there are several.
    """
    plain = {name: canonical(name).lower() for name in subfolders(root)}
    short = {name: plain_name(name) for name in plain}
    rows = SPLIT_NAMES[split] if test else SPLIT_NAMES[split][:1]
    for row, words in ((row, words) for row in rows for words in (plain, short)):
        found: dict[str, str] = {}  # real path -> folder: one may be a link to another
        for name, word in words.items():
            folder = os.path.join(root, name)
            if word in row and subfolders(folder):
                found.setdefault(os.path.realpath(folder), folder)
        if len(found) > 1:
            which = " and ".join(os.path.basename(folder) for folder in found.values())
            raise DataError(
                f"--data_dir {root} holds {which}, and each may be the {split} split. Keep one "
                "there."
            )
        if found:
            return next(iter(found.values()))
    return None


def unused_folders(root: str, used: Iterable[str] | None = None) -> list[str]:
    """Returns the visible folders that are not in use.

    Args:
        root: the folder of the splits.
        used: names of the folders in use; None: those of the splits.
    """
    if used is None:
        used = {os.path.basename(split_folder(root, split) or "") for split in SPLIT_NAMES}
    return [name for name in subfolders(root) if name not in set(used)]
