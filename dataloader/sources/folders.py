"""Reads image folders: one folder per class, `train/<class>/<image>` and `val/<class>/<image>`."""

from __future__ import annotations

import os
import time
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from convoy.dataloader.errors import DataError
from convoy.dataloader.images.file_kinds import Left
from convoy.dataloader.sources.advice import misplaced
from convoy.dataloader.sources.file_source import FileSource
from convoy.dataloader.sources.folder_listing import files_around, list_classes
from convoy.dataloader.sources.held_out import HOLDING_NONE_OUT, HeldOut
from convoy.dataloader.sources.label_files import read_labels
from convoy.dataloader.sources.source import classes_text, lacking_notes
from convoy.dataloader.sources.splits import EXPECTED, split_folder, subfolders, unused_folders
from convoy.utils.text import canonical, some


class FolderSource(FileSource):
    """A source with one folder per class: `<root>/train/<class>/<image>`, and `val/` or similar.

    Classes are numbered by the sorted names of the train split's folders, for both splits. Without
    a train folder (evaluation only), `labels.txt` numbers them if it exists, otherwise the split's
    own folders. Names are made canonical here, once (`utils.text.canonical`); paths do not change.

    Args:
        held_out: divides the train split, or class folders directly in `root`, into both splits.
        whole: class folders directly in `root` are the train split.

    Raises:
        DataError: a train class has no image, there is only one class, or a validation class is
            unknown; or `held_out` is given although there is a validation split.
    """

    def __init__(
        self,
        root: str,
        split: str = "train",
        held_out: HeldOut | None = None,
        whole: bool = False,
    ):
        root = os.fspath(root)
        if held_out is None and not whole:
            folder, train = split_folder(root, split), split_folder(root, "train")
        else:
            folder = train = divided_folder(root)
        if folder is None:
            raise DataError(f"{root}: no folder for the {split} split. {EXPECTED}")
        own = class_folders(folder, () if folder != root else left_for_test(root))
        names = _class_names(root, split, folder, own, train, held_out)
        refuse_unknown(folder, own, names)
        listed = list_split(folder, own, names if split != "train" else (), held_out, split)
        if split == "train":
            refuse_one_class(folder, own, listed.images)
            refuse_empty(folder, own, listed.images)
        self.files = [os.path.join(folder, file) for name in own for file in listed.images[name]]
        if not self.files:
            raise DataError(f"{folder}: {_why_empty(listed.left, held_out)}")
        numbers = {name: number for number, name in enumerate(names)}
        counts = [len(listed.images[name]) for name in own]
        labels = np.repeat([numbers[name] for name in own], counts)
        self.num_examples = len(self.files)
        self.labels = labels.astype(np.int32)
        self.root = folder
        self.class_names = names
        self.num_classes = len(names)
        self.found = f"{split}: {listed.found}"
        if unused := _unused(root, folder, held_out):
            self.found += f"; not used: {some(unused)}"
        self.notes, self.lacking = listed.notes, listed.lacking
        if train is None:
            what = "has no train folder beside it: its own folders are the classes"
            self.notes.append(f"{folder} {what}")
        elif not held_out and split != "train" and os.path.samefile(folder, train):
            what = "is a link to the train split: its results say nothing about other images"
            self.notes.append(f"{folder} {what}")


def _class_names(
    root: str,
    split: str,
    folder: str,
    own: Mapping[str, str],
    train: str | None,
    held_out: HeldOut | None,
) -> list[str]:
    """Returns the names of the classes in the order of their numbers (see `FolderSource`).

    Raises:
        DataError: the train split has only one class.
    """
    if held_out is not None:
        refuse_one_class(folder, own)
        return list(own)
    if train is None:
        return read_labels(root) or list(own)
    trained = class_folders(train)
    if split != "train":
        refuse_one_class(train, trained)
    return list(trained)


def _why_empty(left: Left, held_out: HeldOut | None) -> str:
    if held_out is None:
        return f"no images in it{_but(left)}. {EXPECTED}"
    return (
        f"no class has two images, so --validation_fraction can hold none out. {HOLDING_NONE_OUT}"
    )


