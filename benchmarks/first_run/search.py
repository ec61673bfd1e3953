"""Searches for good flags, as an expert would by hand, but reproducibly.

Trials draw values at random from those that an expert would try. All data sets get the same trials,
with seed 1. The best trial runs again with the other seeds, because the best of many trials with
one seed is partly luck.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.first_run.contestants import Trial

CHOICES: dict[str, list[Any]] = {
    "lr_init": [5e-4, 1e-3, 2e-3, 4e-3],
    "train_batch_size": [8, 16, 32],
    "max_epochs": [60, 100, 150],
    "image_size": [32, 48, 64, 96],
    "crop_area_min": [0.08, 0.2, 0.35, 0.6, 0.9],
    "hflip": [0.0, 0.5],
    "augmenter_name": ["none", "none", "trivialaugment", "randaugment"],
    "label_smoothing": [0.0, 0.1],
    "weight_decay": [0.005, 0.05, 0.2],
    "dropout": [0.0, 0.2],
    "crop_padding": [0, 5, 10],
    "mixup_alpha": [0.0, 0.0, 0.2],
}
"""Flags and their values. Values are drawn with equal probability."""


def drawn(number: int) -> dict:
    """Returns the flags of trial `number`; the same number gives the same flags."""
    generator = np.random.default_rng(number)
    return {flag: generator.choice(values).item() for flag, values in CHOICES.items()}


def trials(data: Sequence[str], count: int) -> Iterator[Trial]:
    """Yields `count` trials for each data set, alternating between the data sets.

    An interrupted search then has about the same number of trials for each.
    """
    for number in range(count):
        for name in data:
            yield Trial(name, "search", 1, drawn(number))


def best_again(data: Sequence[str], seeds: Sequence[int], found: list[dict]) -> Iterator[Trial]:
    """Yields trials of the best flags of each data set's search, one for each seed."""
    for seed in seeds:
        for name in data:
            tried = [e for e in found if e["data"] == name and e["contestant"] == "search"]
            if tried := [e for e in tried if e["seed"] == 1]:
                yield Trial(name, "search", seed, max(tried, key=lambda e: e["top1"])["flags"])
