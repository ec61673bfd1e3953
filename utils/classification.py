"""Rates a classifier's answers: counts by class, calibration, confidence intervals.

NumPy only, in float64. An answer is a class and its confidence, the probability that the model
gives it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

BINS = 15
"""Number of bins of the reliability diagram and the ECE, as in Guo et al. 2017,
arXiv:1706.04599.
"""
RESAMPLES = 10_000


@dataclass
class Confusion:
    """The nonzero cells of a confusion matrix: how often a class was taken for another.

    There are at most as many cells as answers; a full matrix of 10,000 classes would take 800 MB.

    Attributes:
        classes: number of classes.
        label, predicted, count: int64 `(cells,)`, sorted by label, then by answer.
    """

    classes: int
    label: np.ndarray
    predicted: np.ndarray
    count: np.ndarray

    @property
    def matrix(self) -> np.ndarray:
        """Returns the full matrix, int64 `(classes, classes)`: rows are labels, columns answers."""
        matrix = np.zeros((self.classes, self.classes), np.int64)
        matrix[self.label, self.predicted] = self.count
        return matrix


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> Confusion:
    """Counts how often each label received each answer.

    Args:
        labels: int `(N,)`, classes from 0.
        predicted: the same, as the model answered.
        classes: number of classes.
    """
    cells = np.asarray(labels, np.int64) * classes + np.asarray(predicted, np.int64)
    cells, count = np.unique(cells, return_counts=True)
    return Confusion(classes, *np.divmod(cells, classes), count)


@dataclass
class ByClass:
    """Figures for each class; all arrays are `(classes,)`.

    Attributes:
        precision: correct answers as a fraction of the answers that named the class.
        recall: correct answers as a fraction of the class's examples.
        f1: the harmonic mean of both.
        support: examples of the class.
        predicted: answers that named it.

    A quotient with denominator 0 is 0, as in scikit-learn; NaN for a class with neither examples
    nor answers.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    predicted: np.ndarray

    def means(self, weighted: bool = False) -> dict[str, float]:
        """Returns `precision`, `recall` and `f1` averaged over the classes that occur.

        Args:
            weighted: weight each class by its examples; otherwise all count equally (macro).
        """
        occurs = (self.support + self.predicted) > 0
        weights = self.support[occurs] if weighted else None
        return {
            name: float(np.average(getattr(self, name)[occurs], weights=weights))
            for name in ("precision", "recall", "f1")
        }


def by_class(found: Confusion) -> ByClass:
    """Returns the figures of each class."""

    def total(of: np.ndarray, which: np.ndarray | slice = slice(None)) -> np.ndarray:
        counts = np.bincount(of[which], weights=found.count[which], minlength=found.classes)
        return counts.astype(np.int64)

    right = total(found.label, found.label == found.predicted)
    return of_totals(right, total(found.label), total(found.predicted))


def totals(labels: np.ndarray, answers: np.ndarray, classes: int) -> np.ndarray:
    """Counts correct answers, examples and answers of each class: int64 `(3, classes)`.

    Args:
        labels: int `(N,)`, classes from 0.
        answers: the same; values from `classes` on mean no valid answer.
        classes: number of classes.
    """
    columns = (labels[labels == answers], labels, answers[answers < classes])
    return np.stack([np.bincount(column, minlength=classes) for column in columns])


def of_totals(right: np.ndarray, support: np.ndarray, predicted: np.ndarray) -> ByClass:
    """Computes the figures of each class from the sums of `totals`, each `(classes,)`."""
    occurs = support + predicted > 0

    def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.where(occurs, part / np.maximum(whole, 1), np.nan)

    return ByClass(
        precision=share(right, predicted),
        recall=share(right, support),
        f1=share(2 * right, support + predicted),
        support=support,
        predicted=predicted,
    )


class Pair(NamedTuple):
    """A class taken for another, and how often."""

    label: int
    predicted: int
    count: int  # type: ignore[assignment]  # in place of a tuple's own `count`


def confused_pairs(found: Confusion, most: int) -> list[Pair]:
    """Returns the most frequent mistakes, at most `most`; among equal ones, lower classes first."""
    wrong = np.flatnonzero(found.label != found.predicted)
    cells = wrong[np.argsort(-found.count[wrong], kind="stable")[:most]]
    columns = (found.label[cells], found.predicted[cells], found.count[cells])
    return [Pair(*map(int, row)) for row in zip(*columns, strict=True)]


@dataclass
class Calibration:
    """Compares confidence with the frequency of correct answers; arrays are `(bins,)`.

    Attributes:
        edges: `(bins + 1,)`; a bin holds confidences above its lower edge and up to its upper edge.
        count: answers in the bin.
        confidence, accuracy: means in the bin; NaN in an empty bin.
        ece: expected calibration error: the mean of |accuracy - confidence| over all answers.
        mce: maximum calibration error: the largest such difference in any bin.
    """

    edges: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    ece: float
    mce: float


def calibration(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> Calibration:
    """Computes the calibration in bins of equal width.

    Args:
        confidence: float `(N,)`, 0 to 1, at least one.
        right: bool `(N,)`, whether the answer is correct.
        bins: number of bins.
    """
    confidence = np.asarray(confidence, np.float64)
    edges = np.linspace(0, 1, bins + 1)
    place = np.searchsorted(edges[1:-1], confidence, side="left")
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        accuracy = np.bincount(place, weights=right, minlength=bins) / count
        mean = np.bincount(place, weights=confidence, minlength=bins) / count
    gaps = np.abs(accuracy - mean)[count > 0]
    ece = float(np.average(gaps, weights=count[count > 0]))
    return Calibration(edges, count, mean, accuracy, ece, float(gaps.max()))


def by_threshold(
    confidence: np.ndarray, right: np.ndarray, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what remains if only answers above each confidence threshold count.

    Returns:
        `(thresholds,)` twice: the fraction of answers that remain, and the fraction of these that
        are correct (NaN if none remains).
    """
    confidence = np.asarray(confidence, np.float64)
    order = np.argsort(-confidence, kind="stable")
    kept = np.searchsorted(-confidence[order], -np.asarray(thresholds, np.float64), side="right")
    hits = np.concatenate([[0], np.cumsum(np.asarray(right)[order])])[kept]
    accuracy = np.where(kept > 0, hits / np.maximum(kept, 1), np.nan)
    return kept / confidence.size, accuracy


def bootstrap_interval(
    right: np.ndarray, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Returns a percentile bootstrap interval of the accuracy.

    Of N answers drawn with replacement, the number of correct ones is binomial, so we draw it
    directly: the same distribution, without 10,000 passes over the answers.
    """
    right = np.asarray(right, bool)
    drawn = np.random.default_rng(seed).binomial(right.size, right.mean(), resamples)
    return _middle(drawn / right.size, level)


def bootstrap_difference(
    right: np.ndarray,
    other: np.ndarray,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Returns the interval of `right`'s accuracy minus `other`'s, for answers to the same examples.

    Examples are drawn in pairs: those on which both agree cannot change the difference.
    """
    right, other = np.asarray(right, bool), np.asarray(other, bool)
    gained, lost = (right & ~other).mean(), (other & ~right).mean()
    shares = [gained, lost, max(0.0, 1 - gained - lost)]
    drawn = np.random.default_rng(seed).multinomial(right.size, shares, resamples)
    return _middle((drawn[:, 0] - drawn[:, 1]) / right.size, level)


def _middle(values: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
