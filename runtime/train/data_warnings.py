"""Warns before the first step about data that make an evaluation less meaningful than it seems.

These are too few images, classes in only one split, splits that look different, and images in both.
Everything here runs on rank 0 and has a time limit (`twins.QUICK_SECONDS`, samples). No TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from convoy.dataloader.data_loader import DataLoader
from convoy.dataloader.errors import DataError
from convoy.dataloader.images.by_pillow import opened
from convoy.dataloader.prepare.twins import Twins, look_for_twins
from convoy.dataloader.sources.source import Source
from convoy.runtime.fitted.data_facts import sample
from convoy.runtime.fitted.rules import FEW_IMAGES
from convoy.utils.optional import known
from convoy.utils.text import counted, some

FEW, FEW_OF_A_CLASS = 100, 5
"""Numbers of validation images, in all and per class, below which it warns."""
FAR = 2.0
"""Largest ratio of the splits' medians of the shorter side."""
_GREY = 3  # largest difference between channels in a picture that looks grey
_MOST, _LEAST = 0.9, 0.1  # fractions of grey images in splits that differ
_THUMBNAIL = 64


def data_doubts(train: DataLoader, validation: DataLoader) -> list[str]:
    """Returns warnings, one text each.

    Args:
        train: the training loader.
        validation: the validation loader.
    """
    sources = known(train.source), known(validation.source)
    names = train.class_names or [str(i) for i in range(train.num_classes)]
    size = validation.image_size
    doubts = [*_of_counts(*sources, names), *_of_looks(*sources, size)]
    twins = look_for_twins(*sources)
    return doubts + ([_of_twins(twins)] if twins else [])


def labels_of(source: Source, classes: int) -> np.ndarray | None:
    """Returns the known labels, int `(N,)`, if finding them takes only seconds."""
    if source.labels is None and source.num_examples >= FEW_IMAGES:
        return None
    with suppress(DataError, OSError):
        labels = source.all_labels()
        return labels[(labels >= 0) & (labels < classes)]  # others are reported elsewhere
    return None


def _of_counts(train: Source, validation: Source, names: Sequence[str]) -> Iterator[str]:
    labels = [labels_of(source, len(names)) for source in (train, validation)]
    counts = [x if x is None else np.bincount(x, minlength=len(names)) for x in labels]
    if counts[0] is not None:
        single = [names[i] for i in np.flatnonzero(counts[0] == 1).tolist()]
        if single := [name for name in single if name not in validation.lacking]:
            yield (
                f"{_count(len(single), 'class')} of {np.count_nonzero(counts[0]):,}"
                f" {_verb(single, 'has', 'have')} one training image: {some(single)}. Hardly"
                " anything is learnt from one: add images"
            )
    if counts[0] is not None and counts[1] is not None:
        yield from _of_classes(counts[0], counts[1], names, validation.lacking)
    images, own = validation.num_examples, counts[1]
    if images < FEW:
        yield (
            f"the evaluation has {_count(images, 'image')}: each is {100 / images:.1f}"
            f" points of top-1, which is uncertain by ± {50 / math.sqrt(images):.1f} points (one"
            " standard error, at 50%). Smaller differences mean nothing; more validation images"
            " would measure better"
        )
    elif own is not None and (
        rare := [i for i in np.flatnonzero(own).tolist() if own[i] < FEW_OF_A_CLASS]
    ):
        told = some([f"{names[i]} ({own[i]})" for i in rare], 3)
        yield (
            f"{_count(len(rare), 'class')} of {np.count_nonzero(own):,} in the evaluation"
            f" {_verb(rare, 'has', 'have')} fewer than {FEW_OF_A_CLASS} images, as {told}:"
            " figures by class, and macro F1, say little about"
            f" {_verb(rare, 'it', 'them')}. Add validation images"
        )


def _of_classes(
    train: np.ndarray, validation: np.ndarray, names: Sequence[str], told: Sequence[str]
) -> Iterator[str]:
    only_train = [names[i] for i in np.flatnonzero((train > 0) & (validation == 0)).tolist()]
    if missing := [name for name in only_train if name not in told]:
        yield (
            f"no validation images of {_count(len(missing), 'class')} that"
            f" {_verb(missing, 'is', 'are')} trained: {some(missing)}. The evaluation says nothing"
            f" about {_verb(missing, 'it', 'them')}: add images"
        )
    if new := [names[i] for i in np.flatnonzero((validation > 0) & (train == 0)).tolist()]:
        yield (
            f"no training images of {_count(len(new), 'class')} in the evaluation: {some(new)}."
            f" {_verb(new, 'Its', 'Their')} images can only be misclassified: add some to the"
            " train split, or remove these"
        )


@dataclass(frozen=True)
class Looks:
    """Looks of a split's images, from a sample.

    Attributes:
        short_side: the median in pixels.
        grey: the fraction without colours.
    """

    short_side: float
    grey: float


def looks(source: Source) -> Looks | None:
    """Examines a sample; returns None if none of it is readable."""
    sides, greys = [], []
    for encoded in sample(source):
        with suppress(ValueError, OSError), opened(encoded) as image:
            side = min(image.size)
            image.draft("RGB", (_THUMBNAIL, _THUMBNAIL))  # JPEGs: decoded small, which is fast
            small = np.asarray(image.convert("RGB").resize((_THUMBNAIL, _THUMBNAIL)), np.int16)
            greys.append(bool(np.ptp(small, axis=-1).max() <= _GREY))
            sides.append(side)
    return Looks(float(np.median(sides)), float(np.mean(greys))) if sides else None


def _of_looks(train: Source, validation: Source, size: int) -> Iterator[str]:
    """Yields warnings about splits that look different.

    Args:
        train: the training split.
        validation: the validation split.
        size: side of the model's images in pixels.
    """
    one, two = looks(train), looks(validation)
    if one is None or two is None:
        return
    for first, second, where in ((one, two, "training"), (two, one, "validation")):
        if first.grey >= _MOST and second.grey <= _LEAST:
            other = "validation" if where == "training" else "training"
            yield (
                f"{where} images are grey and {other} images have colours: what the model"
                " learns may not apply to the others. Make both alike"
            )
    small, large = sorted((one.short_side, two.short_side))
    # If both splits are larger than the model's images, both are scaled down.
    if large >= FAR * small and (small < size or large >= FAR**2 * small):
        yield (
            f"training images are {one.short_side:.0f} px and validation images"
            f" {two.short_side:.0f} px on their shorter side (medians), and the model sees"
            f" {size} px: the smaller ones are blurred beside the others. Take both from the same"
            " originals"
        )


def _of_twins(twins: Twins) -> str:
    anew = f", {twins.saved_anew} of them saved again" if twins.saved_anew else ""
    pairs = "; ".join(f"{one} = {two}" for one, two in twins.pairs)
    more = "; …" if twins.count > len(twins.pairs) else ""
    return (
        f"{_count(twins.count, 'validation image')} {'is' if twins.count == 1 else 'are'} in the"
        f" train split too{anew}, so the results are too good: {pairs}{more}. Remove them from one"
        " split; python -m convoy.dataloader.prepare verify finds all"
    )


def _count(number: int, what: str) -> str:
    return f"one {what}" if number == 1 else counted(number, what)


def _verb(things: Sequence[Any], one: str, several: str) -> str:
    return one if len(things) == 1 else several
