"""`prepare imagenet`: the original ILSVRC2012 tar files → TFRecord shards, without unpacking them.

The training tar holds one tar per class, named after its wnid. Files of an inner tar are
uncompressed, so an image is a range of bytes in the outer file. The validation tar holds 50,000
images. The development kit gives their classes by its own numbers, which `meta.mat` translates to
wnids. Nothing is downloaded. Classes are numbered by their sorted wnids.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterable
from typing import Any

from convoy.dataloader.errors import DataError
from convoy.dataloader.prepare.pack import Packing, pack, track
from convoy.dataloader.prepare.shards import Item, in_parallel
from convoy.utils.optional import known
from convoy.utils.text import canonical, decode_text, read_text, split_lines

TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
DEVKIT_TARS = ("ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_devkit_t12.tar")
_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_WNID = re.compile(r"^n\d{8}$")


def prepare_imagenet(
    data_dir: str,
    out: str,
    packing: Packing,
    *,
    val_labels: str | None = None,
) -> int:
    """Packs the tars in `data_dir`; skips a split whose tar is missing.

    Args:
        data_dir: folder of the tars.
        out: folder for the shards.
        packing: how.
        val_labels: a text file with one wnid per line, in the order of the validation images, or
            `file wnid`; None uses the development kit.

    Returns:
        The exit status, see `pack`.

    Raises:
        DataError: a tar is damaged or does not match its name, or labels are missing.
    """
    train_tar, val_tar = (_present(data_dir, (name,)) for name in (TRAIN_TAR, VAL_TAR))
    devkit = _present(data_dir, DEVKIT_TARS)
    if train_tar is None and val_tar is None:
        raise DataError(f"--data_dir {data_dir} holds neither {TRAIN_TAR} nor {VAL_TAR}.")
    if val_tar is not None and devkit is None and val_labels is None:
        raise DataError(
            f"The classes of {VAL_TAR} are in {DEVKIT_TARS[0]}: put it there too, or give a file "
            "with one wnid per line as --val_labels."
        )
    words, truth = read_devkit(devkit) if devkit else ({}, [])
    classes = _classes_of(train_tar) if train_tar else []
    synsets = sorted({wnid for wnid, _, _ in classes} or words or set(_wnids_in(val_labels)))
    names = class_names(synsets, words)
    numbers = {wnid: number for number, wnid in enumerate(synsets)}
    splits: dict[str, list[Item]] = {}
    if train_tar:
        splits["train"] = _training_images(train_tar, classes, numbers, packing.workers)
    if val_tar:
        splits["validation"] = _validation_images(val_tar, val_labels, truth, numbers)
    return pack(out, "imagenet", splits, names, packing, synsets)


def read_devkit(path: str) -> tuple[dict[str, str], list[str]]:
    """Returns the 1,000 classes as wnid -> words, and the wnid of every validation image in order.

    Raises:
        DataError: the file is not the development kit, or SciPy, which reads `meta.mat`, is
            missing.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise DataError(
            "Reading the development kit's meta.mat needs SciPy: pip install scipy, or give a "
            "file with one wnid per line as --val_labels."
        ) from error
    try:
        with tarfile.open(path) as archive:
            found = {os.path.basename(member.name): member for member in archive if member.isfile()}
            # Of regular files alone, which give something to read.
            meta = known(archive.extractfile(found["meta.mat"])).read()
            truth = decode_text(known(archive.extractfile(found[_TRUTH])).read(), _TRUTH).split()
    except (tarfile.TarError, KeyError, OSError, EOFError) as error:
        raise DataError(f"{path}: not the ILSVRC2012 development kit ({error}).") from error
    table = loadmat(io.BytesIO(meta), squeeze_me=True, struct_as_record=True)["synsets"]
    # The later rows are inner nodes of WordNet's tree, not classes.
    leaves = [row for row in table.ravel() if int(row["num_children"]) == 0]
    wnids = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in leaves}
    words = {str(row["WNID"]): str(row["words"]) for row in leaves}
    try:
        return words, [wnids[int(number)] for number in truth]
    except (KeyError, ValueError) as error:
        raise DataError(f"{path}: {_TRUTH} names a class that meta.mat lacks ({error}).") from error


def read_val_labels(path: str, files: list[str]) -> list[str]:
    """Returns the wnid of each of these files, from lines of `wnid` in order, or of `file wnid`.

    Raises:
        DataError: a line has neither form, or a file is missing from the list.
    """
    lines = _label_lines(path)
    if all(len(parts) == 1 for parts in lines):
        return [wnid for (wnid,) in lines]
    named = {os.path.basename(parts[0]): parts[-1] for parts in lines}
    missing = [name for name in files if os.path.basename(name) not in named]
    if missing:
        raise DataError(f"--val_labels {path} does not name {missing[0]}.")
    return [named[os.path.basename(name)] for name in files]


