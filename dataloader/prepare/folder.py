"""`prepare folder`: class folders of images → TFRecord shards."""

from __future__ import annotations

import os

from convoy.dataloader.errors import DataError
from convoy.dataloader.folders import (
    IMAGE_ENDINGS,
    OTHER_ENDINGS,
    class_folders,
    split_folder,
    walk_classes,
)
from convoy.dataloader.prepare.images import Recoding
from convoy.dataloader.prepare.pack import pack
from convoy.dataloader.prepare.shards import Item, Shard, plan_split, shuffled

ENDINGS = (*IMAGE_ENDINGS, *OTHER_ENDINGS)


def prepare_folder(
    data_dir: str,
    out: str,
    *,
    train_shards: int | None = None,
    validation_shards: int | None = None,
    validation_fraction: float = 0.1,
    recoding: Recoding | None = None,
    seed: int = 0,
    workers: int = 1,
    overwrite: bool = False,
) -> int:
    """Packs `data_dir/train/<class>/*` and `data_dir/val/<class>/*`, or `data_dir/<class>/*`.

    Without a train folder the classes are those of `data_dir` itself, and of each class
    `validation_fraction` of the images, rounded, become the validation split.

    Returns:
        The exit status, see `pack`.

    Raises:
        DataError: there are no images, a class of val is not one of train, or `out` is not free.
    """
    if not os.path.isdir(data_dir):
        raise DataError(f"--data_dir {data_dir} is not a folder.")
    if not 0 <= validation_fraction < 1:
        raise DataError(f"--validation_fraction must be in [0, 1), got {validation_fraction}.")
    train = split_folder(data_dir, "train")
    if train is None:
        names, splits = _divided(data_dir, validation_fraction, seed)
    else:
        names, splits = _given(data_dir, train)
    counts = {"train": train_shards, "validation": validation_shards}
    how = recoding or Recoding()
    shards: list[Shard] = []
    for split, items in splits.items():
        if items:
            options = {"shards": counts[split], "seed": seed, "recoding": how}
            shards += plan_split(out, split, items, names, **options)
    return pack(out, "folder", shards, names, workers=workers, overwrite=overwrite)


def _items(root: str, files: dict[str, list[str]], names: list[str]) -> list[Item]:
    numbers = {name: number for number, name in enumerate(names)}
    return [
        Item(os.path.join(root, file), file, numbers[name])
        for name, members in files.items()
        for file in members
    ]


def _given(data_dir: str, train: str) -> tuple[list[str], dict[str, list[Item]]]:
    found = _images(train)
    names = list(found)
    _check_classes(train, found)
    splits = {"train": _items(train, found, names), "validation": []}
    val = split_folder(data_dir, "validation")
    if val is not None:
        others = _images(val)
        unknown = sorted(set(others) - set(names))
        if unknown:
            raise DataError(
                f"{os.path.join(val, class_folders(val)[unknown[0]])}: {unknown[0]!r} is not a "
                f"class of {train}. Rename or remove the folder."
            )
        splits["validation"] = _items(val, others, names)
    return names, splits


def _divided(data_dir: str, fraction: float, seed: int) -> tuple[list[str], dict[str, list[Item]]]:
    found = _images(data_dir)
    names = list(found)
    if not names:
        raise DataError(
            f"--data_dir {data_dir}: expected one folder a class with images in it, below train/ "
            "and val/ or directly."
        )
    _check_classes(data_dir, found)
    splits: dict[str, list[Item]] = {"train": [], "validation": []}
    for name in names:
        members = shuffled(_items(data_dir, {name: found[name]}, names), seed)
        held_out = round(fraction * len(members))
        splits["validation"] += members[:held_out]
        splits["train"] += members[held_out:]
    return names, splits


def _images(folder: str) -> dict[str, list[str]]:
    """Class name -> its images, as paths below `folder`; sorted."""
    files = walk_classes(folder, ENDINGS)["files"]
    return {name: files[raw] for name, raw in class_folders(folder).items()}


def _check_classes(folder: str, found: dict[str, list[str]]) -> None:
    for name, files in found.items():
        if not files:
            raise DataError(
                f"{os.path.join(folder, name)}: no image ({', '.join(ENDINGS)}) in this class "
                "folder. Add images or remove the folder."
            )
