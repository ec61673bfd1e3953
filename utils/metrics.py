"""Computes figures about a run: percentiles, throughput, and means that merge over ranks.

NumPy only; `batch_sums`, which runs in the graph, imports TensorFlow when it is called.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

METRICS = ("loss", "top1", "top5")
"""Names of the means, in the order of the sums; the sum of the weights follows them."""


def percentiles(
    values: Iterable[float], qs: Sequence[float] = (50, 90, 95, 99)
) -> dict[float, float]:
    """Returns true percentiles, with linear interpolation as in `numpy.percentile`.

    In contrast, the reference system's "latency_90pct" is the mean of the fastest 90 %, which is
    below the average.

    Args:
        values: numbers of any unit, at least one.
        qs: percentages in [0, 100].

    Returns:
        `{q: value}` in the unit of `values`.

    Raises:
        ValueError: there are no values, or a percentage is out of range.
    """
    array = np.asarray(list(values), np.float64)
    if array.size == 0:
        raise ValueError("Percentiles of nothing: no value was recorded.")
    return {q: float(v) for q, v in zip(qs, np.percentile(array, list(qs)), strict=True)}


class Throughput:
    """Measures images per second and seconds per step, without the first `warmup_steps` steps.

    Args:
        warmup_steps: initial steps to ignore (compilation, queue fill). Shorter runs give NaN.

    Raises:
        ValueError: `warmup_steps` is negative.
    """

    def __init__(self, warmup_steps: int = 0) -> None:
        if warmup_steps < 0:
            raise ValueError(f"warmup_steps must be at least 0, not {warmup_steps}.")
        self.warmup_steps = warmup_steps
        self._seen = 0
        self._images: list[float] = []
        self._data: list[float] = []
        self._compute: list[float] = []

    def add(self, images: float, data_time: float, compute_time: float) -> None:
        """Records one step.

        Args:
            images: examples of this step; over all ranks for a figure about the whole job.
            data_time: seconds spent waiting for the batch.
            compute_time: seconds from the batch's arrival to the end of the step.
        """
        self._seen += 1
        if self._seen > self.warmup_steps:
            self._images.append(float(images))
            self._data.append(float(data_time))
            self._compute.append(float(compute_time))

    def reset(self) -> None:
        """Forgets the measured steps. A finished warm-up is not repeated."""
        self._images.clear()
        self._data.clear()
        self._compute.clear()

    @property
    def compute_times(self) -> np.ndarray:
        """Returns the computation time of each measured step in seconds, float64 `(steps,)`."""
        return np.asarray(self._compute, np.float64)

    @property
    def data_times(self) -> np.ndarray:
        """Returns the data wait before each measured step in seconds, float64 `(steps,)`."""
        return np.asarray(self._data, np.float64)

    def summary(self) -> dict[str, float]:
        """Returns figures over the measured steps.

        Returns:
            `steps` (int); `images` (a count); `total_ips`, all images over all seconds, and
            `compute_ips`, the same over only the compute seconds (images/s); `data_time`,
            `compute_time` and `compute_latency` (mean seconds per step, the last two equal);
            `compute_latency_at50`, `_at90`, `_at95`, `_at99` and `_at100` (true percentiles,
            seconds). NaN if nothing was measured.
        """
        steps = len(self._images)
        images = math.fsum(self._images)
        data, compute = math.fsum(self._data), math.fsum(self._compute)
        figures: dict[str, float] = {
            "steps": steps,
            "images": images,
            "total_ips": _ratio(images, data + compute),
            "compute_ips": _ratio(images, compute),
            "data_time": _ratio(data, steps),
            "compute_time": _ratio(compute, steps),
            "compute_latency": _ratio(compute, steps),
        }
        qs = (50, 90, 95, 99, 100)
        tail = percentiles(self._compute, qs) if steps else dict.fromkeys(qs, math.nan)
        figures.update({f"compute_latency_at{q}": value for q, value in tail.items()})
        return figures


class MeanAccumulator:
    """Weighted means of loss, top-1 and top-5 that merge exactly over batches and ranks.

    Holds only four float64 sums. Merging adds sums and divides once, at the end, so a mean over
    ranks is the mean over all examples, however they are split. The counts are exact up to 2**53;
    the loss is exact up to float64 rounding.
    """

    def __init__(self) -> None:
        self._sums = np.zeros(len(METRICS) + 1, np.float64)

    def update(self, sums: Any) -> None:
        """Adds `[loss_sum, top1_sum, top5_sum, weight_sum]`, as `batch_sums` returns them.

        Raises:
            ValueError: there are not four numbers.
        """
        self._sums += self._checked(sums)

    def as_array(self) -> np.ndarray:
        """Returns a copy of the sums, float64 `(4,)`, for summing over ranks."""
        return self._sums.copy()

    @classmethod
    def from_array(cls, sums: Any) -> MeanAccumulator:
        """Builds an accumulator from the result of `as_array`.

        Raises:
            ValueError: there are not four numbers.
        """
        made = cls()
        made.update(sums)
        return made

    @property
    def weight(self) -> float:
        """Returns the sum of the weights: the number of examples that count."""
        return float(self._sums[-1])

    def result(self) -> dict[str, float]:
        """Returns loss (nats), top1 and top5 (fractions), by name; NaN if no example counts."""
        return {
            name: _ratio(float(total), self.weight)
            for name, total in zip(METRICS, self._sums[:-1], strict=True)
        }

    def _checked(self, sums: Any) -> np.ndarray:
        array = np.asarray(sums, np.float64)
        if array.shape != self._sums.shape:
            raise ValueError(f"Expected {self._sums.size} sums, not an array of {array.shape}.")
        return array


def batch_sums(logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, top: int = 5) -> tf.Tensor:
    """Sums a batch's loss and hits for `MeanAccumulator`. Works inside a `tf.function`.

    The loss is plain cross-entropy in nats, without label smoothing, in float32 per example; the
    sums are taken in float64. An example is correct at k if its class is among the first k when
    classes are sorted by falling logit, with ties sorted by class number, as in `argmax`. So a dead
    network with equal logits scores chance, where `tf.math.in_top_k` would say 100 %. An example
    with a NaN among its logits is wrong. An example of weight 0 contributes nothing, whatever its
    label or loss.

    Args:
        logits: `(B, C)`, any floating dtype.
        labels: int `(B,)`, or soft labels float `(B, C)`, whose largest value marks the true class.
        weights: `(B,)`, 0 for slots that do not count.
        top: k of the second count, at most C; the first count always has k = 1.

    Returns:
        float64 `(4,)`: loss, correct at 1, correct at `top`, weight; each weighted and summed.

    Raises:
        ValueError: `top` is below 1, or the labels have neither one nor two dimensions.
    """
    import tensorflow as tf

    if top < 1:
        raise ValueError(f"top must be at least 1, not {top}.")
    logits = tf.cast(logits, tf.float32)
    weights = tf.cast(weights, tf.float64)
    losses, targets = _losses_and_targets(logits, tf.convert_to_tensor(labels), weights)
    above = _classes_above(logits, targets)
    sound = tf.logical_not(tf.reduce_any(tf.math.is_nan(logits), axis=-1))

    def weighted_sum(values: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.math.multiply_no_nan(tf.cast(values, tf.float64), weights))

    return tf.stack(
        [
            weighted_sum(losses),
            weighted_sum(tf.logical_and(above < 1, sound)),
            weighted_sum(tf.logical_and(above < tf.minimum(top, tf.shape(logits)[-1]), sound)),
            tf.reduce_sum(weights),
        ]
    )


def _losses_and_targets(
    logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns each example's loss, float32 `(B,)`, and its true class, int32 `(B,)`."""
    import tensorflow as tf

    if labels.shape.rank == 2:
        targets = tf.argmax(labels, axis=-1, output_type=tf.int32)
        soft = tf.cast(labels, tf.float32)
        return tf.nn.softmax_cross_entropy_with_logits(soft, logits), targets
    if labels.shape.rank == 1:
        # A slot that does not count may have any label, also one that the loss would reject.
        labels = tf.cast(labels, tf.int32)
        targets = tf.where(weights > 0, labels, tf.zeros_like(labels))
        return tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits), targets
    raise ValueError(f"labels must be (B,) or (B, C), not of shape {labels.shape}.")


