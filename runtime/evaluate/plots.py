"""Draws the plots of an evaluation report: reliability, confidence, and each confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from convoy.utils.classification import Confusion, by_threshold
from convoy.utils.pages.plots import COLOURS, SERIES, Plot

if TYPE_CHECKING:
    from convoy.runtime.evaluate.result import Result

NUMBERED = 20  # largest number of classes for which the matrix shows numbers and names
SIDE = 900  # pixels of a matrix without them
SINGLE = 1000  # largest number of classes with one row of pixels each; with more, several share one
_NAME = 14  # characters of a class's name beside the matrix
_BLUE, _ORANGE = (
    tuple(int(COLOURS[c][i : i + 2], 16) / 255 for i in (1, 3, 5)) for c in ("c1", "c2")
)
# Otherwise single images of a class of thousands would not be visible.
_FAINTEST = 0.15


def plots(results: Sequence[Result]) -> dict[str, Plot]:
    """Returns plots by file name.

    They are the reliability diagram and the confidence curves of all evaluations, and a confusion
    matrix for each.
    """
    found = {"reliability": reliability(results), "confidence": confidence(results)}
    for number, result in enumerate(results, 1):
        found["confusion" + (f"-{number}" if number > 1 else "")] = confusion(result)
    return found


def reliability(results: Sequence[Result]) -> Plot:
    """Plots accuracy against confidence in bins, and the line on which both agree."""
    label = "Reliability diagram: accuracy against confidence"
    with Plot(label, height=_height(results)) as plot:
        axes, single = plot.axes, len(results) == 1
        axes.plot([0, 1], [0, 1], color=COLOURS["dim"], linewidth=1, linestyle=(0, (3, 3)))
        for result, colour in zip(results, SERIES, strict=False):
            bins = result.calibration
            if single:
                width = 0.92 * np.diff(bins.edges)
                axes.bar(
                    bins.edges[:-1], bins.accuracy, width, align="edge", color=colour, alpha=0.3
                )
            full = bins.count > 0
            x, y, style = bins.confidence[full], bins.accuracy[full], "o" if single else "o-"
            axes.plot(x, y, style, markersize=4, color=colour, label=result.name)
        axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.01), ylim=(0, 1.03))
        if not single:
            plot.figure.legend(loc="outside lower left")
    return plot


def confidence(results: Sequence[Result]) -> Plot:
    """Plots coverage and accuracy if only confident answers count."""
    thresholds = np.linspace(0, 1, 201)
    label = "Accuracy and coverage against the least confidence"
    with Plot(label, height=_height(results)) as plot:
        axes, single = plot.axes, len(results) == 1
        for result, colour in zip(results, SERIES, strict=False):
            coverage, accuracy = by_threshold(result.confidence, result.right, thresholds)
            axes.plot(thresholds, accuracy, color=colour, label=result.name or "accuracy")
            axes.plot(
                thresholds,
                coverage,
                color=colour,
                linewidth=1,
                linestyle=(0, (4, 2)),
                label="coverage" if single else None,
            )
        axes.set(xlabel="least confidence", ylabel="share", xlim=(0, 1.01), ylim=(0, 1.03))
        plot.figure.legend(loc="outside lower left", ncols=2 if single else 1)
    return plot


def _height(results: Sequence[Result]) -> int:
    """Returns the height, including a legend below the axes."""
    return 255 + 16 * len(results)


def confusion(result: Result) -> Plot:
    """Draws a heat map: rows are true classes, columns answers, strength the part of the row."""
    classes = len(result.class_names)
    small = classes <= NUMBERED
    side = max(380, 34 * classes + 90) if small else SIDE
    name = f" ({result.name})" if result.name else ""
    with Plot(f"Confusion matrix{name}", side, side) as plot:
        axes = plot.axes
        found, per = result.confusion, classes_a_pixel(classes)
        heat = _heat(found, per)
        end = per * len(heat) - 0.5  # so that ticks are class numbers
        extent = (-0.5, end, end, -0.5)
        axes.imshow(heat, interpolation="none", aspect="equal", extent=extent)
        axes.grid(False)
        axes.set(xlabel="answer", ylabel="true class")
        if small:
            names = [_short(name) for name in result.class_names]
            axes.set_xticks(range(classes), names)
            if max(map(len, names)) > 3:
                axes.tick_params(axis="x", rotation=45)
                for text in axes.get_xticklabels():
                    text.set(ha="right", rotation_mode="anchor")
            axes.set_yticks(range(classes), names)
            for i, j, count in zip(found.label, found.predicted, found.count, strict=True):
                size = 9 if count < 1000 else 7
                axes.text(j, i, f"{count}", ha="center", va="center", fontsize=size)
    return plot


def classes_a_pixel(classes: int) -> int:
    """Returns how many classes share a row of pixels."""
    return 1 if classes <= SINGLE else -(-classes // SIDE)


def _heat(found: Confusion, per: int = 1) -> np.ndarray:
    """Returns uint8 RGBA: correct answers blue by fraction, mistakes orange by its square root.

    Each pixel covers `per` × `per` cells. On the diagonal, it shows only their correct answers.
    """
    side = -(-found.classes // per)
    rows, columns = found.label // per, found.predicted // per
    share = found.count / np.bincount(rows, weights=found.count)[rows]
    shown = (rows != columns) | (found.label == found.predicted)
    cells = np.bincount((rows * side + columns)[shown], share[shown], minlength=side * side)
    cells = cells.reshape(side, side)
    heat = np.empty((side, side, 4), np.uint8)
    heat[..., :3] = np.round(255 * np.array(_ORANGE))
    strength = np.where(cells > 0, _FAINTEST + (1 - _FAINTEST) * np.sqrt(cells), 0)
    heat[..., 3] = np.round(255 * strength)
    diagonal = np.arange(side)
    heat[diagonal, diagonal, :3] = np.round(255 * np.array(_BLUE))
    heat[diagonal, diagonal, 3] = np.round(255 * 0.75 * cells[diagonal, diagonal])
    return heat


def _short(name: str) -> str:
    return name if len(name) <= _NAME else name[: _NAME - 1] + "…"
