"""Builds batches from a source: order, reading, decoding, augmentation, mixing, bad examples.

Python reads raw records a batch at a time (`os.pread` releases the GIL); tf.data's threads then
decode them one by one. Everything random is a function of seeds that travel with the examples.
"""

from __future__ import annotations

import functools
import itertools
import logging
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from convoy.dataloader.augment.device_plan import Draws, Planned, Planner
from convoy.dataloader.augment.on_device import make_prepare
from convoy.dataloader.bad_images.culprits import TF_ERRORS, what_is_wrong
from convoy.dataloader.bad_images.replacement import grey_png
from convoy.dataloader.close_at_exit import close_at_exit
from convoy.dataloader.data_loader import Batch
from convoy.dataloader.errors import DataError, check_bad_examples
from convoy.dataloader.images.crops import eval_decode, random_crop_decode
from convoy.dataloader.options import InputOptions
from convoy.dataloader.order.balanced import ClassSampler
from convoy.dataloader.order.sampler import Slots, example_seeds
from convoy.dataloader.sources.find import find_source
from convoy.dataloader.sources.source import Source
from convoy.utils.text import some
from convoy.utils.watchdog import watchdog

as_it_is = tf.autograph.experimental.do_not_convert
"""Turns AutoGraph off, which `Dataset.map` applies to every function and none here needs: see
docs/decisions.
"""

logger = logging.getLogger("convoy.data")

CROP, AUGMENT, MIX = range(3)  # streams of random numbers
MANY = 1000
"""Number of unreadable examples on one rank from which on even a lenient evaluation checks the
limit at once: finding the bad example takes time for each batch that has one.
"""


