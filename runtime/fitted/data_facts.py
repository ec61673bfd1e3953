"""Reads facts about a data set before a run: the number of images and their size.

Imports no TensorFlow.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress

import numpy as np

from convoy.dataloader.errors import DataError
from convoy.dataloader.images.by_pillow import opened
from convoy.dataloader.sources.source import Source
from convoy.runtime.data.open_split import open_split
from convoy.runtime.fitted.rules import FEW_IMAGES, Facts
from convoy.runtime.settings.config import Config
from convoy.utils.machine.gpus import visible_gpus

SAMPLE = 48


def facts_of(config: Config, processes: int) -> Facts:
    """Reads the facts about a training run's data.

    Args:
        config: a checked config, so there are data.
        processes: number of processes that will train together.

    Raises:
        DataError: there are no data.
    """
    train, both = open_split(config, "train"), config.mode == "train_and_eval"
    return Facts(
        images=train.num_examples,
        eval_images=open_split(config, "validation").num_examples if both else 0,
        # Nothing depends on it for larger sets.
        short_side=short_side(train) if train.num_examples < FEW_IMAGES else None,
        processes=processes,
        gpus=visible_gpus() > 0,
        pretrained=config.pretrained_from_file is not None,
        frozen=config.freeze_backbone,
        letters=are_letters(train.class_names or ()),
    )


def are_letters(names: Collection[str]) -> bool:
    """Returns whether every class name is one character, and one of them is a letter.

    Digits alone may be mere numbers of classes.
    """
    return all(len(name) == 1 for name in names) and any(name.isalpha() for name in names)


def short_side(source: Source) -> int | None:
    """Returns the median of the images' shorter sides in pixels; None if none is readable.

    It reads the headers of a sample.
    """
    sides = []
    for encoded in sample(source):
        with suppress(OSError, ValueError), opened(encoded) as image:
            sides.append(min(image.size))
    return int(np.median(sides)) if sides else None


def sample(source: Source) -> Iterator[bytes]:
    """Yields encoded images from all over a split, without unreadable ones."""
    numbers = np.linspace(0, source.num_examples - 1, min(SAMPLE, source.num_examples))
    for i in np.unique(numbers.astype(np.int64)):
        with suppress(DataError, OSError, ValueError):  # training will report it
            yield source.encoded(int(i))