def _unused(root: str, folder: str, held_out: HeldOut | None) -> list[str]:
    """Returns the folders beside the classes or the splits that are not used."""
    if folder == root:
        return left_for_test(root)
    return unused_folders(root, {os.path.basename(folder)} if held_out else None)


def divided_folder(root: str) -> str:
    """Returns the folder whose classes are divided: the train split's, or `root` if there is none.

    Raises:
        DataError: there is a validation split, or there are no class folders.
    """
    train, val = split_folder(root, "train"), split_folder(root, "validation", test=False)
    if val is not None:
        raise DataError(
            f"--validation_fraction holds a part of the training images out, and {val} is there for"
            " validation: leave the flag out (or, where a run's settings have it, give"
            " --validation_fraction null), or move that folder away."
        )
    if train is not None:
        return train
    if way := misplaced(root):
        raise DataError(f"--data_dir {root}: {way}")
    if not class_folders(root, left_for_test(root)):
        raise DataError(
            f"--data_dir {root}: expected one folder per class with images in it, below train/ "
            "and val/ or directly."
        )
    return root


def left_for_test(root: str) -> list[str]:
    """Returns the folder of test images beside class folders, if there is one."""
    test = split_folder(root, "validation")
    return [] if test is None else [os.path.basename(test)]


def class_folders(folder: str, without: Collection[str] = ()) -> dict[str, str]:
    """Maps the sorted class names of a split to the names of their folders on the disk.

    Class names have the form of `utils.text.canonical`.

    Args:
        folder: the split's.
        without: folders that are not classes.

    Raises:
        DataError: the names of two folders look the same.
    """
    found: dict[str, str] = {}
    for raw in (raw for raw in subfolders(folder) if raw not in without):
        name = canonical(raw)
        if not name:
            raise DataError(f"{folder}: the folder {raw!a} is a class without a name. Rename it.")
        if name in found:
            raise DataError(
                f"{folder}: the folders {found[name]!a} and {raw!a} are both the class {name!r}. "
                "Rename one of them, or make them one."
            )
        found[name] = raw
    _refuse_links(folder, found)
    return dict(sorted(found.items()))


def _refuse_links(folder: str, own: Mapping[str, str]) -> None:
    """Raises DataError if a class folder is a link to another one, or to a folder above it."""
    paths = {name: os.path.join(folder, raw) for name, raw in own.items()}
    if not any(map(os.path.islink, paths.values())):
        return
    seen: dict[str, str] = {}  # real path -> class
    inside = os.path.join(os.path.realpath(folder), "")
    for name, path in paths.items():
        real = os.path.realpath(path)
        other = seen.setdefault(real, name)
        if other != name:
            what = f"is the same folder as {paths[other]}"
        elif inside.startswith(os.path.join(real, "")):
            what = f"is a link to {real}, which holds it"
        else:
            continue
        raise DataError(f"{path} {what}, so its images would be in several classes. Remove it.")


def refuse_unknown(folder: str, own: Mapping[str, str], names: Iterable[str]) -> None:
    """Raises DataError if a split's class folder (`own`) is not one of the classes `names`."""
    names = list(names)
    for name in own.keys() - set(names):
        alike = next((other for other in names if _outline(other) == _outline(name)), None)
        hint = "" if alike is None else f" ({name!a} and {alike!a} are written differently)"
        raise DataError(
            f"{os.path.join(folder, own[name])}: {name!r} is not a class of the train split "
            f"({some(names)}){hint}. Rename or remove the folder."
        )


