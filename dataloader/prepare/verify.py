"""`prepare verify`: reads every record and decodes every image, as training would, in parallel."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np

from convoy.dataloader.errors import DataError
from convoy.dataloader.prepare.pack import print_found, track
from convoy.dataloader.prepare.shards import in_parallel
from convoy.dataloader.prepare.twins import digest, twin_notes
from convoy.dataloader.record_source import TFRecordSource
from convoy.dataloader.sources import Source, find_source

_CHUNK = 200
_ANY_CLASS = 2**31 - 1


@dataclass(frozen=True)
class Bad:
    """An example that training could not use.

    Attributes:
        split: "train" or "validation".
        file: where it lies; offset: the record's first byte in it, None for a file of its own.
        key: its number in the split.
        reason: what is wrong.
    """

    split: str
    file: str
    offset: int | None
    key: int
    reason: str


@dataclass(frozen=True)
class _Chunk:
    data_dir: str
    dataset: str
    split: str
    first: int
    end: int
    num_classes: int
    first_label: int | None


def verify(
    data_dir: str,
    *,
    dataset: str = "ImageNet",
    workers: int = 1,
    as_json: bool = False,
    first_label: int | None = None,
) -> int:
    """Checks both splits: checksums, keys, labels, that every image decodes whole, and whether
    images are in both splits or under two labels.

    Prints the bad examples with file, byte offset and number, as lines or one JSON object.

    Returns:
        0, or 1 if anything is bad or certainly missing.

    Raises:
        DataError: there is no data, or a file of it is no TFRecord file.
    """
    _open.cache_clear()  # with one worker it is this process's, and files may have changed
    sources: dict[str, Source] = {}
    missing = None
    for split in ("train", "validation"):
        try:
            tell = functools.partial(print_found, file=sys.stderr)
            sources[split] = find_source(data_dir, split, dataset, first_label, tell)
        except DataError as error:
            if f"no {split} split" not in str(error):
                raise
            missing = error
    if not sources and missing:
        raise missing
    chunks = []
    for split, source in sources.items():
        total = source.num_examples
        for first in range(0, total, _CHUNK):
            end, classes = min(first + _CHUNK, total), source.num_classes or _ANY_CLASS
            chunks.append(_Chunk(data_dir, dataset, split, first, end, classes, first_label))
    bad: list[Bad] = []
    images: dict[str, list[tuple[int, int, int]]] = {split: [] for split in sources}
    results = in_parallel(_check_chunk, chunks, workers)
    for split, some_bad, some_images in track(results, len(chunks), "verifying"):
        bad += some_bad
        images[split] += some_images
    bad.sort(key=lambda one: (one.split, one.key))
    twins = twin_notes(sources, images)
    for note in (note for notes in twins.values() for note in notes):
        print(f"WARNING: {note}", file=sys.stderr)
    counts = {split: source.num_examples for split, source in sources.items()}
    if as_json:
        lost = {split: list(source.lost) for split, source in sources.items()}
        notes = {split: [*source.notes, *twins[split]] for split, source in sources.items()}
        all_bad = [asdict(one) for one in bad]
        report = {"examples": counts, "bad": all_bad, "missing": lost, "warnings": notes}
        print(json.dumps(report, indent=1))
    else:
        for one in bad:
            place = "" if one.offset is None else f", record at byte {one.offset}"
            print(f"{one.file}{place} ({one.split} {one.key}): {one.reason}")
        checked = ", ".join(f"{count} {split}" for split, count in counts.items())
        print(f"{checked} examples checked, {len(bad)} bad.", file=sys.stderr)
    return 1 if bad or any(source.lost for source in sources.values()) else 0


@functools.lru_cache(maxsize=2)
def _open(data_dir: str, dataset: str, split: str, first_label: int | None) -> Source:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # libjpeg's words about each bad image
    source = find_source(data_dir, split, dataset, first_label, tell=None)
    if isinstance(source, TFRecordSource):
        source.check_every_record()
    return source


def _check_chunk(chunk: _Chunk) -> tuple[str, list[Bad], list[tuple[int, int, int]]]:
    """The split, its bad examples, and number, digest and label of the others."""
    source = _open(chunk.data_dir, chunk.dataset, chunk.split, chunk.first_label)
    numbers = range(chunk.first, chunk.end)
    bad = bad_examples(source, chunk.num_classes, chunk.split, numbers)
    left_out, images = {one.key for one in bad}, []
    for i in (i for i in numbers if i not in left_out):
        label = 0 if source.labels is None else source.labels[i]
        encoded, label = source.parse(source.read(np.array([i]))[0], label)
        images.append((i, digest(encoded), int(label)))
    return chunk.split, bad, images


def bad_examples(
    source: Source, num_classes: int, split: str = "train", numbers: Iterable[int] | None = None
) -> list[Bad]:
    """Those of these examples (None: all) that training could not use, decoded whole."""
    from convoy.dataloader.culprits import what_is_wrong
    from convoy.dataloader.decoders import decode_image

    found = []
    for i in range(source.num_examples) if numbers is None else numbers:
        try:
            reason = what_is_wrong(source, i, num_classes, decode_image)
        except DataError as error:  # a label outside the classes, which no limit excuses
            reason = str(error).removeprefix(f"{source.describe(i)}: ")
        if reason is not None:
            file, offset = source.locate(i)
            found.append(Bad(split, file, offset, i, reason))
    return found
