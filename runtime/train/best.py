"""Finds a run's best evaluation by `--best_metric`, of the weights or of their average."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from convoy.runtime.run_folder.ranking import LOSS, METRICS, WORST, Metric, Rank

if TYPE_CHECKING:  # imports TensorFlow
    from convoy.runtime.train.step import TrainState


def better_weights(values: Mapping[str, float], has_ema: bool, metric: str = "top1") -> str:
    """Returns "ema" if the moving average was better at the last evaluation, otherwise "raw".

    If there was no evaluation yet, returns "ema": an average is usually better.
    """
    by = METRICS[metric]
    if not has_ema:
        return "raw"
    return "ema" if by.of(values, False) is None or _average_leads(by, values) else "raw"


def _average_leads(by: Metric, values: Mapping[str, float]) -> bool:
    if by.of(values, True) is None:
        return False
    return by.rank(values, "ema") >= by.rank(values, "raw")


def comparable(best: Mapping[str, Any], metric: str, images: Mapping[str, Any] | None) -> bool:
    """Returns whether a best evaluation was by this metric and on these images.

    Args:
        best: `TrainState.best`.
        metric: one of `METRICS`.
        images: the validation images now, from `images_of`.
    """
    return best.get("metric") == METRICS[metric].name and same_images(best.get("images"), images)


def same_images(noted: Mapping[str, Any] | None, images: Mapping[str, Any] | None) -> bool:
    """Returns whether an evaluation's images were the same, as far as it noted them.

    Older versions noted nothing, or not how the images were cut.
    """
    return noted is None or (
        images is not None and all(images.get(name) == noted[name] for name in noted)
    )


def as_best(
    metric: str,
    figures: Mapping[str, float],
    weights: str,
    place: Mapping[str, int],
    images: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Returns an evaluation as the content of `TrainState.best` and of `best.json`.

    Args:
        metric: one of `METRICS`.
        figures: the evaluation's.
        weights: "raw" or "ema", whichever was better.
        place: `epoch` and `step` of the weights.
        images: the evaluated images, from `images_of`.
    """
    by, averaged = METRICS[metric], weights == "ema"
    found = {
        "metric": by.name,
        "value": by.of(figures, averaged),
        "epoch": place["epoch"],
        "step": place["step"],
        "weights": weights,
        "images": images,
    }
    more = {"top1": METRICS["top1"].of(figures, averaged), "loss": LOSS.of(figures, averaged)}
    return found | finite({name: value for name, value in more.items() if value is not None})


def _rank_of(best: Mapping[str, Any], by: Metric) -> Rank:
    """Returns the rank of `TrainState.best`.

    Older versions did not note the loss: theirs stays the best of equal ones.
    """
    loss = LOSS.sign * best["loss"] if "loss" in best else -WORST
    return by.sign * best["value"], loss


def judge(
    state: TrainState,
    values: Mapping[str, float],
    metrics: Mapping[str, float],
    metric: str,
    images: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], bool]:
    """Updates `state.best` if the weights or their average are better than all before.

    It also updates `state.waited`, the number of evaluations since the metric was last better.

    Args:
        state: changed in place.
        values: from `runtime.train.epoch_evaluations.evaluate_state`.
        metrics: the run's latest figures, including this evaluation's.
        metric: one of `METRICS`.
        images: the evaluated images, from `images_of`.

    Returns:
        The facts for the checkpoint of this state (`checkpoint.add_score`), and whether it is the
        best so far.
    """
    by, weights = METRICS[metric], better_weights(values, state.ema is not None, metric)
    rank, before = by.rank(values, weights), (WORST, WORST)
    if comparable(state.best, metric, images):
        before = _rank_of(state.best, by)
    score = rank[0]
    is_best = score > WORST and rank > before
    # A loss may fall a little for ever, so it does not put off early stopping.
    state.waited = 0 if score > before[0] else state.waited + 1
    if is_best:
        place = {"epoch": state.epoch, "step": state.step}
        state.best = as_best(metric, values, weights, place, images)
    return {
        "score": score,
        "judged": {"metric": by.name, "images": images},
        "better_weights": weights,
        "best": state.best,
        "waited": state.waited,
        "metrics": finite(metrics),
    }, is_best


def best_text(best: Mapping[str, Any]) -> str:
    """Describes the best so far, for people."""
    by = next(metric for metric in METRICS.values() if metric.name == best["metric"])
    return by.form.format(best["value"])


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Returns the finite figures, which JSON can represent."""
    return {name: value for name, value in metrics.items() if np.isfinite(value)}
