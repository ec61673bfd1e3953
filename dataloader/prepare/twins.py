"""Images that a data set holds more than once where that does harm: in both splits, or under two
labels. They are told by their encoded bytes, so copies that were saved anew are not seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from convoy.dataloader.sources import Source


def digest(encoded: bytes) -> int:
    """A number of 64 bits that stands for an encoded image."""
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "little")


def twin_notes(
    sources: Mapping[str, Source], found: Mapping[str, Sequence[tuple[int, int, int]]]
) -> dict[str, list[str]]:
    """Warnings by split.

    Args:
        sources: split -> its source.
        found: split -> number, digest and label of each image that could be read.
    """
    tables = {
        split: np.array(rows, [("number", "i8"), ("digest", "u8"), ("label", "i8")])
        for split, rows in found.items()
    }
    notes = {split: _two_labels(sources[split], table) for split, table in tables.items()}
    if {"train", "validation"} <= tables.keys():
        notes["validation"] += _in_both(sources, tables["train"], tables["validation"])
    return notes


def _two_labels(source: Source, table: np.ndarray) -> list[str]:
    table = np.sort(table, order=("digest", "number"))
    same = table["digest"][1:] == table["digest"][:-1]
    odd = np.flatnonzero(same & (table["label"][1:] != table["label"][:-1]))
    if not odd.size:
        return []
    one, two = (source.describe(int(table["number"][odd[0] + i])) for i in (0, 1))
    return [f"{_images(odd.size)} there under two labels, such as {one} and {two}"]


def _in_both(sources: Mapping[str, Source], train: np.ndarray, val: np.ndarray) -> list[str]:
    twins = np.sort(val[np.isin(val["digest"], train["digest"])], order="number")
    if not twins.size:
        return []
    other = train["number"][train["digest"] == twins["digest"][0]].min()
    one = sources["validation"].describe(int(twins["number"][0]))
    two = sources["train"].describe(int(other))
    return [
        f"{_images(twins.size)} in the train split as well, such as {one} ({two}): what they score "
        "says nothing about new images"
    ]


def _images(count: int) -> str:
    return "one image is" if count == 1 else f"{count} images are"
