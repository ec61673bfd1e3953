"""Finds which files of a folder are a split's TFRecord files, and which shards are missing."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from convoy.dataloader.errors import DataError
from convoy.dataloader.images.file_kinds import is_file
from convoy.dataloader.sources.splits import SPLIT_NAMES, check_place
from convoy.utils.text import some

# train-00003-of-00010, also with an ending, and TF-Slim's flowers_train_00003-of-00010…
_SHARD = re.compile(r"^(?P<set>.*?)[-_.]?(?P<number>\d+)-of-(?P<total>\d+)(?P<ending>\..*)?$")


@dataclass
class RecordFiles:
    """A split's sorted TFRecord files, and findings about them.

    Attributes:
        files: their paths.
        lost: the missing shards, judging by the names of the others.
        unused: names of record files that belong to no split.
    """

    files: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)


def find_record_files(data_dir: str, split: str) -> RecordFiles:
    """Returns the TFRecord files of a split, under any of its names.

    Raises:
        DataError: there are several sets of them.
        OSError: the folder cannot be read.
    """
    with os.scandir(data_dir) as entries:
        names = sorted(
            entry.name
            for entry in entries
            if not entry.name.startswith(".")
            and not entry.name.endswith((".idx", ".index"))
            and is_file(entry)
        )
    for row, words in enumerate(SPLIT_NAMES[split]):
        found = {word: files for word in words if (files := _named(names, word))}
        if len(found) > 1:
            which = " and ".join(files[0] for files in found.values())
            raise DataError(
                f"--data_dir {data_dir} holds {which}, and each may belong to the {split} split. "
                "Keep one set."
            )
        if found:
            ((_, files),) = found.items()
            later = sum(SPLIT_NAMES[split][row + 1 :], ())
            unused = [name for word in later for name in _named(names, word)]
            paths = [os.path.join(data_dir, name) for name in files]
            return RecordFiles(paths, _missing(data_dir, files), unused)
    return RecordFiles()


def all_record_files(data_dir: str) -> list[str]:
    """Returns the TFRecord files of both splits.

    Raises:
        DataError: there are none, or they belong to different sets.
    """
    check_place(data_dir)
    files = [path for split in SPLIT_NAMES for path in find_record_files(data_dir, split).files]
    if not files:
        raise DataError(f"--data_dir {data_dir} holds no TFRecord files (train-*, validation-*).")
    return files


def _named(names: Sequence[str], word: str) -> list[str]:
    """Returns the files whose names assign them to this split.

    Those are `train-*`; otherwise TFDS's names; otherwise names with "train" as a separate word and
    ".tfrecord" or ".tfrec".
    """
    for pattern in (
        rf"{word}-.*",
        rf".+-{word}\.tfrecord-\d+-of-\d+",
        rf"(.*[-_.])?{word}([-_.\d].*)?\.tfrec.*|(.*[-_.])?{word}\.tfrec.*",
    ):
        if found := [name for name in names if re.fullmatch(pattern, name, re.IGNORECASE)]:
            return found
    return []


def _missing(data_dir: str, files: Sequence[str]) -> list[str]:
    """Raises if there are two sets of shards in one folder; returns the gaps in a set."""
    sets: dict[tuple[str, int, str], set[int]] = {}
    for file in files:
        match = _SHARD.match(file)
        if match:
            key = (match["set"], int(match["total"]), match["ending"] or "")
            sets.setdefault(key, set()).add(int(match["number"]))
    if len(sets) > 1:
        names = some([f"{name}-*-of-{total}{ending}" for name, total, ending in sorted(sets)])
        raise DataError(
            f"--data_dir {data_dir} holds shards of different sets ({names}): left over from an "
            "earlier preparation? Keep one set."
        )
    if sets and (others := [file for file in files if not _SHARD.match(file)]):
        raise DataError(
            f"--data_dir {data_dir} holds {some(others)} beside numbered shards: if it is a copy, "
            "its images would count twice. Move it away."
        )
    notes = []
    for (name, total, _), numbers in sets.items():
        missing = sorted(set(range(total)) - numbers)
        if missing:
            notes.append(
                f"{data_dir}: {len(missing)} of the {total} shards {name}-* are missing "
                f"({some([str(n) for n in missing])}); continuing without them"
            )
    return notes
