"""`prepare verify`: reads every record and decodes every image, as training would, in parallel."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from convoy.dataloader.errors import DataError, NoSplit
from convoy.dataloader.prepare.pack import print_found, track
from convoy.dataloader.prepare.read_differently import read_differently
from convoy.dataloader.prepare.shards import in_parallel
from convoy.dataloader.prepare.twins import digest, pixel_digest, twin_notes
from convoy.dataloader.sources.find import find_source
from convoy.dataloader.sources.held_out import HeldOut, division
from convoy.dataloader.sources.source import Source
from convoy.dataloader.sources.tfrecords import TFRecordSource
from convoy.utils import strict_json
from convoy.utils.machine import device
from convoy.utils.text import printable, tell

_CHUNK = 200
_ANY_CLASS = 2**31 - 1


@dataclass(frozen=True)
class Bad:
    """An example that training could not use.

    Attributes:
        split: "train" or "validation".
        file: its file; offset: the record's first byte in it, None if the file is the example.
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
    held_out: HeldOut | None
    strict: bool


@dataclass
class _Found:
    """The findings in a split or in a part of it.

    Attributes:
        doubtful: examples that can be decoded, although libjpeg complains.
        different: examples that programs read differently (`read_differently`), if asked for.
        images: number, digest, digest of the pixels, and label of each good example.
    """

    bad: list[Bad] = field(default_factory=list)
    doubtful: list[Bad] = field(default_factory=list)
    different: list[Bad] = field(default_factory=list)
    images: list[tuple[int, int, int, int]] = field(default_factory=list)

    def add(self, other: _Found) -> None:
        """Adds the findings in another part."""
        self.bad += other.bad
        self.doubtful += other.doubtful
        self.different += other.different
        self.images += other.images


def verify(
    data_dir: str,
    *,
    dataset: str = "ImageNet",
    workers: int = 1,
    as_json: bool = False,
    first_label: int | None = None,
    validation_fraction: float | None = None,
    validation_seed: int = 0,
    strict: bool = False,
) -> int:
    """Checks both splits: checksums, keys, labels, and that every image decodes completely.

    Also checks whether images are in both splits or under two labels.

    Prints the bad examples with file, byte offset and number, as lines or one JSON object; with
    `strict` also those that other programs read differently.

    Returns:
        0, or 1 if anything that it looks for is found, or data is certainly missing.

    Raises:
        DataError: there is no data, or a file is not a TFRecord file.
    """
    _open.cache_clear()  # with one worker the cache is this process's, and files may have changed
    held_out = division(validation_fraction, validation_seed)
    sources = _sources(data_dir, dataset, first_label, held_out)
    chunks = []
    for split, source in sources.items():
        total = source.num_examples
        for first in range(0, total, _CHUNK):
            end, classes = min(first + _CHUNK, total), source.num_classes or _ANY_CLASS
            part = (split, first, end, classes, first_label, held_out, strict)
            chunks.append(_Chunk(data_dir, dataset, *part))
    found = {split: _Found() for split in sources}
    results = in_parallel(_check_chunk, chunks, workers)
    for split, checked in track(results, len(chunks), "verifying"):
        found[split].add(checked)
    twins = twin_notes(sources, {split: one.images for split, one in found.items()})
    for note in (note for notes in twins.values() for note in notes):
        tell(f"WARNING: {note}")
    notes = {split: [*source.notes, *twins[split]] for split, source in sources.items()}
    (_print_json if as_json else _print_lines)(sources, found, notes)
    lost = any(source.lost for source in sources.values())
    return 1 if lost or any(one.bad or one.different for one in found.values()) else 0


def _sources(
    data_dir: str, dataset: str, first_label: int | None, held_out: HeldOut | None
) -> dict[str, Source]:
    """Opens the splits that exist, and prints their contents.

    Raises:
        DataError: there is no split, or one is unusable.
    """
    sources: dict[str, Source] = {}
    missing = None
    for split in ("train", "validation"):
        try:
            tell = functools.partial(print_found, file=sys.stderr)
            sources[split] = find_source(data_dir, split, dataset, first_label, tell, held_out)
        except NoSplit as error:
            missing = error
    if not sources and missing:
        raise missing
    return sources


def _in_order(found: Iterable[Bad]) -> list[Bad]:
    return sorted(found, key=lambda one: (one.split, one.key))


