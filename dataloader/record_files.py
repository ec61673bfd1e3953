"""Which files of a folder are a split's TFRecord files, and whether some may be missing or cut."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from convoy.dataloader.errors import DataError
from convoy.dataloader.splits import SPLIT_NAMES, check_place, some

_SHARD = re.compile(r"^(?P<set>.*)-(?P<number>\d+)-of-(?P<total>\d+)$")


@dataclass
class RecordFiles:
    """A split's TFRecord files, sorted, and what is to be said of them.

    Attributes:
        files: their paths.
        notes: warnings.
        unused: names of record files that belong to no split.
    """

    files: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)


def find_record_files(data_dir: str, split: str) -> RecordFiles:
    """The TFRecord files of a split, under whichever of its names there are any.

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
            and entry.is_file()
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
            notes = _missing(data_dir, files)
            return RecordFiles([os.path.join(data_dir, name) for name in files], notes, unused)
    return RecordFiles()


def all_record_files(data_dir: str) -> list[str]:
    """The TFRecord files of both splits.

    Raises:
        DataError: there are none, or they are of different sets.
    """
    check_place(data_dir)
    files = [path for split in SPLIT_NAMES for path in find_record_files(data_dir, split).files]
    if not files:
        raise DataError(f"--data_dir {data_dir} holds no TFRecord files (train-*, validation-*).")
    return files


def _named(names: Sequence[str], word: str) -> list[str]:
    """The files whose names say that they belong to the split of this name: `train-*`, else as TFDS
    names them, else with "train" as a word of its own and ".tfrecord" or ".tfrec" in their names.
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
    """Refuses two sets of shards in one folder; tells gaps in a set."""
    sets: dict[tuple[str, int], set[int]] = {}
    for file in files:
        match = _SHARD.match(file)
        if match:
            key = (match["set"], int(match["total"]))
            sets.setdefault(key, set()).add(int(match["number"]))
    if len(sets) > 1:
        names = some([f"{name}-*-of-{total}" for name, total in sorted(sets)])
        raise DataError(
            f"--data_dir {data_dir} holds shards of different sets ({names}): left over from an "
            "earlier preparation? Keep one set."
        )
    notes = []
    for (name, total), numbers in sets.items():
        missing = sorted(set(range(total)) - numbers)
        if missing:
            notes.append(
                f"{data_dir}: {len(missing)} of the {total} shards {name}-* are missing "
                f"({some([str(n) for n in missing])}); going on with the others"
            )
    return notes


def odd_counts(files: Sequence[str], counts: Sequence[int]) -> list[str]:
    """Warnings of files that hold fewer records than the others, as after a copy that was cut.

    A file that ends between two records is whole to a reader; what tells is that writers deal
    records out evenly, or fill up all files but the last.

    Args:
        counts: the number of records in each file.
    """
    notes = [f"{file} is empty" for file, count in zip(files, counts, strict=True) if not count]
    if len(notes) > 1:
        notes = [f"{notes[0]}, and so are {len(notes) - 1} more of the {len(files)} files"]
    held = [(count, file) for file, count in zip(files, counts, strict=True) if count]
    (usual, _), *_ = Counter(count for count, _ in held).most_common(1)
    even = sum(abs(count - usual) <= 1 for count, _ in held)
    # With less than three alike, nobody can tell which is the odd one.
    few = [(count, file) for count, file in held if count < usual - 1 and file != files[-1]]
    if few and even >= max(3, 0.75 * len(held)):
        count, file = few[0]
        others = f", and {len(few) - 1} more files are short" if len(few) > 1 else ""
        notes.append(
            f"{file} holds {count} records and most others {usual}{others}: if it was cut while it "
            "was copied, the rest is missing"
        )
    return [f"{note}. Compare it with where it came from." for note in notes]


def compare_with_manifest(
    data_dir: str, split: str, files: Sequence[str], counts: Sequence[int]
) -> list[str]:
    """Warnings where `prepare` wrote another number of examples than there are now."""
    path = os.path.join(data_dir, "manifest.json")
    try:
        with open(path, encoding="utf-8") as file:
            about = json.load(file)["splits"][split]
        written, shards = int(about["examples"]), about.get("shards", {})
        wanted = {name: int(shard["records"]) for name, shard in shards.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []  # not ours, or none
    now = {os.path.basename(file): count for file, count in zip(files, counts, strict=True)}
    if written == sum(now.values()) and all(now.get(name, n) == n for name, n in wanted.items()):
        return []
    odd = [name for name, count in wanted.items() if now.get(name) != count]
    which = f" ({odd[0]}: {wanted[odd[0]]}, and {now.get(odd[0], 0)} now)" if odd else ""
    return [
        f"{path}: {written} examples were written to the {split} split and {sum(now.values())} are "
        f"there{which}: copy it again"
    ]
