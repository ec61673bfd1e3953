"""Finds images that occur more than once where this does harm: in both splits, or under two labels.

It compares the encoded bytes and also the decoded pixels, as copies may have been saved anew or in
another format.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np

from convoy.dataloader.errors import DataError
from convoy.dataloader.images import by_pillow
from convoy.dataloader.sources.source import Source

QUICK_IMAGES, QUICK_SECONDS = 20_000, 10.0
"""Maximum number of images in both splits that `look_for_twins` examines, and its time limit."""
_PAIRS = 3
_CHUNK = 64
_ROW = [("number", "i8"), ("digest", "u8"), ("pixels", "u8"), ("label", "i8")]


def digest(encoded: bytes) -> int:
    """Returns a 64-bit hash of an encoded image."""
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "little")


def pixel_digest(pixels: np.ndarray) -> int:
    """Returns a 64-bit hash of decoded pixels, uint8 `(H, W, 3)`."""
    return digest(np.array(pixels.shape[:2], np.int64).tobytes() + pixels.tobytes())


@dataclass(frozen=True)
class Twins:
    """Validation images that are also in the train split.

    Attributes:
        count: number of validation images.
        saved_anew: number of them with the same pixels but different bytes.
        pairs: locations of the first of them in the validation and in the train split.
    """

    count: int
    saved_anew: int
    pairs: Sequence[tuple[str, str]]


def twin_notes(
    sources: Mapping[str, Source], found: Mapping[str, Sequence[tuple[int, int, int, int]]]
) -> dict[str, list[str]]:
    """Returns warnings for each split.

    Args:
        sources: split -> its source.
        found: split -> number, digest, digest of the pixels, and label of each readable image.
    """
    tables = {split: np.array(rows, _ROW) for split, rows in found.items()}
    notes = {split: _two_labels(sources[split], table) for split, table in tables.items()}
    if {"train", "validation"} <= tables.keys():
        twins = _in_both(sources, tables["train"], tables["validation"])
        notes["validation"] += [twins_text(twins)] if twins else []
    return notes


def twins_text(twins: Twins) -> str:
    """Returns the message about them."""
    (one, two), anew = twins.pairs[0], ""
    if twins.saved_anew:
        anew = f" ({twins.saved_anew} saved again, with the same pixels)"
    return (
        f"{_images(twins.count)} in the train split as well{anew}, such as {one} ({two}):"
        " their results say nothing about new images"
    )


def look_for_twins(train: Source, validation: Source) -> Twins | None:
    """Checks for twins before a training run starts; returns None if nothing was found.

    It does so only in sets of at most `QUICK_IMAGES`, and only for `QUICK_SECONDS`. Half of the
    time is for comparing bytes, which finds most.
    """
    sources = {"validation": validation, "train": train}
    if sum(source.num_examples for source in sources.values()) > QUICK_IMAGES:
        return None
    start, tables = time.monotonic(), {}
    with ThreadPoolExecutor(4, thread_name_prefix="convoy-twins") as pool:
        for split, source in sources.items():
            rows = _rows(pool, source, start + QUICK_SECONDS / 2, pixels=False)
            tables[split] = np.array(rows, _ROW)
        for split, source in sources.items():
            rows = _rows(pool, source, start + QUICK_SECONDS, pixels=True)
            table = tables[split]
            place = {number: i for i, number in enumerate(table["number"].tolist())}
            for number, _, pixels, _ in rows:
                if number in place:
                    table["pixels"][place[number]] = pixels
    return _in_both(sources, tables["train"], tables["validation"])


def _rows(
    pool: ThreadPoolExecutor, source: Source, end: float, pixels: bool
) -> list[tuple[int, int, int, int]]:
    """Returns numbers and digests (0: not known) of a source's images, until the time is up."""

    def look(number: int) -> tuple[int, int, int, int] | None:
        label = 0 if source.labels is None else source.labels[number]
        try:
            encoded, label = source.parse(source.read(np.array([number]))[0], label)
            told = pixel_digest(by_pillow.decode(encoded)) if pixels else 0
        except (DataError, OSError, ValueError):  # training will report it
            return None
        return number, 0 if pixels else digest(encoded), told, int(label)

    rows: list[tuple[int, int, int, int]] = []
    # In random order, so that no class is left out if time is short.
    numbers: Iterator[int] = iter(np.random.default_rng(0).permutation(source.num_examples))
    while (chunk := list(islice(numbers, _CHUNK))) and time.monotonic() < end:
        rows += [row for row in pool.map(look, map(int, chunk)) if row is not None]
    return rows


def _two_labels(source: Source, table: np.ndarray) -> list[str]:
    table = np.sort(table, order=("digest", "number"))
    same = table["digest"][1:] == table["digest"][:-1]
    odd = np.flatnonzero(same & (table["label"][1:] != table["label"][:-1]))
    if not odd.size:
        return []
    one, two = (source.describe(int(table["number"][odd[0] + i])) for i in (0, 1))
    return [f"{_images(odd.size)} there under two labels, such as {one} and {two}"]


def _in_both(sources: Mapping[str, Source], train: np.ndarray, val: np.ndarray) -> Twins | None:
    val = np.sort(val, order="number")
    bytes_too = np.isin(val["digest"], train["digest"])
    same = np.isin(val["pixels"], train["pixels"][train["pixels"] != 0]) & (val["pixels"] != 0)
    if not (found := val[bytes_too | same]).size:
        return None
    pairs = []
    for twin in found[:_PAIRS]:
        alike = train["digest"] == twin["digest"]
        if not alike.any():
            alike = train["pixels"] == twin["pixels"]
        other = train["number"][alike].min()
        places = (("validation", twin["number"]), ("train", other))
        one, two = (sources[split].describe(int(number)) for split, number in places)
        pairs.append((one, two))
    return Twins(int(found.size), int((same & ~bytes_too).sum()), pairs)


def _images(count: int) -> str:
    return "one image is" if count == 1 else f"{count} images are"
