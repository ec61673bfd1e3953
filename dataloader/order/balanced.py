"""Draws an epoch's order with other class frequencies than the data's own.

Like `dataloader.order.sampler`, a pure function of (seed, epoch, position).
"""

from __future__ import annotations

import numpy as np

from convoy.dataloader.order.sampler import Drawn, permutation

SAMPLING = {"balanced": 0.0, "sqrt": 0.5}
"""Powers of a class's size: a class with n examples is drawn in proportion to n to this power.
Natural sampling has power 1.
"""
_ALL, _CLASSES = 2**32 - 1, 2**31  # streams of random numbers; the natural order uses 0, 1…


class ClassSampler:
    """Chooses how many examples of each class an epoch has, and which ones.

    An epoch is as long as the data set. A class takes its examples in a random order, and starts
    over in a new order when all are used, across the ends of epochs. So in the long run the
    examples of a class are seen equally often, and those of rare classes more than once per epoch.

    Args:
        labels: int `(N,)`, one per example; negative if unknown. Such examples are never drawn.
        sampling: one of `SAMPLING`.

    Raises:
        ValueError: no label is known.
    """

    def __init__(self, labels: np.ndarray, sampling: str, seed: int):
        known = np.flatnonzero(labels >= 0)
        if not known.size:
            raise ValueError("no example has a label, so classes cannot be sampled")
        self._seed, self._length = seed, len(labels)
        by_class = known[np.argsort(labels[known], kind="stable")]
        classes, starts = np.unique(labels[by_class], return_index=True)
        self._classes, self._members = classes, np.split(by_class, starts[1:])
        sizes = np.array([len(members) for members in self._members])
        self.counts = _shares(sizes ** SAMPLING[sampling], self._length)

    def order(self, epoch: int) -> SampledOrder:
        """Returns the order of one epoch."""
        examples, rounds = [], []
        for number, members, count in zip(self._classes, self._members, self.counts, strict=True):
            # The epoch's part of an endless sequence: one permutation of the class after another.
            round_, place = np.divmod(epoch * count + np.arange(count), len(members))
            drawn = np.empty(count, np.int64)
            for number_of_round in np.unique(round_):
                here = round_ == number_of_round
                stream = _CLASSES + int(number)
                mixed = permutation(len(members), self._seed, int(number_of_round), stream)
                drawn[here] = members[mixed[place[here]]]
            examples.append(drawn)
            rounds.append(round_)
        mixed = permutation(self._length, self._seed, epoch, _ALL)
        return SampledOrder(np.concatenate(examples)[mixed], np.concatenate(rounds)[mixed])


class SampledOrder:
    """The order of a drawn epoch: the example at each position and how often it was seen before."""

    def __init__(self, examples: np.ndarray, rounds: np.ndarray):
        self._examples, self._rounds = examples, rounds

    def at(self, positions: np.ndarray) -> Drawn:
        """Returns the examples at these positions of the epoch, and how often each came before."""
        return Drawn(self._examples[positions], self._rounds[positions])


def _shares(weights: np.ndarray, total: int) -> np.ndarray:
    """Divides `total` in proportion to weights, into whole numbers.

    The largest remainders are rounded up; among equal remainders, the first ones.
    """
    exact = weights / weights.sum() * total
    counts = np.floor(exact).astype(np.int64)
    up = np.argsort(counts - exact, kind="stable")[: total - counts.sum()]
    counts[up] += 1
    return counts
