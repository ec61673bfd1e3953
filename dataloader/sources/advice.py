"""Advises what to do if a folder has no data for a split, judging by what the folder contains."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

from convoy.dataloader.images.file_kinds import heads, is_file, kind_of
from convoy.dataloader.sources.splits import (
    ARCHIVE,
    EXPECTED,
    SPLIT_NAMES,
    is_list,
    plain_name,
    split_folder,
    subfolders,
)
from convoy.utils.text import canonical, some

OWN_PART = "To evaluate on the part that a run held out, give that run's --validation_fraction."
"""Advice for an evaluation that finds no validation split."""
PREPARE = "python -m convoy.dataloader.prepare"
_LOOKED_AT = 10  # number of files per folder whose first bytes are read
_LOOKED_INTO = 200  # number of folders to search
# Words in folder names that tell splits apart.
_WORDS = {
    split: frozenset((*sum(names, ()), *more))
    for (split, names), more in zip(SPLIT_NAMES.items(), (["trainval"], ["holdout"]), strict=True)
}


def nothing_found(data_dir: str, split: str, others: Sequence[str], alone: bool = False) -> str:
    """Returns the message for a `data_dir` without data for a split.

    Args:
        data_dir: the folder.
        split: the split that was looked for.
        others: the splits that it does have.
        alone: the other split is not needed.
    """
    seen = sorted(name for name in os.listdir(data_dir) if not name.startswith("."))
    if not seen:
        return f"--data_dir {data_dir} is empty. {EXPECTED}"
    if others:
        start = f"--data_dir {data_dir} has a {others[0]} split but no {split} split"
    else:
        start = f"--data_dir {data_dir} holds no data for the {split} split"
    rest = _rest(data_dir, split, others, alone)
    ways = (_flat_split(data_dir, split), misplaced(data_dir), rest)
    return f"{start} (found: {some(seen)}). {next(filter(None, ways), EXPECTED)}{_list(data_dir)}"


def holds_classes(data_dir: str) -> bool:
    """Returns whether a folder without splits has class folders, and seems no split itself."""
    return (
        misplaced(data_dir) is None
        and not _seems_a_split(data_dir)
        and _are_classes(data_dir, subfolders(data_dir))
    )


def folders_of_classes(data_dir: str) -> list[str]:
    """Returns the folders in which every folder is taken for a class; none for other data.

    These are the folders of the splits, or `data_dir` itself if it has none.

    Raises:
        DataError: several folders may be the same split.
    """
    splits = [folder for split in SPLIT_NAMES if (folder := split_folder(data_dir, split))]
    return splits or ([data_dir] if holds_classes(data_dir) else [])


def _seems_a_split(folder: str) -> bool:
    name = plain_name(os.path.basename(os.path.abspath(folder)))
    return name in set().union(*_WORDS.values())


def _list(data_dir: str) -> str:
    """Returns advice about a list of images in the folder, if there is one."""
    lists = sorted(path for name in os.listdir(data_dir) if is_list(path := f"{data_dir}/{name}"))
    first = next((path for path in lists if "train" in os.path.basename(path)), "".join(lists[:1]))
    return f" If {first} lists images, give --data_dir {first}." if first else ""


def misplaced(data_dir: str) -> str | None:
    """Returns advice if splits are elsewhere, have other names, are packed, or are links.

    If it finds any and there is no train split, the folders here are not classes.
    """
    if split_folder(data_dir, "train"):
        return None
    names = subfolders(data_dir)
    if way := _other_splits(data_dir, names):
        return way
    for folder in _below(data_dir) if not _are_classes(data_dir, names) else ():
        if split_folder(folder, "train"):
            return f"There is a train split in {folder}: give --data_dir {folder}."
    paths = [os.path.join(data_dir, name) for name in names[:_LOOKED_INTO]]
    within = [os.path.basename(path) for path in paths if _has_splits(subfolders(path))]
    if len(within) > 1:
        return (
            f"There are splits within the class folders ({some(within)}): move the classes into "
            f"the splits, as {os.path.join(data_dir, 'train', within[0])}."
        )
    with os.scandir(data_dir) as entries:
        files = sorted(entry.name for entry in entries if is_file(entry))
    if not names and (archives := [name for name in files if ARCHIVE.search(name)]):
        return f"Archives are not read: unpack {some(archives)}."
    words = set().union(*_WORDS.values())
    if blocking := [name for name in files if name.lower() in words]:
        return f"{os.path.join(data_dir, blocking[0])} is a file, not a folder of class folders."
    if not names and _kind_of_files(data_dir) == "images":
        return _flat(data_dir)
    return None


def _other_splits(data_dir: str, names: Sequence[str]) -> str | None:
    """Returns advice about unused folders whose names mention both splits."""
    if not _has_splits(names):
        return None
    meant = {name: split for name in names if (split := _meant_split(name))}
    train = next(name for name, split in meant.items() if split == "train")
    if any(_kind_of_files(os.path.join(data_dir, name)) for name in meant):
        return _flat(os.path.join(data_dir, train))
    if plain_name(train) in sum(SPLIT_NAMES["train"], ()):
        return f"{os.path.join(data_dir, train)} holds no class folders."
    return (
        f"{' and '.join(map(repr, meant))} seem to be splits: call them train and val, with the "
        "class folders right in them."
    )


def _has_splits(names: Sequence[str]) -> bool:
    """Returns whether there are folders named for training, and for validation or a test."""
    return {split for name in names if (split := _meant_split(name))} == set(SPLIT_NAMES)


def _meant_split(name: str) -> str | None:
    """Returns the split that a folder's name mentions in one of its words, as in `seg_train`."""
    words = set(re.split(r"[-_. \d]+", canonical(name).lower()))
    words |= {word.removesuffix("set") for word in words}
    return next((split for split, known in _WORDS.items() if words & known), None)


