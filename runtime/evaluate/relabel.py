"""Reads `--eval_labels`: labels for the validation images, such as ReaL's or ImageNet-V2's.

No TensorFlow. A file lists labels either in order or by file name:

- JSON, a list: one entry per image (ReaL's `real.json`);
- JSON, an object: file name → entry;
- text, one line per image: `LABEL`, or `NAME LABEL` with a space, tab or comma between them.

An entry is a label or a list of labels; an empty list leaves the image out. A label is a class
number from 0, or the name of a class.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convoy.runtime.data.class_names import imagenet_classes
from convoy.utils.errors import ConfigError
from convoy.utils.text import TextError, canonical, read_text, split_lines

Entry = list[int | str]
NONE = -1  # pads the rows of images with fewer labels


@dataclass
class LabelFile:
    """The contents of a label file.

    Attributes:
        file: its path.
        entries: entries in order, or by name.
    """

    file: str
    entries: list[Entry] | dict[str, Entry]

    @property
    def by_name(self) -> bool:
        """Returns whether it names the images."""
        return isinstance(self.entries, dict)


def read_label_file(file: str) -> LabelFile:
    """Reads a label file in one of the formats above.

    Raises:
        ConfigError: it cannot be read or parsed.
    """
    try:
        text = read_text(file, f"--eval_labels {file}")
        is_json = text.lstrip()[:1] in ("[", "{")
        data = json.loads(text, object_pairs_hook=_each_once) if is_json else None
    except TextError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigError(f"--eval_labels {file} cannot be read: {error}") from error
    if isinstance(data, dict):
        entries = {name: _entry(file, name, value) for name, value in data.items()}
        return LabelFile(file, entries)
    if data is not None:
        return LabelFile(file, [_entry(file, f"entry {i}", v) for i, v in enumerate(data)])
    everything = split_lines(text.rstrip())
    lines = [line for line in everything if line.strip()]
    if not lines:
        raise ConfigError(f"--eval_labels {file} is empty")
    rows = [_split(line) for line in lines]
    if all(name is None for name, _ in rows):
        if len(lines) < len(everything):  # all later labels would shift by one
            empty = next(i for i, line in enumerate(everything, 1) if not line.strip())
            raise ConfigError(
                f"--eval_labels {file}: line {empty} is empty, and labels in the order of the"
                " images need one on each line"
            )
        return LabelFile(file, [[label] for _, label in rows])
    if nameless := [line for line, (name, _) in zip(lines, rows, strict=True) if name is None]:
        raise ConfigError(
            f"--eval_labels {file}: {nameless[0]!r} has no file name, and other lines have one:"
            " give LABEL on each line, or NAME LABEL on each"
        )
    try:
        return LabelFile(file, _each_once([(str(name), [label]) for name, label in rows]))
    except ValueError as error:
        raise ConfigError(f"--eval_labels {file}: {error}") from error


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a dict by canonical name.

    Raises ValueError if a name occurs twice: Python would keep the last.
    """
    pairs = [(canonical(name), value) for name, value in pairs]
    counts = Counter(name for name, _ in pairs)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise ValueError(f"{twice[0]!r} occurs {counts[twice[0]]} times: give each name once")
    return dict(pairs)


def _split(line: str) -> tuple[str | None, int | str]:
    """Splits a line into its name, if any, and its label.

    The label is the part after the last tab, or, without a tab, after the last space or comma.
    """
    line = line.strip()
    found = re.fullmatch(r"(.*\S)\s*\t\s*(\S.*)|(.+?)(?:\s*,\s*|\s+)([^\s,]+)", line)
    if not found:
        return None, _label(line)
    name, label = found.group(1, 2) if found[1] else found.group(3, 4)
    return name, _label(label)


def _label(text: str) -> int | str:
    return int(text) if re.fullmatch(r"-?\d{1,9}", text) else text


def _entry(file: str, where: str, value: Any) -> Entry:
    labels = value if isinstance(value, list) else [value]
    if all(isinstance(v, int | str) and not isinstance(v, bool) for v in labels):
        return labels
    raise ConfigError(
        f"--eval_labels {file}, {where}: {json.dumps(value)[:60]} is neither a class (its number"
        " from 0, or its name) nor a list of classes"
    )


