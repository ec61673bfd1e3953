"""Draws the history of runs as curves and tables, for the reports about one and several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convoy.runtime.run_folder.history import History, Run
from convoy.runtime.run_folder.ranking import METRICS, Rank
from convoy.utils.pages.plots import SERIES, Plot

# The tables' rows for an epoch: label, figure, whether it is a fraction.
FIGURES = (
    ("training loss", "train.loss", False),
    ("training top-1", "train.top1", True),
    ("training top-5", "train.top5", True),
    ("evaluation loss", "eval_loss", False),
    ("evaluation top-1", "eval_accuracy_top_1", True),
    ("evaluation top-5", "eval_accuracy_top_5", True),
    ("moving average: loss", "eval_ema_loss", False),
    ("moving average: top-1", "eval_ema_accuracy_top_1", True),
    ("moving average: top-5", "eval_ema_accuracy_top_5", True),
)
TOP1 = ("eval_accuracy_top_1", "eval_ema_accuracy_top_1")


@dataclass(frozen=True)
class Line:
    """A figure's curve, with its names in the log and in the legend.

    Attributes:
        noisy: drawn faintly, with a smoothed curve above it.
        epochs: from evaluation, one value per epoch: with dots.
    """

    figure: str
    name: str
    noisy: bool = False
    epochs: bool = False


@dataclass(frozen=True)
class Chart:
    """A plot on a page and as a PNG: file name, title, lines and their unit."""

    name: str
    title: str
    lines: tuple[Line, ...]
    unit: str
    percent: bool = False
    log: bool = False


CHARTS = (
    Chart(
        "loss",
        "Loss",
        (
            Line("train.loss", "training", noisy=True),
            Line("eval_loss", "evaluation", epochs=True),
            Line("eval_ema_loss", "moving average", epochs=True),
        ),
        "nats",
    ),
    Chart(
        "accuracy",
        "Top-1 accuracy",
        (
            Line("train.top1", "training", noisy=True),
            Line("eval_accuracy_top_1", "evaluation", epochs=True),
            Line("eval_ema_accuracy_top_1", "moving average", epochs=True),
        ),
        "percent",
        percent=True,
    ),
    Chart("learning_rate", "Learning rate", (Line("train.lr", "learning rate"),), ""),
    Chart(
        "throughput",
        "Throughput",
        (
            Line("train.total_ips", "with waiting for data", noisy=True),
            Line("train.compute_ips", "computing alone", noisy=True),
        ),
        "images/s",
    ),
    Chart(
        "gradient_norm",
        "Gradient norm",
        (Line("train.grad_norm", "before clipping", noisy=True),),
        "",
        log=True,
    ),
)


def smooth(values: np.ndarray) -> np.ndarray:
    """Returns an exponential moving average, corrected for the bias at its start.

    It spans about a twentieth of the values; for fewer than 40 values, two.
    """
    kept = 1 - 1 / max(2.0, len(values) / 20)
    mean, weight, smoothed = 0.0, 0.0, []
    for value in values:
        mean, weight = kept * mean + (1 - kept) * value, kept * weight + (1 - kept)
        smoothed.append(mean / weight)
    return np.array(smoothed, np.float64)


def in_epochs(history: History, steps: np.ndarray) -> np.ndarray:
    """Converts steps to fractional epochs: 1.5 is the middle of the second.

    Returns the steps if no epoch has ended.
    """
    ends = [(0, 0.0), *((v["step"], float(e)) for e, v in history.epochs.items() if "step" in v)]
    if len(ends) == 1:
        return steps
    at, epochs = np.array(ends, np.float64).T
    beyond = (steps - at[-1]) * (epochs[-1] - epochs[-2]) / max(at[-1] - at[-2], 1)
    return np.interp(steps, at, epochs) + np.maximum(beyond, 0)


def axis_of(histories: Sequence[History]) -> str:
    """Returns the x axis that suits all of these runs."""
    known = all(any("step" in v for v in history.epochs.values()) for history in histories)
    return "epoch" if known else "step"


def draw(chart: Chart, history: History) -> Plot | None:
    """Draws one run's chart; None if the log has none of its figures."""
    axis = axis_of([history])
    curves = [(line, *_points(line, chart, history, axis)) for line in chart.lines]
    curves = [(line, x, y) for line, x, y in curves if len(x)]
    if not curves:
        return None
    names = ", ".join(line.name for line, _, _ in curves)
    with Plot(f"{chart.title} by {axis}: {names}") as plot:
        for colour, (line, x, y) in zip(SERIES, curves, strict=False):
            _draw_line(plot, line, x, y, colour, line.name, faint=True)
        _finish(plot, chart, axis, [y for _, _, y in curves], legend=len(curves) > 1)
    return plot


