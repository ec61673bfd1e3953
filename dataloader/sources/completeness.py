"""Checks whether records are missing from a split's files.

It uses notes beside the files, otherwise the files' names and the number of records in the others.
A file that was cut between two records looks complete to every reader. Needs no TensorFlow.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from typing import Any

from convoy.dataloader.sources.splits import SPLIT_NAMES
from convoy.utils.optional import known

# Kaggle's data sets put the number of records into names: flowers-train-07-798.tfrec.
_COUNT_IN_NAME = re.compile(r"-(\d+)\.tfrec(ord)?s?$", re.IGNORECASE)
_MOST = 0.75  # fraction of files that must be alike for another one to be suspicious


def find_gaps(
    data_dir: str, split: str, files: Sequence[str], counts: Sequence[int]
) -> tuple[list[str], list[str]]:
    """Returns warnings about what is certainly missing, and about what may be; one line each.

    Args:
        data_dir: the folder.
        split: name of the split.
        files: TFRecord files of one split, sorted.
        counts: the number of records in each of them.
    """
    names = [os.path.basename(file) for file in files]
    promised = _promised(data_dir, split, names) or _counts_in_names(names, counts)
    if promised is None:
        return [], _odd_counts(files, counts)
    who, each, total = promised
    now = dict(zip(names, counts, strict=True))
    odd = [name for name, count in each.items() if now.get(name, 0) != count]
    if total == sum(counts) and not odd:
        return [], []
    which = f" ({odd[0]}: {each[odd[0]]}, and {now.get(odd[0], 0)} now)" if odd else ""
    return [
        f"{data_dir}: {who} {total} examples of the {split} split, and {sum(counts)} are there"
        f"{which}. Copy it again"
    ], []


def _promised(
    data_dir: str, split: str, files: Sequence[str]
) -> tuple[str, dict[str, int], int] | None:
    """Returns what `prepare` or TFDS noted beside the files; None if neither wrote a note.

    The result is "so-and-so promises", records by file, and their sum.
    """
    try:
        about = _read_json(data_dir, "manifest.json")["splits"][split]
        shards = about.get("shards", {}).items()
        each = {name: int(shard["records"]) for name, shard in shards}
        return "manifest.json promises", each, int(about["examples"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        pass  # not ours, or missing
    try:
        splits = {one["name"]: one for one in _read_json(data_dir, "dataset_info.json")["splits"]}
        name = next(name for name in sum(SPLIT_NAMES[split], ()) if name in splits)
        lengths = [int(length) for length in splits[name]["shardLengths"]]
        numbers = [int(known(re.search(r"(\d+)-of-\d+", file))[1]) for file in files]
        each = {file: lengths[number] for file, number in zip(files, numbers, strict=True)}
        return "dataset_info.json promises", each, sum(lengths)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration):
        return None


def _read_json(folder: str, name: str) -> Any:
    with open(os.path.join(folder, name), encoding="utf-8") as file:
        return json.load(file)


def _counts_in_names(
    names: Sequence[str], counts: Sequence[int]
) -> tuple[str, dict[str, int], int] | None:
    """Returns the numbers at the ends of the names, if most agree with the records' counts."""
    found = {name: match for name in names if (match := _COUNT_IN_NAME.search(name))}
    each = {name: int(match[1]) for name, match in found.items()}
    right = sum(each.get(name) == count for name, count in zip(names, counts, strict=True))
    if len(each) < len(names) or right < max(2, _MOST * len(names)):
        return None
    return "the files' names promise", each, sum(each.values())


def _odd_counts(files: Sequence[str], counts: Sequence[int]) -> list[str]:
    """Returns warnings about files with fewer records than the others.

    Writers distribute records evenly or by bytes, or fill all files but the last. So most counts
    fall into a range, and one far below it is suspicious.
    """
    notes = [f"{file} is empty" for file, count in zip(files, counts, strict=True) if not count]
    if len(notes) > 1:
        notes = [f"{notes[0]}, and so are {len(notes) - 1} more of the {len(files)} files"]
    held = sorted(count for count in counts if count)
    size = max(2, int(_MOST * len(held)))
    ranges = [(held[i], held[i + size - 1]) for i in range(len(held) - size + 1)]
    if len(held) > 2 and ranges:
        low, high = min(ranges, key=lambda ends: (ends[1] - ends[0], -ends[0]))
        bound = low - max(1, 3 * (high - low))
        pairs = zip(files[:-1], counts, strict=False)
        few = [(file, count) for file, count in pairs if 0 < count < bound]
        if few:
            file, count = few[0]
            usual = f"{low}" if low == high else f"{low} to {high}"
            more = f" ({len(few) - 1} more files are short, too)" if len(few) > 1 else ""
            notes.append(
                f"{file} holds {count} records where most hold {usual}: its copy may be "
                f"incomplete{more}"
            )
    return [f"{note}. Compare it with the original" for note in notes]