def _print_json(
    sources: Mapping[str, Source], found: Mapping[str, _Found], notes: Mapping[str, list[str]]
) -> None:
    bad = _in_order(one for part in found.values() for one in part.bad)
    doubtful = _in_order(one for part in found.values() for one in part.doubtful)
    different = _in_order(one for part in found.values() for one in part.different)
    report = {
        "examples": {split: source.num_examples for split, source in sources.items()},
        "bad": [asdict(one) for one in bad],
        "doubtful": [asdict(one) for one in doubtful],
        "different": [asdict(one) for one in different],
        "missing": {split: list(source.lost) for split, source in sources.items()},
        "warnings": notes,
    }
    print(strict_json.dumps(report, indent=1))


def _print_lines(
    sources: Mapping[str, Source], found: Mapping[str, _Found], _: Mapping[str, list[str]]
) -> None:
    bad = _in_order(one for part in found.values() for one in part.bad)
    doubtful = _in_order(one for part in found.values() for one in part.doubtful)
    different = _in_order(one for part in found.values() for one in part.different)
    groups = (bad, ""), (doubtful, "decoded, but may be damaged: "), (different, "")
    for ones, how in groups:
        for one in ones:
            place = "" if one.offset is None else f", record at byte {one.offset}"
            print(f"{printable(one.file)}{place} ({one.split} {one.key}): {how}{one.reason}")
    checked = ", ".join(f"{source.num_examples} {split}" for split, source in sources.items())
    more = f", {len(doubtful)} doubtful" if doubtful else ""
    more += f", {len(different)} read differently by other programs" if different else ""
    print(f"{checked} examples checked, {len(bad)} bad{more}.", file=sys.stderr)


@functools.lru_cache(maxsize=2)
def _open(
    data_dir: str, dataset: str, split: str, first_label: int | None, held_out: HeldOut | None
) -> Source:
    # silences TensorFlow's messages about each bad image
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    source = find_source(data_dir, split, dataset, first_label, None, held_out)
    if isinstance(source, TFRecordSource):
        source.check_every_record()
    return source


def _check_chunk(chunk: _Chunk) -> tuple[str, _Found]:
    """Returns the split, and the findings in these examples of it."""
    source = _open(chunk.data_dir, chunk.dataset, chunk.split, chunk.first_label, chunk.held_out)
    numbers = range(chunk.first, chunk.end)
    doubtful: list[Bad] = []
    pixels: dict[int, int] = {}
    bad = bad_examples(source, chunk.num_classes, chunk.split, numbers, doubtful, pixels)
    left_out, found = {one.key for one in bad}, _Found(bad, doubtful)
    for i in (i for i in numbers if i not in left_out):
        label = 0 if source.labels is None else source.labels[i]
        encoded, label = source.parse(source.read(np.array([i]))[0], label)
        found.images.append((i, digest(encoded), pixels[i], int(label)))
        if chunk.strict and (reason := read_differently(encoded)):
            found.different.append(Bad(chunk.split, *source.locate(i), i, reason))
    return chunk.split, found


def bad_examples(
    source: Source,
    num_classes: int,
    split: str = "train",
    numbers: Iterable[int] | None = None,
    doubtful: list[Bad] | None = None,
    pixels: dict[int, int] | None = None,
) -> list[Bad]:
    """Decodes these examples (None: all) completely, and returns those that training could not use.

    Args:
        source: the examples.
        num_classes: number of classes.
        split: name of the split, for the result.
        numbers: the examples to decode; None: all.
        doubtful: collects those that can be decoded although libjpeg complains.
        pixels: collects the digest of each example's pixels by its number.
    """
    device.import_tensorflow()
    from convoy.dataloader import native
    from convoy.dataloader.bad_images.culprits import what_is_wrong
    from convoy.dataloader.images.decoders import decode_image

    decoded: list[np.ndarray] = []

    def decode(encoded: Any) -> None:
        decoded[:] = [decode_image(encoded).numpy()]

    found = []
    native.libjpeg_said()
    for i in range(source.num_examples) if numbers is None else numbers:
        try:
            reason = what_is_wrong(source, i, num_classes, decode)
        except DataError as error:  # a label outside the classes, which no limit permits
            reason = str(error).removeprefix(f"{source.describe(i)}: ")
        if reason is None and pixels is not None:
            pixels[i] = pixel_digest(decoded[0])
        said = native.libjpeg_said()
        file, offset = source.locate(i)
        if reason is not None:
            found.append(Bad(split, file, offset, i, f"{reason} ({said})" if said else reason))
        elif said and doubtful is not None:
            doubtful.append(Bad(split, file, offset, i, said))
    return found