def draw_together(chart: Chart, line: Line, runs: Sequence[tuple[str, History]]) -> Plot | None:
    """Draws one figure of several runs, by name."""
    axis = axis_of([history for _, history in runs])
    curves = [(name, *_points(line, chart, history, axis)) for name, history in runs]
    if not any(len(x) for _, x, _ in curves):
        return None
    with Plot(f"{title_of(chart, line)}, by {axis}") as plot:
        for number, (name, x, y) in enumerate(curves):
            if not len(x):
                continue  # a run has the same colour in all charts
            colour = SERIES[number % len(SERIES)]
            style = ("-", "--", ":", "-.")[number // len(SERIES) % 4]
            _draw_line(plot, line, x, y, colour, name, faint=len(runs) < 4, style=style)
        _finish(plot, chart, axis, [y for _, _, y in curves], legend=len(runs) > 1)
    return plot


def title_of(chart: Chart, line: Line) -> str:
    """Returns the title of one line's chart."""
    return chart.title if len(chart.lines) == 1 else f"{chart.title}, {line.name}"


def _points(line: Line, chart: Chart, history: History, axis: str) -> tuple[np.ndarray, np.ndarray]:
    steps, values = history.curve(line.figure)
    x = in_epochs(history, steps) if axis == "epoch" else steps
    return x, 100 * values if chart.percent else values


def _draw_line(
    plot: Plot,
    line: Line,
    x: np.ndarray,
    y: np.ndarray,
    colour: str,
    name: str,
    *,
    faint: bool,
    style: str = "-",
) -> None:
    dots = "o" if len(x) < 3 or (line.epochs and len(x) <= 40) else None
    options: dict[str, Any] = {"color": colour, "marker": dots, "markersize": 3.5}
    if line.noisy and len(x) > 3:
        if faint:
            plot.axes.plot(x, y, color=colour, alpha=0.4, linewidth=1)
        y, options["marker"] = smooth(y), None
    plot.axes.plot(x, y, label=name, linestyle=style, **options)


def _logarithmic(plot: Plot) -> None:
    from matplotlib.ticker import LogFormatter

    plot.axes.set_yscale("log")
    plot.axes.yaxis.set_major_formatter(LogFormatter())


def _finish(plot: Plot, chart: Chart, axis: str, values: list[np.ndarray], legend: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    joined = np.concatenate(values)
    plot.axes.set(xlabel=axis, ylabel=chart.unit)
    if chart.log and joined.min() > 0 and joined.max() > 30 * joined.min():
        _logarithmic(plot)
    elif chart.name == "loss" and (top := axis_top(values)) is not None:
        count = int((joined > top).sum())
        more = f"{count} {'value' if count == 1 else 'values'} above, up to {joined.max():.3g}"
        plot.axes.set_ylim(top=top)
        plot.axes.text(0.02, 0.97, more, va="top", fontsize=9, transform=plot.axes.transAxes)
    elif chart.name == "loss" and joined.min() > 0 and joined.max() > 1000 * np.median(joined):
        _logarithmic(plot)
    elif chart.name in ("throughput", "learning_rate"):
        plot.axes.set_ylim(bottom=0)
    plot.axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, min_n_ticks=1))
    if legend:
        plot.axes.legend()


def axis_top(values: Sequence[np.ndarray]) -> float | None:
    """Returns where to end an axis that a few large values would flatten; None if there are none.

    A limit of six interquartile ranges above each curve's median includes any curve that falls like
    a loss. At most one value in ten may be beyond that, and far beyond: more of them are part of
    the curve, and need a logarithmic axis.
    """
    quartiles = [np.percentile(y, (25, 50, 75)) for y in values if len(y)]
    top = max(middle + 6 * (high - low) for low, middle, high in quartiles)
    joined = np.concatenate(values)
    beyond = joined > top
    if not beyond.any() or beyond.mean() > 0.1 or joined.max() < 3 * top:
        return None
    if not 0 < top < 100 * np.median(joined):
        return None
    return float(top)


def best_epoch(history: History) -> int | None:
    """Returns the epoch with the best top-1 accuracy in evaluation; None if none was evaluated.

    It counts the weights or their moving average. Of equal epochs, it takes the one with the lowest
    loss, and of these the first.
    """
    ranks = {
        epoch: max(_ranks(values).values())
        for epoch, values in history.epochs.items()
        if TOP1[0] in values
    }
    return max(ranks, key=ranks.__getitem__) if ranks else None


def best_score(values: dict[str, Any]) -> tuple[str, float]:
    """Returns the better top-1 accuracy of an evaluation, and its name: one of `TOP1`."""
    ranks = _ranks(values)
    name = max(ranks, key=ranks.__getitem__)
    return name, _number(values.get(name), -1.0)


def _ranks(values: dict[str, Any]) -> dict[str, Rank]:
    """Returns the places of the weights and their average, by name of `TOP1`."""
    top1 = METRICS["top1"]
    return {name: top1.rank(values, kind) for name, kind in zip(TOP1, ("raw", "ema"), strict=True)}


def last_epoch(history: History) -> int | None:
    """Returns the last finished epoch."""
    return max(history.epochs, default=None)


def _number(value: Any, otherwise: float = math.nan) -> float:
    return float(value) if isinstance(value, int | float) else otherwise


def figure_text(values: dict[str, Any], name: str, share: bool) -> str:
    """Formats a figure of an epoch, or a dash."""
    value = _number(values.get(name))
    if math.isnan(value):
        return "–"
    return f"{value:.2%}" if share else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Formats a duration for people: 41 s, 12 min, 3 h 20 min, 2 d 4 h."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(minutes / 60)
    return f"{hours // 24} d {hours % 24} h"


def state_of(run: Run, now: float) -> str:
    """Says whether the run has finished."""
    history, epochs = run.history, run.config.max_epochs
    done = last_epoch(history) or 0
    if history.summary and done >= epochs:
        return f"finished after {done} epochs"
    if history.summary:
        return f"stopped as asked, after {done} of {epochs} epochs"
    silent = duration(max(0.0, now - (history.ended or now)))
    return (
        f"no end in the log: it is running, or was stopped or killed; {done} of {epochs} epochs are"
        f" done, and its last line was written {silent} before this page"
    )