def _classes_above(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Returns how many classes come before each example's true class, int32 `(B,)`."""
    import tensorflow as tf

    true_logits = tf.gather(logits, targets, axis=1, batch_dims=1)[:, tf.newaxis]
    earlier = tf.range(tf.shape(logits)[-1])[tf.newaxis] < targets[:, tf.newaxis]
    ahead = tf.logical_or(logits > true_logits, tf.logical_and(logits == true_logits, earlier))
    return tf.reduce_sum(tf.cast(ahead, tf.int32), axis=-1)


def array_sums(
    logits: np.ndarray, labels: np.ndarray, weights: np.ndarray, top: int = 5
) -> np.ndarray:
    """Does as `batch_sums`, without TensorFlow: float64 `(4,)` from arrays and hard labels.

    Args:
        logits: float32 `(B, C)`.
        labels: int `(B,)`.
        weights: `(B,)`, 0 for slots that do not count.
        top: k of the second count, at most C.
    """
    counts = weights > 0
    logits, labels, weights = logits[counts].astype(np.float64), labels[counts], weights[counts]
    with np.errstate(invalid="ignore", over="ignore"):
        largest = logits.max(-1, keepdims=True)
        true = np.take_along_axis(logits, labels[:, None], -1)
        losses = np.log(np.exp(logits - largest).sum(-1)) - (true - largest)[:, 0]
        earlier = np.arange(logits.shape[-1]) < labels[:, None]
        above = ((logits > true) | ((logits == true) & earlier)).sum(-1)
    sound = ~np.isnan(logits).any(-1)
    hits = [sound & (above < k) for k in (1, min(top, logits.shape[-1]))]
    sums = [np.sum(values * weights, dtype=np.float64) for values in (losses, *hits)]
    return np.array([*sums, weights.sum(dtype=np.float64)])


def _ratio(total: float, count: float) -> float:
    return total / count if count else math.nan