class Loader:
    """Loads one rank's batches of one split.

    Attributes:
        num_examples: examples in the whole split, over all ranks.
        num_classes: number of classes that labels may take.
        class_names: one name per class, or None.
        global_batch: examples per step over all ranks.
        steps_per_epoch: steps in a whole epoch; the same on every rank.
        augmenter: augments an image after its crop, see `dataloader.augment.augmenter`; or None.
        prepare: what the training step must do to the images of a batch, from
            `dataloader.augment.on_device`; None if the loader does everything itself.
        lenient: for evaluation. True: an unreadable example is noted in `bad_examples` and gets
            weight 0, as in training, and the caller judges them at the end of the pass. False: it
            raises at once.
        bad_examples: example number -> its location and what is wrong with it. A resumed run may
            fill it from a checkpoint, to repeat an interrupted run bit for bit.
        identities: identities of the bad examples (`dataloader.sources.identity`), as far as known.

    Args:
        source: the examples.
        training: shuffle, crop at random, augment and mix; False gives file order and
            `options.eval_crop`, every example once.

    Raises:
        DataError: the number of classes is unknown or smaller than the data's own, or more of the
            data is damaged than `options.max_bad_examples` or `max_bad_eval_examples` allows.
    """

    def __init__(
        self,
        source: Source,
        options: InputOptions,
        *,
        training: bool,
        rank: int = 0,
        world: int = 1,
    ):
        self.source, self.options, self.training = source, options, training
        self.lenient = False
        self.num_examples = source.num_examples
        self.class_names = source.class_names
        self.num_classes = _class_count(source, options)
        self.global_batch = options.batch_size * world
        self._slots = Slots(
            source.num_examples,
            self.global_batch,
            options.steps_per_epoch if training else None,
            options.seed,
            shuffle=training,
            rank=rank,
            world=world,
            block=source.shuffle_block,
            sampler=_sampler(source, options) if training else None,
        )
        self.steps_per_epoch = self._slots.steps_per_epoch
        self.bad_examples: dict[int, str] = dict(source.damage)
        self.identities: dict[int, dict[str, Any]] = {}
        self._check(self.bad_examples)
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(options.read_threads, thread_name_prefix="convoy-read")
        self._placeholder = grey_png()
        self.augmenter = options.make_augmenter() if training else None
        self._mix = options.make_mixer(self.num_classes) if training else None
        self._planner: Planner | None = None
        self.prepare: Callable[[Planned], tf.Tensor] | None = None
        if options.augment_on == "device" and (self.augmenter or self._mix):
            self._planner = Planner(self.augmenter, self._mix, options.image_size)
            self.prepare = make_prepare(self._planner.recipe, self._planner.mixing)
            self.augmenter = self._mix = None
        # Separate functions, so that they are traced once and not again for every epoch's pipeline.
        self._read_fn = tf.function(self._read_graph, autograph=False)
        self._example_fn = tf.function(self._example, autograph=False)
        self._draw_fn = tf.function(self._draw, autograph=False)

    @functools.cached_property
    def list_digest(self) -> str:
        """Returns a hash of the examples and their order."""
        return self.source.list_digest()

    @property
    def image_size(self) -> int:
        """Pixels a side."""
        return self.options.image_size

    @property
    def batch_size(self) -> int:
        """Images per rank and batch."""
        return self.options.batch_size

    @property
    def mixes(self) -> bool:
        """Returns whether images of a batch are mixed with each other."""
        return self._mix is not None

    @property
    def epoch_length(self) -> int:
        """Returns the examples that count in one epoch, over all ranks: the largest `offset`."""
        return self._slots.epoch_length

    def steps_from(self, offset: int) -> int:
        """Returns the number of batches that `batches(epoch, offset)` yields."""
        return self._slots.steps_from(offset)

    def batches(self, epoch: int, offset: int = 0) -> Generator[Batch, None, None]:
        """Yields the batches of an epoch from an offset to its end.

        Args:
            epoch: from 0.
            offset: examples of this epoch already done over all ranks; any number, not only whole
                batches.

        Yields:
            images uint8 `(B, size, size, 3)`, labels int32 `(B,)`, weights float32 `(B,)`. With
            mixing: images float32 in 0-255 and labels float32 `(B, num_classes)`. Weights are 0 in
            slots that pad the last batch or hold an unreadable example. With `prepare`: a
            `device_plan.Planned` in place of the images, from which `prepare` makes them.

        Raises:
            DataError: a label is outside the classes; in evaluation, an example is unreadable.
            TooManyBadExamples: in training, more examples are unreadable than the limit.
        """
        return close_at_exit(self._batches(epoch, offset))

    def epochs(self, first: int = 0) -> Generator[Batch, None, None]:
        """Yields the batches of one epoch after another without end, for Keras' `fit`.

        `fit` takes the end of an epoch from `steps_per_epoch` (or `validation_steps`).
        """
        return close_at_exit(batch for e in itertools.count(first) for batch in self._batches(e, 0))

    def _batches(self, epoch: int, offset: int) -> Generator[Batch, None, None]:
        while offset < self.epoch_length:
            with tf.device("/cpu:0"):
                iterator = iter(self._pipeline(epoch, offset))
            while offset < self.epoch_length:
                try:
                    batch = next(iterator)
                except TF_ERRORS as error:
                    # Counting tells which batch failed, because tf.data's order is deterministic
                    # here; trying each of its records finds the bad ones.
                    del iterator
                    watchdog.rest("looking for an image that cannot be read")
                    self._take_out_culprits(epoch, offset, error)
                    break
                yield batch
                offset += self.global_batch

    def look_again(self) -> None:
        """Forgets which examples were unreadable: they may have been repaired since."""
        self.bad_examples = dict(self.source.damage)

    def drawn(self, epoch: int, offset: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns what decides a batch: int64 `(B,)` example numbers and int32 `(B, 3, 2)` seeds.

        The seeds are for crop and flip, for augmentation, and for mixing.
        """
        indices, data_epochs, _ = self._slot_batch(epoch, offset)
        return indices, self._seeds(data_epochs, indices)

    def _pipeline(self, epoch: int, offset: int) -> tf.data.Dataset:
        parallel = self.options.num_workers or tf.data.AUTOTUNE
        epoch = tf.constant(epoch, tf.int64)
        dataset = tf.data.Dataset.range(offset, self.epoch_length, self.global_batch)
        read = as_it_is(lambda start: self._read_fn(epoch, start))
        dataset = self._decoded_batches(dataset.map(read).prefetch(2).unbatch(), parallel)
        at_once = parallel if self._mix or self._planner else None
        dataset = dataset.map(as_it_is(self._finish), num_parallel_calls=at_once)
        settings = tf.data.Options()
        settings.deterministic = True
        # Rewriting the graph makes nothing faster here, and takes 0.2 s for every epoch's pipeline.
        settings.experimental_optimization.apply_default_optimizations = False
        if self.options.num_workers:
            settings.threading.private_threadpool_size = self.options.num_workers
        return dataset.prefetch(tf.data.AUTOTUNE).with_options(settings)

    def _decoded_batches(self, dataset: tf.data.Dataset, parallel: int) -> tf.data.Dataset:
        """Maps examples to batches. Override this for another decoder.

        Examples are (encoded, label, seeds, weight); batches are (image, label, weight, output of
        `_draw`).
        """

        @as_it_is
        def decode(
            encoded: tf.Tensor, label: tf.Tensor, seeds: tf.Tensor, weight: tf.Tensor
        ) -> tuple[Any, ...]:
            return self._example_fn(encoded, seeds), label, weight, self._draw_fn(seeds)

        dataset = dataset.map(decode, num_parallel_calls=parallel, deterministic=True)
        return dataset.batch(self.options.batch_size, drop_remainder=True)

    def _read_graph(self, epoch: tf.Tensor, offset: tf.Tensor) -> tuple[tf.Tensor, ...]:
        images, labels, seeds, weights = tf.numpy_function(
            self._read, [epoch, offset], (tf.string, tf.int32, tf.int32, tf.float32)
        )
        size = self.options.batch_size
        for tensor, tail in ((images, []), (labels, []), (seeds, [3, 2]), (weights, [])):
            tensor.set_shape([size, *tail])
        return images, labels, seeds, weights

    def _slot_batch(self, epoch: int, offset: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        with self._lock:  # pipelines of two epochs may overlap, and the order has a cache
            return self._slots.batch_at(int(epoch), int(offset))

    def _read(
        self, epoch: int, offset: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Reads one batch: encoded images (B,), labels (B,), seeds (B, 3, 2) and weights (B,)."""
        indices, data_epochs, weights = self._slot_batch(epoch, offset)
        labels: np.ndarray = np.zeros(len(indices), np.int32)
        if self.source.labels is not None:
            labels = self.source.labels[indices]
        good: np.ndarray = np.ones(len(indices), bool)
        if self.bad_examples:
            good = ~np.isin(indices, list(self.bad_examples))
            weights, labels = weights * good, np.where(good, labels, np.int32(0))
        images = np.full(len(indices), self._placeholder, object)
        parts = np.array_split(np.flatnonzero(good), self.options.read_threads)

        def read(part: np.ndarray) -> list[tuple[bytes, int]]:
            contents = zip(self.source.read(indices[part]), labels[part], strict=True)
            return [self.source.parse(content, label) for content, label in contents]

        try:
            reading = self._pool.map(read, parts)
        except RuntimeError as error:
            # When Python ends, nobody waits for this batch. A thread that cannot start is an error.
            raise (StopIteration if "shutdown" in str(error) else error) from None
        for part, examples in zip(parts, reading, strict=True):
            for slot, (image, label) in zip(part, examples, strict=True):
                images[slot], labels[slot] = image, label
        return images, labels, self._seeds(data_epochs, indices), weights

    def _seeds(self, data_epochs: np.ndarray, indices: np.ndarray) -> np.ndarray:
        streams = (CROP, AUGMENT, MIX)
        seed = self.options.seed
        return np.stack([example_seeds(seed, data_epochs, indices, s) for s in streams], axis=1)

    def _decode(self, encoded: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        options = self.options
        if not self.training:
            return eval_decode(encoded, options.image_size, options.eval_crop)
        return random_crop_decode(
            encoded,
            seeds[CROP],
            options.image_size,
            area=options.crop_area,
            ratio=options.crop_ratio,
            interpolation=options.interpolation,
            hflip=options.hflip,
            turn=options.turn,
        )

    def _example(self, encoded: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        return self._augment(self._decode(encoded, seeds), seeds)

    def _augment(self, image: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        if self.augmenter is not None:
            image = self.augmenter(image, seeds[AUGMENT])
            image.set_shape([self.options.image_size, self.options.image_size, 3])
        return image

    def _draw(self, seeds: tf.Tensor) -> Draws | tf.Tensor:
        """Returns what `_finish` needs for an example: its mixing seed, or all its draws."""
        if self._planner is None:
            return seeds[MIX]
        return self._planner.draw(seeds[AUGMENT], seeds[MIX])

    def _finish(
        self, images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, draws: Draws | tf.Tensor
    ) -> Batch:
        # One check per batch, not per example; the culprit is looked up afterwards.
        in_range = tf.reduce_all((labels >= 0) & (labels < self.num_classes))
        with tf.control_dependencies([tf.debugging.Assert(in_range, ["label out of range"])]):
            labels = tf.identity(labels)
        if self._planner is not None:
            plan, labels = self._planner.plan(draws, labels, weights)
            return Batch(Planned(images, plan), labels, weights)
        if self._mix is not None:
            return Batch(*self._mix(images, labels, weights, draws))
        return Batch(images, labels, weights)

    def _take_out_culprits(self, epoch: int, offset: int, error: Exception) -> None:
        """Records the unreadable examples of a failed batch; raises if this is not allowed."""
        indices, seeds = self.drawn(epoch, offset)
        found: dict[int, str] = {}
        for index, example_seeds_ in zip(indices.tolist(), seeds, strict=True):
            if index in self.bad_examples or index in found:
                continue
            decode = functools.partial(self._decode, seeds=tf.constant(example_seeds_))
            reason = what_is_wrong(self.source, index, self.num_classes, decode)
            if reason is not None:
                found[index] = f"{self.source.describe(index)}: {reason}"
        if not found:
            raise error
        if self.training:
            for message in found.values():
                logger.warning("unreadable example (kept with weight 0): %s", message)
        self.bad_examples.update(found)
        if self.lenient and len(self.bad_examples) < MANY:
            return
        try:
            self._check(self.bad_examples)
        except DataError as refusal:
            raise refusal from error

    def _check(self, bad: dict[int, str]) -> None:
        options = self.options
        limit = options.max_bad_examples if self.training else options.max_bad_eval_examples
        check_bad_examples(bad, self.num_examples, limit, training=self.training)


def build_dataset(
    data_dir: str | None,
    split: str,
    options: InputOptions,
    *,
    training: bool,
    rank: int = 0,
    world: int = 1,
    source: Source | None = None,
) -> Loader:
    """Opens a split of `data_dir` ("train", "validation" or "val"), or `source`, for one rank."""
    source = find_source(data_dir, split) if source is None else source
    return Loader(source, options, training=training, rank=rank, world=world)


def _sampler(source: Source, options: InputOptions) -> ClassSampler | None:
    if options.sampling == "natural":
        return None
    return ClassSampler(source.all_labels(), options.sampling, options.seed)


def _class_count(source: Source, options: InputOptions) -> int:
    own, wanted = source.num_classes, options.num_classes
    if wanted is None:
        if own is not None:
            return own
        raise DataError(
            "The data does not say how many classes it has: set --num_classes, or put a labels.txt "
            "with one class name per line into --data_dir."
        )
    if own is not None and wanted < own:
        names = f" ({some(source.class_names)})" if source.class_names else ""
        raise DataError(
            f"--num_classes {wanted} is less than the {own} classes of the data{names}: leave the"
            " flag out, or use data with fewer classes."
        )
    return wanted