def class_names(synsets: list[str], words: dict[str, str]) -> list[str]:
    """Returns each class's first word, plus its wnid if two classes share the word."""
    names = [canonical(words.get(wnid, wnid).split(",")[0]) for wnid in synsets]
    counts = Counter(names)
    pairs = zip(names, synsets, strict=True)
    return [name if counts[name] == 1 else f"{name} ({wnid})" for name, wnid in pairs]


def _present(folder: str, names: tuple[str, ...]) -> str | None:
    paths = [os.path.join(folder, name) for name in names]
    return next((path for path in paths if os.path.isfile(path)), None)


def _label_lines(path: str) -> list[list[str]]:
    try:
        text = read_text(path, f"--val_labels {path}")
    except OSError as error:
        raise DataError(f"--val_labels {path}: cannot be read ({error.strerror}).") from error
    everything = split_lines(text.rstrip())
    lines = [line.replace(",", " ").split() for line in everything if line.strip()]
    if len(lines) < len(everything) and all(len(parts) == 1 for parts in lines):
        empty = next(i for i, line in enumerate(everything, 1) if not line.strip())
        raise DataError(
            f"--val_labels {path}: line {empty} is empty: each line needs a wnid, in the order of "
            "the images."
        )
    for parts in lines:
        if len(parts) > 2 or not _WNID.match(parts[-1]):
            raise DataError(
                f"--val_labels {path}: expected a wnid such as n01440764, or a file and a wnid, "
                f"in every line; found {' '.join(parts)!r}."
            )
    return lines


def _wnids_in(path: str | None) -> list[str]:
    return [parts[-1] for parts in _label_lines(path)] if path else []


def _members(path: str, offset: int = 0, size: int | None = None) -> list[tuple[str, int, int]]:
    """Lists name, offset in `path`, and size of the files of a tar that is a part of `path`."""
    try:
        with open(path, "rb") as file:
            part = file if size is None else _Part(file, offset, size)
            with tarfile.open(fileobj=part, mode="r:") as archive:
                return [(m.name, offset + m.offset_data, m.size) for m in archive if m.isfile()]
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{path}: not a complete tar file ({error}). Download it again.") from error


class _Part(io.RawIOBase):
    """Presents a range of a file's bytes as a file: the tar inside a tar."""

    def __init__(self, file: io.BufferedReader, offset: int, size: int):
        self._file, self._offset, self._size, self._position = file, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = start + position
        return self._position

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._size - self._position))
        self._file.seek(self._offset + self._position)
        data = self._file.read(count)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _classes_of(path: str) -> list[tuple[str, int, int]]:
    """Lists wnid, offset and size of each class's tar."""
    found = []
    for name, offset, size in _members(path):
        wnid = os.path.splitext(os.path.basename(name))[0]
        if not _WNID.match(wnid) or not name.endswith(".tar"):
            raise DataError(f"{path}: expected tars such as n01440764.tar in it, found {name}.")
        found.append((wnid, offset, size))
    if not found:
        raise DataError(f"{path}: it holds no classes.")
    return found


def _training_images(
    path: str, classes: list[tuple[str, int, int]], numbers: dict[str, int], workers: int
) -> list[Item]:
    """Lists the images of the classes' tars (see `_classes_of`); `numbers` maps wnid to label."""
    tasks = [(path, *part, numbers[part[0]]) for part in classes]
    found = track(in_parallel(_images_of_class, tasks, workers), len(tasks), "classes listed")
    return [item for items in found for item in items]


def _images_of_class(task: tuple[str, str, int, int, int]) -> list[Item]:
    path, wnid, offset, size, label = task
    return [
        Item(path, f"{wnid}/{os.path.basename(name)}", label, start, length)
        for name, start, length in _members(path, offset, size)
    ]


def _validation_images(
    path: str, val_labels: str | None, truth: list[str], numbers: dict[str, int]
) -> list[Item]:
    """Lists the validation images, labelled by the file `val_labels`, or in order by `truth`."""
    images = sorted(_members(path))
    files = [name for name, _, _ in images]
    wnids = read_val_labels(val_labels, files) if val_labels else truth
    _check_validation(files, wnids, numbers)
    return [
        Item(path, os.path.basename(name), numbers[wnid], offset, size)
        for (name, offset, size), wnid in zip(images, wnids, strict=True)
    ]


def _check_validation(files: list[str], wnids: list[str], synsets: Iterable[str]) -> None:
    if len(files) != len(wnids):
        raise DataError(
            f"{VAL_TAR} holds {len(files)} images, but there are labels for {len(wnids)}: they do "
            "not belong together."
        )
    unknown = sorted(set(wnids) - set(synsets))
    if unknown:
        raise DataError(
            f"The validation labels name {unknown[0]}, which is not a class of {TRAIN_TAR}."
        )
