"""Decodes, crops, resizes and flips batches with NVIDIA DALI, on the CPU or on a GPU.

Order, reading, random decisions, augmentation, mixing and the handling of bad examples come from
`dataloader.loader`. DALI is one stage in the middle of the same tf.data pipeline: it receives
encoded images and instructions for each, and returns a batch of uint8 squares. This stage draws no
random numbers and keeps no state between batches, so we can ask for any batch of any epoch.
"""

from __future__ import annotations

import logging
import os
import queue
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf
from nvidia.dali import Pipeline, fn, types

from convoy.dataloader import philox
from convoy.dataloader.bad_images.culprits import TF_ERRORS
from convoy.dataloader.bad_images.explain import first_words
from convoy.dataloader.errors import DataError
from convoy.dataloader.images.crops import (
    RANDOM,
    UNIFORMS,
    crop_window,
    eval_decode,
    eval_frame,
    eval_window,
    first_interpolation,
    flips,
)
from convoy.dataloader.images.decoders import ACCURATE, as_rgb
from convoy.dataloader.images.orientation import orientation, upright
from convoy.dataloader.images.resizing import is_large
from convoy.dataloader.loader import CROP, Loader, as_it_is
from convoy.dataloader.options import InputOptions
from convoy.dataloader.sources.source import Source

logger = logging.getLogger("convoy.data")

_INTERPOLATIONS = {"bilinear": types.INTERP_LINEAR, "bicubic": types.INTERP_CUBIC}
# Two, so that one batch is copied in or out while the other is decoded.
_PIPELINES = 2


