"""Which of a folder's parts are its splits, under the names that people give them; and, where a
split is missing, what to do about it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from convoy.dataloader.errors import DataError
from convoy.dataloader.kinds import heads, is_passed_over, kind_of
from convoy.utils.files import is_url
from convoy.utils.text import canonical, some

EXPECTED = (
    "--data_dir should hold TFRecord files (train-* and validation-*, or a version folder of "
    "TensorFlow Datasets) or image folders (train/<class>/*.jpg and val/<class>/*.jpg)."
)
PREPARE = "python -m convoy.dataloader.prepare"
# A name in a later row counts only where there is none of an earlier row.
SPLIT_NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "train": (("train", "training"),),
    "validation": (("validation", "val", "valid", "dev", "eval"), ("test", "testing")),
}
_LOOKED_AT = 50  # files whose first bytes are looked at for a message


def check_place(data_dir: str | None) -> str:
    """Returns the folder, or raises DataError: it is not given, at a URL, or not a folder."""
    if not data_dir:
        raise DataError(f"No data: give the folder with --data_dir. {EXPECTED}")
    data_dir = os.fspath(data_dir)
    if is_url(data_dir):
        raise DataError(
            f"--data_dir {data_dir}: data are read from local disks, not from URLs. Copy or mount "
            "them, and give that folder."
        )
    if not os.path.isdir(data_dir):
        what = "is not a folder" if os.path.exists(data_dir) else "does not exist"
        raise DataError(f"--data_dir {data_dir} {what}. {EXPECTED}")
    return data_dir


def subfolders(folder: str) -> list[str]:
    """The folders in a folder, sorted, without hidden ones and those of systems."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not is_passed_over(e.name))


def split_folder(root: str, split: str) -> str | None:
    """The folder of a split, under whichever of its names there is with class folders in it.

    Raises:
        DataError: there are several.
    """
    names = subfolders(root)
    for row in SPLIT_NAMES[split]:
        found: dict[str, str] = {}  # real path -> folder: one may be a link to the other
        for name in names:
            folder = os.path.join(root, name)
            if canonical(name).lower() in row and subfolders(folder):
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


def unused_folders(root: str) -> list[str]:
    """The folders beside the splits' that are not hidden."""
    used = {os.path.basename(split_folder(root, split) or "") for split in SPLIT_NAMES}
    return [name for name in subfolders(root) if name not in used]


def nothing_found(data_dir: str, split: str, others: Sequence[str]) -> str:
    """What to say where `data_dir` has no data for a split.

    Args:
        others: the splits that it has.
    """
    seen = sorted(name for name in os.listdir(data_dir) if not name.startswith("."))
    if not seen:
        return f"--data_dir {data_dir} is empty. {EXPECTED}"
    if others:
        start = f"--data_dir {data_dir} has a {others[0]} split but no {split} split"
    else:
        start = f"--data_dir {data_dir} holds no data for the {split} split"
    advice = _advice(data_dir, split, others) or EXPECTED
    return f"{start} (found: {some(seen)}). {advice}"


def _advice(data_dir: str, split: str, others: Sequence[str]) -> str | None:
    """The way out, if what lies there says which it is."""
    names = subfolders(data_dir)
    of_split = [n for n in names if canonical(n).lower() in sum(SPLIT_NAMES[split], ())]
    classes = [n for n in names if _kind_of_files(os.path.join(data_dir, n)) == "images"]
    # "train" is a class, too, in pictures of vehicles.
    unsplit = len(set(classes) - set(of_split)) > 1 and not others
    for name in of_split if not unsplit else []:
        folder = os.path.join(data_dir, name)
        kind = _kind_of_files(folder)
        if kind == "records":
            return (
                f"{folder} holds TFRecord files: move them into {data_dir} itself, under names such"
                f" as {split}-00000-of-00010, and so those of the other split."
            )
        if kind == "images":
            return (
                f"{folder} holds images and no class folders: put them into one folder a class, "
                f"{folder}/<class>/*.jpg."
            )
    if others:
        return (
            f"Put class folders into {data_dir}/val, or leave evaluation out with --mode train."
            if split == "validation" and split_folder(data_dir, "train")
            else None
        )
    own = os.path.basename(os.path.abspath(data_dir)).lower()
    is_split = any(own in row for rows in SPLIT_NAMES.values() for row in rows)
    if classes and is_split:
        parent = os.path.dirname(os.path.abspath(data_dir))
        return f"It holds class folders and seems to be a split itself: give --data_dir {parent}."
    if unsplit:
        return (
            f"It holds class folders and no train and val folder: {PREPARE} folder --data_dir "
            f"{data_dir} --validation_fraction 0.1 --out PACKED splits and packs them."
        )
    for name in names:
        folder = os.path.join(data_dir, name)
        if split_folder(folder, "train"):
            return f"There is a train split in {folder}: give --data_dir {folder}."
    return None


def _kind_of_files(folder: str) -> str | None:
    """What the first files right in a folder are: "images" or "records"; None for neither."""
    with os.scandir(folder) as entries:
        files = sorted(e.name for e in entries if not e.name.startswith(".") and e.is_file())
    if any(re.search(r"\.tfrec|-\d{5}-of-\d{5}$", name) for name in files):
        return "records"
    first = heads(os.path.join(folder, name) for name in files[:_LOOKED_AT])
    return "images" if any(kind_of(head or b"") for head in first) else None
