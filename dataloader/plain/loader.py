"""Turns validation images into batches for evaluation, without TensorFlow."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from convoy.dataloader.data_loader import Batch
from convoy.dataloader.errors import DataError, RecordError
from convoy.dataloader.images.by_pillow import BadImage, unread
from convoy.dataloader.images.eval_crop import EvalCrop
from convoy.dataloader.plain.square import eval_square
from convoy.dataloader.sources.source import Source


class PlainLoader:
    """Has what evaluation needs of a `loader.Loader`: every example once, in file order.

    Args:
        source: the examples, with labels in the model's classes.
        num_classes: number of the model's classes.
        image_size: side of an image in pixels.
        batch_size: images in a batch.
        crop: how to cut an image's square.
        threads: how many decode at the same time.
    """

    class_names = list_digest = prepare = None

    def __init__(
        self,
        source: Source,
        num_classes: int,
        *,
        image_size: int,
        batch_size: int,
        crop: EvalCrop,
        threads: int,
    ) -> None:
        self.source, self.num_classes = source, num_classes
        self.image_size, self.batch_size = image_size, batch_size
        self.num_examples = self.epoch_length = source.num_examples
        self.global_batch, self.steps_per_epoch = batch_size, -(-self.num_examples // batch_size)
        self.lenient = False
        self.bad_examples: dict[int, str] = dict(source.damage)
        self.identities: dict[int, dict[str, Any]] = {}
        self._crop, self._threads = crop, threads

    def look_again(self) -> None:
        """Forgets which examples were unreadable: they may have been repaired since."""
        self.bad_examples = dict(self.source.damage)

    def batches(self, epoch: int, offset: int = 0) -> Generator[Batch, None, None]:
        """Yields batches, and decodes the next one in threads while one is in use.

        Yields:
            images uint8 `(B, size, size, 3)`, labels int32 `(B,)`, weights float32 `(B,)`. Weights
            are 0 in slots that pad the last batch or hold an unreadable example.

        Raises:
            DataError: a label is outside the classes.
        """
        places = range(offset, self.num_examples)
        parts = [places[i : i + self.batch_size] for i in range(0, len(places), self.batch_size)]
        with ThreadPoolExecutor(self._threads) as pool:
            following = pool.map(self._example, parts[0]) if parts else iter(())
            for number, part in enumerate(parts):
                current = following
                if number + 1 < len(parts):
                    following = pool.map(self._example, parts[number + 1])
                yield self._batch(part, list(current))

    def _batch(self, part: range, examples: list[tuple[np.ndarray, int] | str]) -> Batch:
        side = self.image_size
        images = np.zeros((self.batch_size, side, side, 3), np.uint8)
        labels = np.zeros(self.batch_size, np.int32)
        weights = np.zeros(self.batch_size, np.float32)
        for slot, (index, example) in enumerate(zip(part, examples, strict=True)):
            if isinstance(example, str):
                self.bad_examples[index] = example
            else:
                images[slot], labels[slot] = example
                weights[slot] = 1
        return Batch(images, labels, weights)

    def _example(self, index: int) -> tuple[np.ndarray, int] | str:
        """Returns an example's pixels and label, or where it is and why it cannot be read."""
        if index in self.bad_examples:
            return self.bad_examples[index]
        source = self.source
        label, encoded = 0 if source.labels is None else int(source.labels[index]), b""
        try:
            encoded, label = source.parse(source.read(np.array([index]))[0], label)
            pixels = eval_square(encoded, self.image_size, self._crop)
        except RecordError as error:
            return f"{source.describe(index)}: {error}"
        except BadImage as error:
            return f"{source.describe(index)}: {unread(encoded) or error}"
        if not 0 <= label < self.num_classes:
            raise DataError(f"{source.describe(index)}: {source.outside(label, self.num_classes)}")
        return pixels, label