class DaliLoader(Loader):
    """A `Loader` whose pixels come from DALI.

    Crop windows and flips are exactly those of `Loader`. Pixels differ by rounding, and at the
    edges of a crop, where DALI interpolates from other neighbours.

    Args:
        device: "cpu" or "gpu": where JPEGs are decoded and images resized.
        device_id: the GPU's index among those that this process sees.
        processes: number of processes that share this host's cores. It sets the number of threads
            for tf.data and for each DALI pipeline if `options.num_workers` does not.

    Raises:
        DataError: as in `Loader`; or DALI implements the requested interpolation differently.
    """

    def __init__(
        self,
        source: Source,
        options: InputOptions,
        *,
        training: bool,
        rank: int = 0,
        world: int = 1,
        device: str = "cpu",
        device_id: int = 0,
        processes: int = 1,
    ):
        # tf.data always gets its own threads: waiting for DALI must not block the model's threads.
        cores = max(1, len(os.sched_getaffinity(0)) // processes)
        options = replace(options, num_workers=options.num_workers or cores)
        super().__init__(source, options, training=training, rank=rank, world=world)
        crop = options.eval_crop
        # True: resize whole images, then cut.
        self._frames = not training and crop.method != "crop"
        self._turn = options.turn if training else crop.turn
        self._interpolation = options.interpolation if training else crop.interpolation
        if self._interpolation not in (*_INTERPOLATIONS, RANDOM):
            raise DataError(
                f"DALI input knows the interpolations {' and '.join(_INTERPOLATIONS)}, not"
                f" {self._interpolation}: use --data_backend tfdata"
            )
        # Inputs of DALI for one image: name -> type and dimensions. They are the encoded bytes; the
        # part to decode, as (y, x) and (height, width); whether to flip, and the interpolation; the
        # size to resize a whole image to, and where the square begins in it.
        self._inputs = {"encoded": (types.UINT8, 1)}
        self._inputs |= dict.fromkeys(("begin", "extent"), (types.INT32, 1))
        if training and options.hflip:
            self._inputs["flip"] = (types.INT32, 0)
        if self._interpolation == RANDOM:
            self._inputs["kind"] = (types.INT32, 0)
        if self._frames:
            self._inputs |= dict.fromkeys(("resized", "origin"), (types.INT32, 1))
        self._device, self._device_id = device, device_id
        self._pipelines: queue.SimpleQueue[Pipeline] = queue.SimpleQueue()
        self._refused: set[int] = set()  # examples that TensorFlow decodes and DALI rejects
        self._plan_fn = tf.function(self._plan, autograph=False)

    def _decoded_batches(self, dataset: tf.data.Dataset, parallel: int) -> tf.data.Dataset:
        size = self.options.image_size

        @as_it_is
        def plan(
            encoded: tf.Tensor, label: tf.Tensor, seeds: tf.Tensor, weight: tf.Tensor
        ) -> tuple[Any, ...]:
            draws = self._draw_fn(seeds)
            return self._plan_fn(encoded, seeds), label, seeds, (weight, draws)

        @as_it_is
        def decode(
            plans: tuple[tf.Tensor, ...], labels: tf.Tensor, seeds: tf.Tensor, others: Any
        ) -> tuple[Any, ...]:
            images = tf.numpy_function(self._run, plans, tf.uint8)
            images.set_shape([self.options.batch_size, size, size, 3])
            return images, labels, seeds, others

        @as_it_is
        def augment(
            image: tf.Tensor, label: tf.Tensor, seeds: tf.Tensor, others: Any
        ) -> tuple[Any, ...]:
            return self._augment(image, seeds), label, seeds, others

        def batch(dataset: tf.data.Dataset) -> tf.data.Dataset:
            return dataset.batch(self.options.batch_size, drop_remainder=True)

        dataset = batch(dataset.map(plan, num_parallel_calls=parallel, deterministic=True))
        dataset = dataset.map(decode, num_parallel_calls=_PIPELINES, deterministic=True)
        if self.augmenter is not None:
            dataset = dataset.unbatch()
            dataset = dataset.map(augment, num_parallel_calls=parallel, deterministic=True)
            dataset = batch(dataset)
        join = as_it_is(lambda images, labels, seeds, others: (images, labels, *others))
        return dataset.map(join)

    def _plan(self, encoded: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Returns DALI's inputs for an image, in the order of `self._inputs`."""
        options, size = self.options, self.options.image_size
        encoded, shape = as_rgb(encoded, self._turn)
        if self.training:
            uniforms = philox.uniforms([UNIFORMS], seeds[CROP])
            window = crop_window(shape, uniforms, options.crop_area, options.crop_ratio)
        elif self._frames:
            encoded, shape, frame, origin = self._frame(encoded, shape)
            window = tf.concat([[0, 0], shape], 0)
        else:
            window = eval_window(shape, size, options.eval_crop)
        given = {"encoded": encoded, "begin": window[:2], "extent": window[2:]}
        if "flip" in self._inputs:
            given["flip"] = tf.cast(flips(uniforms, options.hflip), tf.int32)
        if "kind" in self._inputs:
            bilinear, bicubic = (int(kind) for kind in _INTERPOLATIONS.values())
            given["kind"] = tf.where(first_interpolation(uniforms), bilinear, bicubic)
        if self._frames:
            given["resized"], given["origin"] = frame, origin
        return tuple(given[name] for name in self._inputs)

    def _frame(self, encoded: tf.Tensor, shape: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Returns an image, its shape, the frame for DALI to resize it to, and the square's start.

        DALI makes whole frames. A very thin picture would need too large a frame: for these
        TensorFlow makes the square, and DALI receives that.
        """
        size, crop = self.options.image_size, self.options.eval_crop
        frame, origin = eval_frame(shape, size, crop)

        def as_it_is() -> tuple[tf.Tensor, ...]:
            return encoded, shape, tf.cast(frame, tf.int32), tf.cast(origin, tf.int32)

        def cut() -> tuple[tf.Tensor, ...]:
            square = tf.io.encode_png(eval_decode(encoded, size, crop), compression=0)
            return square, tf.constant([size, size]), tf.constant([size, size]), tf.constant([0, 0])

        return tf.cond(is_large(frame, size), cut, as_it_is)

    def _run(self, *inputs: np.ndarray) -> np.ndarray:
        """Decodes a batch of stacked `self._inputs`. Returns uint8 `(B, size, size, 3)`."""
        try:
            pipeline = self._pipelines.get_nowait()
        except queue.Empty:
            pipeline = self._build()
        for name, values in zip(self._inputs, inputs, strict=True):
            encoded = name == "encoded"
            pipeline.feed_input(
                name, [np.frombuffer(image, np.uint8) for image in values] if encoded else values
            )
        # A pipeline is unusable after an error: do not put it back.
        (images,) = pipeline.run()
        self._pipelines.put(pipeline)
        # The array holds DALI's memory; the next run allocates its own.
        return np.asarray(images.as_cpu().as_tensor())

    def _build(self) -> Pipeline:
        options, on_gpu = self.options, self._device == "gpu"
        size = [options.image_size, options.image_size]
        pipeline = Pipeline(
            batch_size=options.batch_size,
            num_threads=options.num_workers,
            device_id=self._device_id if on_gpu else None,
            prefetch_queue_depth=1,
        )
        with pipeline:
            given = {
                name: fn.external_source(name=name, dtype=dtype, ndim=ndim)
                for name, (dtype, ndim) in self._inputs.items()
            }
            images = fn.decoders.image_slice(
                given["encoded"],
                start=given["begin"],
                shape=given["extent"],
                axes=[0, 1],
                device="mixed" if on_gpu else "cpu",
                output_type=types.RGB,
                # images with an EXIF turn were decoded and turned earlier
                adjust_orientation=False,
                jpeg_fancy_upsampling=True,
            )
            images = fn.resize(
                images,
                size=fn.cast(given["resized"], dtype=types.FLOAT) if self._frames else size,
                interp_type=fn.cast(given["kind"], dtype=types.INTERP_TYPE)
                if "kind" in given
                else _INTERPOLATIONS[self._interpolation],
                antialias=not self.training and options.eval_crop.antialias,
            )
            if self._frames:
                images = fn.slice(images, start=given["origin"], shape=size, axes=[0, 1])
            if "flip" in given:
                images = fn.flip(images, horizontal=given["flip"])
            pipeline.set_outputs(images)
        pipeline.build()
        return pipeline

    def _read(
        self, epoch: int, offset: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        images, labels, seeds, weights = super()._read(epoch, offset)
        if self._refused:
            indices, _, _ = self._slot_batch(epoch, offset)
            for slot in np.flatnonzero(np.isin(indices, list(self._refused))):
                images[slot] = self._decoded_here(images[slot], seeds[slot])
        return images, labels, seeds, weights

    def _decoded_here(self, encoded: bytes, seeds: np.ndarray) -> bytes:
        """Decodes with TensorFlow a JPEG that DALI rejects. Returns the pixels as a PNG."""
        self._decode(tf.constant(encoded), tf.constant(seeds))
        # Missing parts outside that part become grey, and nobody looks at them.
        image = tf.io.decode_jpeg(
            encoded, channels=3, dct_method=ACCURATE, try_recover_truncated=True
        )
        if self._turn:
            image = upright(image, orientation(encoded))
        return tf.io.encode_png(image, compression=0).numpy()

    def _take_out_culprits(self, epoch: int, offset: int, error: Exception) -> None:
        """As in `Loader`; and lets TensorFlow decode what it can and DALI cannot."""
        try:
            super()._take_out_culprits(epoch, offset, error)
        except TF_ERRORS:
            refused = self._find_refused(epoch, offset)
            if not refused:
                raise DataError(
                    f"DALI failed: {first_words(error)}. --data_backend tfdata does without it."
                ) from error
            for index in refused:
                where = self.source.describe(index)
                logger.info("%s: DALI does not decode it, TensorFlow does", where)
            self._refused.update(refused)

    def _find_refused(self, epoch: int, offset: int) -> list[int]:
        indices, seeds = self.drawn(epoch, offset)
        found = []
        for index, encoded, own_seeds in zip(
            indices.tolist(), self._read(epoch, offset)[0], seeds, strict=True
        ):
            plan = self._plan_fn(tf.constant(encoded), tf.constant(own_seeds))
            try:
                self._run(*(_alone(part) for part in plan))
            except RuntimeError:
                found.append(index)
        return sorted(set(found) - self._refused)


def _alone(part: tf.Tensor) -> np.ndarray:
    """Makes a batch of one. NumPy's own byte strings would lose trailing zeros."""
    value = part.numpy()
    return np.array([value], object if isinstance(value, bytes) else None)
