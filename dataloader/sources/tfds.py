"""Reads prepared TensorFlow Datasets (TFDS) without TFDS.

TFDS writes `<data_dir>/<name>[/<config>]/<version>/` with shards of `tf.train.Example`s and two
descriptions, `features.json` and `dataset_info.json`. The shards are TFRecord files. Our own reader
reads them at random positions, so order, sharding and resuming work as for every other source. This
module downloads nothing: `python -m convoy.dataloader.prepare tfds --download` does.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

from convoy.dataloader.errors import DataError, NoSplit
from convoy.dataloader.sources.label_files import read_labels
from convoy.dataloader.sources.splits import SPLIT_NAMES
from convoy.dataloader.sources.tfrecords import Layout, TFRecordSource
from convoy.utils.text import some

_NAME = re.compile(r"^tfds:(?P<name>[\w-]+)(/(?P<config>[\w.-]+))?(:(?P<version>\d+\.\d+\.\d+))?$")
_VERSION = re.compile(r"^\d+\.\d+\.\d+$")


class TFDSSource(TFRecordSource):
    """One split of a prepared TFDS data set.

    Args:
        data_dir: TFDS's own data_dir, or the version folder itself.
        dataset: `tfds:name`, `tfds:name/config` or `tfds:name/config:version`; without a version,
            the newest one found.
        split: "train", or "validation" for the first that exists of validation, val, valid, dev,
            eval and test.

    Raises:
        DataError: the data set is not prepared here, or its examples are not one image with one
            class label.
    """

    def __init__(self, data_dir: str, dataset: str, split: str):
        self.folder = find_version(data_dir, dataset)
        described = _read_json(self.folder, "dataset_info.json")
        name, shards = _shards(self.folder, described, split)
        image, label, classes = _features(self.folder)
        names = read_labels(self.folder, (f"{label}.labels.txt",))
        layout = Layout(image, label, first_label=0)
        super().__init__(list(shards), class_names=names, layout=layout)
        self.num_classes = classes if names is None else len(names)
        self.found = f"{split}: {self.found}"
        expected = sum(shards.values())
        if self.num_examples != expected:
            differs = (
                f"{self.folder}: dataset_info.json promises {expected} examples of split {name} "
                f"and the files hold {self.num_examples}. Prepare the data set again."
            )
            if not self.damage:  # a damaged place may have held several
                raise DataError(differs)
            self.notes.append(differs)


def find_version(data_dir: str, dataset: str) -> str:
    """Returns the version folder of a prepared data set.

    Raises:
        DataError: the name is malformed, or nothing is prepared under it.
    """
    match = _NAME.match(dataset)
    if not match:
        raise DataError(
            f"--dataset {dataset}: expected tfds:NAME, tfds:NAME/CONFIG or "
            "tfds:NAME/CONFIG:1.0.0, as TFDS itself writes them."
        )
    if os.path.isfile(os.path.join(data_dir, "features.json")):
        info = _read_json(data_dir, "dataset_info.json")
        if info.get("name") != match["name"]:
            raise DataError(
                f"--data_dir {data_dir} holds the TFDS data set {info.get('name')!r}, not "
                f"{match['name']!r} (--dataset {dataset})."
            )
        return data_dir
    parent = os.path.join(data_dir, match["name"], match["config"] or "")
    found = sorted(os.listdir(parent)) if os.path.isdir(parent) else []
    versions = [
        name
        for name in found
        if _VERSION.match(name) and os.path.isfile(os.path.join(parent, name, "features.json"))
    ]
    wanted = [name for name in versions if match["version"] in (None, name)]
    if wanted:
        newest = max(wanted, key=lambda name: [int(part) for part in name.split(".")])
        return os.path.join(parent, newest)
    if versions:
        hint = f"it has version {some(versions)}"
    elif found:
        hint = f"it has no version folder, but {some(found)}: name a config, tfds:NAME/CONFIG"
    else:
        hint = "there is no such folder"
    raise DataError(
        f"--dataset {dataset}: not prepared in {parent} ({hint}). Prepare it with TFDS, or with "
        f"python -m convoy.dataloader.prepare tfds {dataset.removeprefix('tfds:')} --data_dir "
        f"{data_dir} --download."
    )


def _read_json(folder: str, name: str) -> dict[str, Any]:
    path = os.path.join(folder, name)
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}). Prepare it again.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object. Prepare the data set again.")
    return content


def _shards(folder: str, info: dict[str, Any], split: str) -> tuple[str, dict[str, int]]:
    """Returns the split's own name, and file -> number of examples in it."""
    parts = (s for s in info.get("splits", []) if isinstance(s, dict))
    splits: dict[str, dict[str, Any]] = {s.get("name", ""): s for s in parts}
    name = next((name for name in sum(SPLIT_NAMES[split], ()) if name in splits), None)
    if name is None:
        raise NoSplit(f"{folder} has no {split} split (found: {some(list(splits)) or 'none'}).")
    kind = info.get("fileFormat", "tfrecord")
    if kind != "tfrecord":
        raise DataError(
            f"{folder} is stored as {kind}: only TFRecord files are read. Prepare it again with "
            "file_format=tfrecord, TFDS's default."
        )
    lengths = [int(length) for length in splits[name].get("shardLengths", [])]
    template = splits[name].get("filepathTemplate") or (
        "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    )
    found = {}
    for number, length in enumerate(lengths):
        values = {"DATASET": info.get("name", ""), "SPLIT": name, "FILEFORMAT": kind}
        values["SHARD_INDEX"], values["NUM_SHARDS"] = f"{number:05d}", f"{len(lengths):05d}"
        values["SHARD_X_OF_Y"] = f"{number:05d}-of-{len(lengths):05d}"
        path = os.path.join(folder, template.format_map(values))
        if not os.path.isfile(path):
            raise DataError(f"{path} is missing: prepare or copy the data set again.")
        found[path] = length
    return name, found


def _features(folder: str) -> tuple[str, str, int | None]:
    """Returns the names of the image and of the label, and the number of classes."""
    described = _read_json(folder, "features.json").get("featuresDict", {}).get("features", {})

    def named(kind: str, usual: str) -> str:
        names = [n for n, f in described.items() if f.get("pythonClassName", "").endswith(kind)]
        if usual in names:
            return usual
        if len(names) == 1:
            return names[0]
        raise DataError(
            f"{folder}: expected one feature of kind {kind[1:]}, found {some(names) or 'none'}. "
            "Only image classification with one label an image can be trained."
        )

    image, label = named(".Image", "image"), named(".ClassLabel", "label")
    classes = described[label].get("classLabel", {}).get("numClasses")
    return image, label, None if classes is None else int(classes)
