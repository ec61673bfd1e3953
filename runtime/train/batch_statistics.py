"""Tests whether batch norm's running statistics fit the weights.

It scores some evaluation images with them, and with the statistics of the images' own batch.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from convoy.dataloader.data_loader import DataLoader
from convoy.dataloader.errors import DataError
from convoy.model.sync_batch_norm import SyncBatchNorm
from convoy.runtime.train.step import batch_norm_statistics, seed_generators
from convoy.utils.distributed import ranks
from convoy.utils.machine import xla
from convoy.utils.watchdog import watchdog

_IMAGES, _BATCHES, _LEAST = 512, 8, 16


class StatisticsComparison:
    """Compares top-1 with the running statistics and with those of batches.

    A run makes one and calls it several times: the model is traced only in the first call.

    Args:
        model: the model in training.
        data: the validation loader.
        use_xla: compile the steps.
    """

    def __init__(self, model: keras.Model, data: DataLoader, use_xla: bool) -> None:
        self._data = data
        self._state = [*batch_norm_statistics(model), *seed_generators(model)]
        synced = any(isinstance(layer, SyncBatchNorm) for layer in model.layers)

        def right(training: bool) -> Callable[..., tf.Tensor]:
            def count(images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
                answers = tf.argmax(model(images, training=training), axis=-1, output_type=tf.int32)
                return tf.reduce_sum(weights * tf.cast(answers == labels, tf.float32))

            return xla.function(count, use_xla and not (synced and training))

        self._right = [right(training=False), right(training=True)]

    def __call__(self) -> tuple[float, float, int] | None:
        """Compares the two, and changes nothing. All ranks must call it.

        Call it just after an evaluation that could read its images. The second figure includes
        dropout, as in training, which tends to lower it.

        Returns:
            The two figures as fractions, and the number of images over all ranks, the same on every
                rank; None if there are too few.
        """
        watchdog.rest("comparing batch norm's statistics")
        batches = _mixed_batches(self._data)
        before = [v.numpy() for v in self._state]
        try:
            counts = [
                sum(float(right(*map(tf.constant, batch))) for batch in batches)
                for right in self._right
            ]
        finally:
            for variable, value in zip(self._state, before, strict=True):
                variable.assign(value)
        images = sum(float(weights.sum()) for _, _, weights in batches)
        *counts, images = ranks.all_sum(np.array([*counts, images], np.float64)).tolist()
        return None if images < _LEAST else (counts[0] / images, counts[1] / images, int(images))


def _mixed_batches(data: DataLoader) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Returns whole batches of this rank's images from all over the split, mixed.

    A validation split is often sorted by class, and the statistics of one class differ from those
    of training. All ranks return the same number; padding in the last batch has weight 0.
    """
    size, steps = data.batch_size, data.steps_per_epoch
    count = min(steps, _BATCHES, max(2, _IMAGES // size))
    # Neighbours come from one pipeline: to make one takes longer than to read a small split.
    length = count if count == steps else 1
    parts = []
    for start in np.linspace(0, steps - 1, count).astype(int).tolist()[::length]:
        parts += _batches_from(data, start, length)
    images, labels, weights = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    real = np.random.default_rng(0).permutation(np.flatnonzero(weights > 0))
    order = np.resize(real if real.size else np.arange(size), len(weights))
    weights = np.where(np.arange(len(order)) < real.size, np.float32(1), np.float32(0))
    images, labels = images[order], labels[order]
    return [
        (images[i : i + size], labels[i : i + size], weights[i : i + size])
        for i in range(0, len(order), size)
    ]


def _batches_from(data: DataLoader, start: int, count: int) -> list[list[np.ndarray]]:
    """Returns some batches of an evaluation in a row; unreadable ones are empty, with weights 0."""
    size, side = data.batch_size, data.image_size
    batches = data.batches(0, start * data.global_batch)
    parts: list[list[np.ndarray]] = []
    try:
        parts.extend([x.numpy() for x in next(batches)] for _ in range(count))
    except DataError:  # an evaluation will report it; the other ranks must not wait
        images = np.zeros((size, side, side, 3), np.uint8)
        blank: list[np.ndarray] = [images, np.zeros(size, np.int32), np.zeros(size, np.float32)]
        parts += [blank] * (count - len(parts))
    finally:
        batches.close()
    return parts
