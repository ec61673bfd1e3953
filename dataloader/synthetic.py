"""Provides random images for benchmarks: one batch, made once, that stays on the device."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import tensorflow as tf

from convoy.dataloader.data_loader import Batch


class SyntheticLoader:
    """Has the interface of `dataloader.loader.Loader`, but reads no files.

    Args:
        image_size: image side in pixels.
        batch_size: images per rank and batch.
        num_classes: labels are drawn from `[0, num_classes)`.
        steps_per_epoch: batches in an epoch.
        seed, rank, world: as for a real loader.
    """

    class_names = list_digest = prepare = source = None

    def __init__(
        self,
        *,
        image_size: int,
        batch_size: int,
        num_classes: int,
        steps_per_epoch: int,
        seed: int,
        rank: int,
        world: int,
    ) -> None:
        self.num_classes, self.steps_per_epoch = num_classes, steps_per_epoch
        self.global_batch = batch_size * world
        self.num_examples = self.global_batch * steps_per_epoch
        self.epoch_length = self.num_examples
        self.image_size, self.batch_size = image_size, batch_size
        self.lenient, self.bad_examples = False, dict[int, str]()
        self.identities: dict[int, dict[str, Any]] = {}
        images = tf.random.stateless_uniform(
            (batch_size, image_size, image_size, 3), (seed, 2 * rank), 0, 256, tf.int32
        )
        labels = tf.random.stateless_uniform(
            (batch_size,), (seed, 2 * rank + 1), 0, num_classes, tf.int32
        )
        weights = tf.ones((batch_size,), tf.float32)
        self._batch = Batch(tf.cast(images, tf.uint8), labels, weights)

    def look_again(self) -> None:
        """Does nothing: every image is readable."""

    def batches(self, epoch: int, offset: int = 0) -> Generator[Batch, None, None]:
        """Yields the batch once for each remaining step of the epoch.

        It is uint8 `(B,H,W,3)`, int32 `(B,)`, float32 `(B,)`.
        """
        for _ in range(self.steps_per_epoch - offset // self.global_batch):
            yield self._batch