def _below(data_dir: str) -> Iterator[str]:
    """Yields the folders below a folder, nearest first."""
    waiting, seen = [data_dir], 0
    while waiting and seen < _LOOKED_INTO:
        folder = waiting.pop(0)
        try:
            found = [os.path.join(folder, name) for name in subfolders(folder)[:_LOOKED_INTO]]
        except OSError:  # the message is not about this folder
            continue
        yield from found
        waiting, seen = waiting + found, seen + len(found)


def _flat(folder: str) -> str:
    return (
        f"{folder} holds images and no class folders: put them into one folder per class, "
        f"{folder}/<class>/*.jpg."
    )


def _flat_split(data_dir: str, split: str) -> str | None:
    """Returns advice about the split's own folder, if it has no class folders."""
    names = subfolders(data_dir)
    of_split = [n for n in names if canonical(n).lower() in sum(SPLIT_NAMES[split], ())]
    # In pictures of vehicles, "train" may also be a class.
    if _are_classes(data_dir, [name for name in names if name not in of_split]):
        return None
    for name in of_split:
        folder = os.path.join(data_dir, name)
        kind = _kind_of_files(folder)
        if kind == "records":
            return (
                f"{folder} holds TFRecord files: move them into {data_dir} itself, under names such"
                f" as {split}-00000-of-00010, and move the other split's files too."
            )
        if kind == "images":
            return _flat(folder)
    return None


def _are_classes(folder: str, names: Sequence[str]) -> bool:
    """Returns whether two or more of these folders hold images and look like classes."""
    others = [name for name in names[:_LOOKED_INTO] if not _meant_split(name)]
    paths = [os.path.join(folder, name) for name in others]
    return sum(_kind_of_files(path) == "images" for path in paths) > 1


def _rest(data_dir: str, split: str, others: Sequence[str], alone: bool) -> str | None:
    """Returns advice for a folder with or without class folders."""
    names = subfolders(data_dir)[:_LOOKED_INTO]
    classes = [n for n in names if _kind_of_files(os.path.join(data_dir, n)) == "images"]
    if others and split == "validation" and split_folder(data_dir, "train"):
        if alone:
            return f"Put the images to be evaluated into {data_dir}/val/<class>/. {OWN_PART}"
        return (
            f"Put class folders into {data_dir}/val, hold a part of the training images out with "
            "--validation_fraction 0.1, or leave evaluation out with --mode train."
        )
    if others and split == "train" and split_folder(data_dir, "validation"):
        which = f"the class folders ({some(classes)})" if classes else "class folders"
        return f"Put {which} into {data_dir}/train, or only evaluate, with --mode eval."
    if others:
        return None
    if classes and _seems_a_split(data_dir):
        return (
            "It holds class folders and seems to be a split itself: give --data_dir "
            f"{os.path.dirname(os.path.abspath(data_dir))}."
        )
    for folder in (data_dir, *(os.path.join(data_dir, name) for name in names)):
        if _are_classes(folder, subfolders(folder)):
            if split == "validation" and alone:
                place = os.path.join(folder, "val", "<class>", "")
                return (
                    f"To evaluate on all images of the class folders in {folder}, put these into "
                    f"val there, as {place}, and give --data_dir {folder}. {OWN_PART}"
                )
            it, dir_ = ("It", "") if folder == data_dir else (folder, f"--data_dir {folder} ")
            return (
                f"{it} holds class folders and no train and val folder: {dir_}"
                f"--validation_fraction 0.1 holds a part of each class out; {PREPARE} folder "
                f"--data_dir {folder} --validation_fraction 0.1 --out PACKED packs them as well."
            )
    return None


def _kind_of_files(folder: str) -> str | None:
    """Returns the kind of the first files directly in a folder: "images", "records" or None."""
    with os.scandir(folder) as entries:
        files = sorted(e.name for e in entries if not e.name.startswith(".") and is_file(e))
    if any(re.search(r"\.tfrec|-\d{5}-of-\d{5}$", name) for name in files):
        return "records"
    first = heads(os.path.join(folder, name) for name in files[:_LOOKED_AT])
    return "images" if any(kind_of(head or b"") for head in first) else None