def names_for_labels(
    trained: Sequence[str] | None, data: Sequence[str] | None, classes: int
) -> list[str] | None:
    """Returns the class names that labels may use.

    They are the checkpoint's; ImageNet's for a thousand classes without names, as everywhere;
    otherwise the validation data's.

    Args:
        trained: the names in the checkpoint, or None.
        data: the names in the data, or None.
        classes: number of the model's classes.
    """
    imagenet = imagenet_classes()
    if not trained and classes == len(imagenet):
        return list(imagenet)
    names = [canonical(name) for name in trained or data or []]
    return names if len(names) == classes else None


def label_table(
    labels: LabelFile,
    names: Sequence[str | None],
    classes: int,
    class_names: Sequence[str] | None = None,
) -> np.ndarray:
    """Returns the labels of each example.

    Args:
        labels: the file.
        names: each example's file name or path, or None if the data do not store it.
        classes: number of the model's classes.
        class_names: their names, if known.

    Returns:
        int32 `(len(names), most labels of an image)`, sorted, rows padded with `NONE`; only `NONE`
        for an image without labels.

    Raises:
        ConfigError: the file does not fit the data.
    """
    entries = _matched(labels, names)
    numbers = {name: i for i, name in enumerate(class_names or [])}
    shared = {name for name, count in Counter(class_names or []).items() if count > 1}

    def number(label: int | str) -> int:
        if label in shared:
            raise ConfigError(
                f"--eval_labels {labels.file}: several classes of this model are called {label!r}:"
                " give their numbers, from 0"
            )
        found = numbers.get(canonical(label), NONE) if isinstance(label, str) else label
        if not 0 <= found < classes:
            raise ConfigError(
                f"--eval_labels {labels.file}: {label!r} is not a class of this model, which has"
                f" {classes}" + (f", {class_names[0]} the first" if class_names else "")
            )
        return found

    rows = [sorted({number(label) for label in entry}) for entry in entries]
    if not any(rows):
        raise ConfigError(f"--eval_labels {labels.file} has no label for any image")
    table = np.full((len(rows), max(map(len, rows))), NONE, np.int32)
    for row, found in zip(table, rows, strict=True):
        row[: len(found)] = found
    return table


def _matched(labels: LabelFile, names: Sequence[str | None]) -> list[Entry]:
    """Returns each example's entry; [] if the file has none."""
    named = all(name is not None for name in names)
    if isinstance(labels.entries, dict):
        if not named:
            raise ConfigError(
                f"--eval_labels {labels.file} gives labels by file name, and the records keep no"
                " file names: give a list in the order of the examples"
            )
        keys = [_key(labels.entries, canonical(str(name))) for name in names]
        if all(key is None for key in keys):
            raise ConfigError(
                f"--eval_labels {labels.file} names none of the images: it has"
                f" {next(iter(labels.entries), 'nothing')!r}, and the data {names[0]!r}"
            )
        _refuse_shared(labels.file, keys, names)
        return [labels.entries[key] if key is not None else [] for key in keys]
    if len(labels.entries) != len(names):
        raise ConfigError(
            f"--eval_labels {labels.file} has labels for {len(labels.entries)} images, and the"
            f" validation split has {len(names)}: give one entry per image, or names"
        )
    if not named:
        return labels.entries
    return _in_order(labels.file, labels.entries, [str(name) for name in names])


def _key(entries: dict[str, Entry], path: str) -> str | None:
    """Returns the name that ends a path: all of it, some of its folders, or only the file."""
    while path not in entries:
        _, slash, path = path.partition("/")
        if not slash:
            return None
    return path


def _refuse_shared(file: str, keys: list[str | None], names: Sequence[str | None]) -> None:
    """Raises ConfigError if a name matches several images."""
    counts = Counter(key for key in keys if key is not None)
    if twice := [key for key, count in counts.items() if count > 1]:
        one, other = [n for key, n in zip(keys, names, strict=True) if key == twice[0]][:2]
        raise ConfigError(
            f"--eval_labels {file}: {twice[0]!r} fits several images, such as {one} and {other}:"
            " give as much of each path as tells them apart"
        )


def _in_order(file: str, entries: list[Entry], names: list[str]) -> list[Entry]:
    """Sorts the entries of a list by the files' own names, without folders."""
    files = [name.rsplit("/", 1)[-1] for name in names]
    if twice := [name for name, count in Counter(files).items() if count > 1]:
        raise ConfigError(
            f"--eval_labels {file} is a list in the order of file names, and several images are"
            f" called {twice[0]}: give an object with their folders, such as"
            f' {{"{names[files.index(twice[0])]}": 0}}'
        )
    order = sorted(range(len(files)), key=files.__getitem__)
    found: list[Entry] = [[]] * len(files)
    for place, entry in zip(order, entries, strict=True):
        found[place] = entry
    return found
