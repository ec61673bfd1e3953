"""`prepare folder`: class folders of images → TFRecord shards."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from convoy.dataloader.errors import DataError
from convoy.dataloader.prepare.pack import Packing, pack, print_found
from convoy.dataloader.prepare.shards import Item
from convoy.dataloader.sources.advice import misplaced
from convoy.dataloader.sources.find import find_source
from convoy.dataloader.sources.folders import (
    class_folders,
    divided_folder,
    left_for_test,
    list_split,
    refuse_empty,
    refuse_one_class,
    refuse_unknown,
)
from convoy.dataloader.sources.held_out import HeldOut
from convoy.dataloader.sources.lists import read_splits
from convoy.dataloader.sources.splits import check_place, is_list, split_folder, unused_folders
from convoy.utils.optional import known
from convoy.utils.text import some, tell

FRACTION = 0.1

Images = dict[str, list[str]]  # class name -> paths below the split's folder


def prepare_folder(
    data_dir: str,
    out: str,
    packing: Packing,
    *,
    validation_fraction: float | None = None,
) -> int:
    """Packs the images of class folders, or those that a CSV file lists.

    The folders are `data_dir/train/<class>/` and `data_dir/val/<class>/`, or `data_dir/<class>/`.

    Without a train folder the classes are the folders of `data_dir` itself. `validation_fraction`
    of each class's images (None: a tenth; 0: none) become the validation split: the same images
    that training with `--validation_fraction` and `packing.seed` as `--validation_seed` would hold
    out. An explicit fraction divides a train folder, too.

    Returns:
        The exit status, see `pack`.

    Raises:
        DataError: there are no images, a class of val is not in train, or `out` is not free or is
            `data_dir`.
    """
    check_place(data_dir, lists=True)
    if os.path.realpath(out) == os.path.realpath(data_dir):
        raise DataError(
            f"--out is the folder of the images, {data_dir}: training could not tell records from"
            " images there. Name another folder"
        )
    if not 0 <= (validation_fraction or 0) < 1:
        raise DataError(f"--validation_fraction must be in [0, 1), got {validation_fraction}.")
    held_out = HeldOut(validation_fraction, packing.seed) if validation_fraction else None
    if is_list(data_dir):
        names, splits = _of_list(data_dir, held_out)
    else:
        names, splits = _of_folders(data_dir, validation_fraction, packing.seed)
    filled = {split: items for split, items in splits.items() if items}
    return pack(out, "folder", filled, names, packing)


def _of_list(path: str, held_out: HeldOut | None) -> tuple[list[str], dict[str, list[Item]]]:
    there, _ = read_splits(path, held_out)
    sources = {
        split: find_source(path, split, tell=print_found, held_out=held_out)
        for split in ("train", "validation")
        if there[split] or split == "train"
    }
    if "validation" not in sources:
        _warn(
            f"{path} has no validation split; --validation_fraction {FRACTION} holds a part of "
            "each class out for it"
        )
    items = {
        split: [
            Item(source.locate(i)[0], source.place(i)[0], int(label))
            for i, label in enumerate(source.all_labels())
        ]
        for split, source in sources.items()
    }
    return known(sources["train"].class_names), items


def _of_folders(
    data_dir: str, validation_fraction: float | None, seed: int
) -> tuple[list[str], dict[str, list[Item]]]:
    train, val = (split_folder(data_dir, split) for split in ("train", "validation"))
    if train is None:
        if way := misplaced(data_dir):
            raise DataError(f"--data_dir {data_dir}: {way}")
        test_only = split_folder(data_dir, "validation", test=False) is None
        if val is not None and not (test_only and validation_fraction):
            raise DataError(
                f"--data_dir {data_dir} has a validation split ({val}) and no train split: move "
                f"its class folders into {os.path.join(data_dir, 'train')}."
            )
    if train is None or validation_fraction is not None:
        fraction = FRACTION if validation_fraction is None else validation_fraction
        return _divided(data_dir, HeldOut(fraction, seed) if fraction else None)
    return _given(data_dir, train, val)


def _items(root: str, files: Images, names: list[str]) -> list[Item]:
    numbers = {name: number for number, name in enumerate(names)}
    return [
        Item(os.path.join(root, file), file, numbers[name])
        for name, members in files.items()
        for file in members
    ]


def _listed(
    folder: str,
    own: dict[str, str],
    what: str = "",
    expected: Iterable[str] = (),
    held_out: HeldOut | None = None,
    split: str = "train",
) -> Images:
    """Lists the images of class folders (`own`: name -> folder), and prints what was found."""
    listed = list_split(folder, own, expected, held_out, split)
    tell(f"{what}{listed.found}", sys.stdout)
    for note in listed.notes:
        _warn(note)
    return listed.images


def _warn(text: str) -> None:
    tell(f"WARNING: {text}")


def _given(data_dir: str, train: str, val: str | None) -> tuple[list[str], dict[str, list[Item]]]:
    own = class_folders(train)
    refuse_one_class(train, own)
    others = {} if val is None else class_folders(val)
    refuse_unknown(val or "", others, own)
    images, names = _listed(train, own, "train: "), list(own)
    refuse_empty(train, own, images)
    splits = {"train": _items(train, images, names), "validation": []}
    if val is None:
        _warn(
            f"{data_dir} has no validation split; --validation_fraction {FRACTION} holds a part of "
            "each class out for it"
        )
    else:
        splits["validation"] = _items(val, _listed(val, others, "validation: ", names), names)
        if not splits["validation"]:
            raise DataError(f"{val}: no images in it. Add some, or remove the folder.")
    if unused := unused_folders(data_dir):
        _warn(f"not packed: {some(unused)} in {data_dir}, beside its train and validation splits")
    return names, splits


def _divided(data_dir: str, held_out: HeldOut | None) -> tuple[list[str], dict[str, list[Item]]]:
    folder = divided_folder(data_dir)
    others = left_for_test(data_dir)
    own = class_folders(folder, others if folder == data_dir else ())
    refuse_one_class(folder, own)
    names, splits = list(own), {}
    for split in ("train", "validation") if held_out else ("train",):
        expected = names if split == "validation" else ()
        images = _listed(folder, own, f"{split}: ", expected, held_out, split)
        if split == "train":
            refuse_empty(folder, own, images)
        splits[split] = _items(folder, images, names)
    if others:
        _warn(f"not packed: {some(others)} in {data_dir}")
    return names, splits
