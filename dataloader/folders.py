"""Image folders: one folder a class, `train/<class>/<image>` and `val/<class>/<image>`."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from typing import Any

import numpy as np

from convoy.dataloader.errors import DataError, unreadable
from convoy.dataloader.records import cache_folder, store_cached
from convoy.dataloader.sources import EXPECTED, Source, read_labels, some
from convoy.utils.text import canonical

logger = logging.getLogger("convoy.data")

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
OTHER_ENDINGS = (".webp", ".tif", ".tiff", ".avif", ".heic")  # TensorFlow has no decoder for them
CONVERT = "convert WebP and TIFF with python -m dataloader.prepare folder"
_FOLDER_NAMES = {"train": ("train",), "validation": ("val", "validation")}
_CACHE_FORMAT = "convoy-folder-1"
_SETTLED_SECONDS = 2.0


class FolderSource(Source):
    """One folder a class: `<root>/train/<class>/<image>`, and `val/` or `validation/` beside it.

    Classes are numbered by the sorted names of the train split's folders, for both splits. Where
    there is no train folder (evaluation only), `labels.txt` numbers them, else the split's own
    folders. Names are made canonical here, once (`utils.text.canonical`); paths stay as they are.

    Raises:
        DataError: a train class has no image, or a validation class is unknown.
    """

    def __init__(self, root: str, split: str = "train"):
        root = os.fspath(root)
        folder = split_folder(root, split)
        if folder is None:
            raise DataError(f"{root}: no folder for the {split} split. {EXPECTED}")
        own = class_folders(folder)
        train = split_folder(root, "train")
        if train is not None:
            names = list(class_folders(train))
        else:
            names = read_labels(root)
            if names is None:
                names = list(own)
                logger.warning(
                    "%s has no train folder: classes are numbered as in %s", root, folder
                )
        unknown = sorted(set(own) - set(names))
        if unknown:
            raise DataError(
                f"{os.path.join(folder, own[unknown[0]])}: {unknown[0]!r} is not a class of the "
                f"train split ({some(names)}). Rename or remove the folder."
            )
        numbers = {name: number for number, name in enumerate(names)}
        images = list_images(folder)
        images = {name: images[raw] for name, raw in own.items()}
        empty = [name for name in names if not images.get(name)]
        if empty and split == "train":
            raise DataError(
                f"{os.path.join(folder, own[empty[0]])}: no image ({', '.join(IMAGE_ENDINGS)}) in "
                f"this class folder. Add images, or remove the folder; {CONVERT}."
            )
        if empty:
            logger.warning("%s: no images of %d classes: %s", folder, len(empty), some(empty))
        self.files: list[str] = [file for name in own for file in images[name]]
        labels = np.repeat([numbers[name] for name in own], [len(images[name]) for name in own])
        if not self.files:
            raise DataError(f"{folder}: no images in it. {EXPECTED}")
        self.num_examples = len(self.files)
        self.labels = labels.astype(np.int32)
        self.root, self._numbers = folder, None
        self.class_names = names
        self.num_classes = len(names)

    def read(self, indices: np.ndarray) -> list[bytes]:
        contents = []
        for i in indices:
            try:
                with open(self.files[int(i)], "rb") as file:
                    contents.append(file.read())
            except OSError as error:
                raise unreadable(error) from error
        return contents

    def locate(self, i: int) -> tuple[str, int | None]:
        return self.files[i], None

    def span(self, i: int) -> tuple[str, int, int | None]:
        return self.files[i], 0, None

    def find(self, file: str, offset: int | None) -> int | None:
        if self._numbers is None:
            self._numbers = {name: i for i, name in enumerate(self.files)}
        return self._numbers.get(os.path.join(self.root, file)) if offset is None else None

    def list_digest(self) -> str:
        names = "\0".join(os.path.relpath(file, self.root) for file in self.files)
        return hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()

    def parse(self, raw: bytes, label: int) -> tuple[bytes, int]:
        return raw, int(label)


def split_folder(root: str, split: str) -> str | None:
    """The folder of a split, under whichever of its names has class folders in it."""
    for name in _FOLDER_NAMES[split]:
        folder = os.path.join(root, name)
        if os.path.isdir(folder) and _subfolders(folder):
            return folder
    return None


def class_folders(folder: str) -> dict[str, str]:
    """The classes of a split by their names (see `utils.text.canonical`), sorted, and the name of
    each one's folder as the file system has it.

    Raises:
        DataError: two folders are one class to the eye.
    """
    found: dict[str, str] = {}
    for raw in _subfolders(folder):
        name = canonical(raw)
        if name in found:
            raise DataError(
                f"{folder}: the folders {found[name]!a} and {raw!a} are both the class "
                f"{name!r}. Rename one of them, or make them one."
            )
        found[name] = raw
    return dict(sorted(found.items()))


def _subfolders(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def list_images(folder: str) -> dict[str, list[str]]:
    """Class name -> its images at any depth (Tiny ImageNet nests them), sorted paths.

    The list is kept in the cache folder with every directory's modification time, which changes
    when a file comes or goes; reading a million names again takes a network disk minutes.

    Raises:
        OSError: a directory cannot be read.
    """
    name = hashlib.sha256(f"{_CACHE_FORMAT}\0{os.path.realpath(folder)}".encode()).hexdigest()
    path = os.path.join(cache_folder(), name + ".json")
    kept = _load(path, folder)
    if kept is None:
        kept = walk_classes(folder, IMAGE_ENDINGS)
        latest = max(kept["times"].values()) / 1e9
        # A directory changed this very moment may change again without its time showing it.
        if latest < time.time() - _SETTLED_SECONDS:
            store_cached(path, json.dumps(kept).encode())
    if kept["others"]:
        logger.warning(
            "%s: %d files were passed over, such as %s: %s",
            *(folder, kept["others"], kept["other"], CONVERT),
        )
    return {
        label: [os.path.join(folder, file) for file in files]
        for label, files in kept["files"].items()
    }


def _load(path: str, folder: str) -> dict[str, Any] | None:
    try:
        with open(path, encoding="utf-8") as file:
            kept = json.load(file)
        for name, changed in kept["times"].items():
            if os.stat(os.path.join(folder, name)).st_mtime_ns != changed:
                return None
        return kept
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def walk_classes(folder: str, endings: tuple[str, ...]) -> dict[str, Any]:
    """Lists the files with these endings: `files`, class -> sorted paths relative to `folder`.

    Also `times`, directory -> modification time in ns; `others`, how many files have endings of
    `OTHER_ENDINGS` that are not in `endings`, and `other`, one of them.

    Raises:
        OSError: a directory cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise error

    times, files = {".": os.stat(folder).st_mtime_ns}, {}
    others, other = 0, None
    for label in _subfolders(folder):
        found = []
        for parent, children, names in os.walk(os.path.join(folder, label), onerror=refuse):
            children[:] = [name for name in children if not name.startswith(".")]
            times[os.path.relpath(parent, folder)] = os.stat(parent).st_mtime_ns
            for name in names:
                path = os.path.relpath(os.path.join(parent, name), folder)
                if name.startswith("."):
                    continue
                if name.lower().endswith(endings):
                    found.append(path)
                elif name.lower().endswith(OTHER_ENDINGS):
                    others, other = others + 1, path
        files[label] = sorted(found)
    return {"times": times, "files": files, "others": others, "other": other}