def _outline(name: str) -> str:
    """Returns a name without case, blanks, and invisible characters."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in plain if unicodedata.category(c)[0] not in "CZ" and c not in "_-")


def refuse_one_class(
    folder: str, own: Mapping[str, str], images: Mapping[str, list[str]] | None = None
) -> None:
    """Raises DataError if a train split has only one class, often because of an extra folder level.

    Args:
        folder: the split's.
        own: class name -> its folder.
        images: class name -> paths below `folder`; None lists them here.
    """
    if len(own) != 1:
        return
    ((name, raw),) = own.items()
    if images is None:
        images = {name: list_classes(folder, [raw]).files[raw]}
    inner = inner_folders(images[name])
    if len(inner) > 1:
        raise DataError(
            f"{folder} holds one folder, {name!r}, and in it are folders of images "
            f"({some(inner)}). If these are the classes, move them up into {folder}, and so in the "
            "other splits."
        )
    raise DataError(
        f"{folder} has one class ({some([name])}), and a classifier needs two or more: one folder "
        "for each."
    )


def inner_folders(files: Iterable[str]) -> list[str]:
    """Returns the folders directly in a class folder if all its images are inside such folders.

    Args:
        files: paths below the split's folder.
    """
    inner: set[str] = set()
    for file in files:
        parts = file.split("/", 2)
        if len(parts) < 3:
            return []
        inner.add(parts[1])
    return sorted(inner)


def refuse_empty(folder: str, own: Mapping[str, str], images: Mapping[str, list[str]]) -> None:
    """Raises DataError if a class (`own`: name -> folder) has no image."""
    for name, raw in own.items():
        if not images[name]:
            left = list_classes(folder, [raw]).left
            raise DataError(
                f"{os.path.join(folder, raw)}: no image in this class folder{_but(left)}. Add "
                "images, or remove the folder."
            )


def _but(left: Left) -> str:
    text = left.text()
    return f", but {text}" if text else ""


@dataclass
class Listed:
    """The contents of a split's class folders.

    Attributes:
        images: class -> paths below the split's folder.
        left: what was left out.
        found: text such as "120 images of 3 classes (cat, dog, owl) in photos/train; left out: …".
        notes: warnings, one line each.
        lacking: expected classes without an image; the warnings mention them.
    """

    images: dict[str, list[str]]
    left: Left
    found: str
    notes: list[str]
    lacking: list[str]


def list_split(
    folder: str,
    own: Mapping[str, str],
    expected: Iterable[str] = (),
    held_out: HeldOut | None = None,
    split: str = "train",
) -> Listed:
    """Lists the class folders of a split, and warns of `expected` classes without an image.

    Args:
        folder: the split's.
        own: class name -> its folder.
        expected: names of the classes that should have images.
        held_out: divides the images; then only those of `split` are listed.
        split: name of the split.
    """
    listing = list_classes(folder, list(own.values()))
    images = {name: listing.files[raw] for name, raw in own.items()}
    outside, around = files_around(folder)
    left = listing.left
    left.add(around)
    notes = [left.warning(), _outside_note(outside), _nested_note(images), _alike_note(own)]
    words, single = "", []
    if held_out is not None:
        single = [name for name in images if len(images[name]) == 1]
        images, words = held_out.part(images, split), f", {held_out.words(split)}"
        # The folder's other contents are reported once, for training.
        left, notes = (left, notes) if split == "train" else (Left(), [])
    count = sum(map(len, images.values()))
    classes = [name for name in images if images[name]]
    of = f" of {classes_text(classes)}" if classes else ""
    found = f"{count} image{'s' if count != 1 else ''}{of} in {folder}{words}"
    if text := left.text():
        found += f"; left out: {text}"
    if listing.made is not None:
        kept = time.strftime("%Y-%m-%d %H:%M", time.localtime(listing.made))
        found += f"; list kept from {kept}"
    empty = [name for name in expected if not images.get(name)]
    notes += lacking_notes(empty, single)
    return Listed(images, left, found, [f"{folder}: {note}" for note in notes if note], empty)


def _outside_note(count: int) -> str | None:
    """Returns a warning about pictures beside the class folders."""
    if not count:
        return None
    if count == 1:
        return "1 picture lies in no class folder and is not used"
    return f"{count} pictures lie in no class folder and are not used"


def _nested_note(images: Mapping[str, list[str]]) -> str | None:
    """Returns a warning if the real classes may be one folder level deeper."""
    inner = {name: folders for name in images if len(folders := inner_folders(images[name])) > 1}
    if not inner:
        return None
    name, folders = next(iter(inner.items()))
    hold = {1: "one class folder holds", len(images): "each class folder holds"}
    return (
        f"{hold.get(len(inner), f'{len(inner)} class folders hold')} nothing but folders of images,"
        f" as {name!r} has {some(folders)}. If those are the classes, move them up one level"
    )


def _alike_note(names: Iterable[str]) -> str | None:
    """Returns a warning about two class names that a person would read as one."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(_outline(name), name)
        if other != name:
            return f"{other!r} and {name!r} are two classes: if they are one, make them one folder"
    return None
