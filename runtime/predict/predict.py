"""Runs `--mode predict`: labels images, with the preprocessing of evaluation."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from convoy.dataloader.bad_images.culprits import TF_ERRORS
from convoy.dataloader.bad_images.explain import first_words
from convoy.dataloader.images.by_pillow import unread
from convoy.dataloader.images.crops import eval_decode
from convoy.dataloader.images.eval_crop import EvalCrop
from convoy.dataloader.images.file_kinds import Left
from convoy.dataloader.images.resizing import resize
from convoy.runtime.builders.trained_model import trained_model
from convoy.runtime.data.class_names import class_names
from convoy.runtime.predict.find_images import find_images, read_image
from convoy.runtime.predict.open_outputs import open_outputs
from convoy.runtime.predict.outputs import (
    NOT_FINITE,
    Labelled,
    Prediction,
    one_line,
    predict_formats,
)
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.images import eval_crop
from convoy.utils.errors import ConfigError
from convoy.utils.files import naming
from convoy.utils.machine import xla
from convoy.utils.optional import known
from convoy.utils.text import tell

# Side of the gallery's thumbnails in pixels; smaller squares keep their size.
THUMBNAIL = 160
# Seconds between two lines of progress without a terminal for a bar.
SAY_EVERY = 30


def predict(config: Config) -> dict[str, Any]:
    """Labels the images of `--predict_dir`, or answers for `--image` in one line.

    `--predict_formats` says where the labels go.

    An unreadable image gets a row with the reason, and the others are still labelled. Memory does
    not grow with the number of images, except for the list of their names.

    Returns:
        `images` labelled, `failed` images, and the path of each file written, by format.

    Raises:
        ConfigError: there are no images, or the class names do not fit.
        CheckpointError: there is no checkpoint.
    """
    if config.image:
        return _answer(config, Path(config.image))
    refused: dict[Path, str] = {}
    left = Left()
    files = find_images(known(config.predict_dir), refused, left)
    without = f"; left out: {text}" if (text := left.text()) else ""
    if not files:
        raise ConfigError(f"--predict_dir {config.predict_dir} holds no images{without}")
    print(f"{_images(len(files))} in {config.predict_dir}{without}", flush=True)
    trained = trained_model(config)
    print(f"predicting with {trained.text}", flush=True)
    names = class_names(trained.class_names, trained.model.output_shape[-1], config.label_file)
    formats = predict_formats(config.predict_formats)
    labeller = Labeller(trained.model, names, config, thumbnails="gallery" in formats)
    failed = unsure = no_answer = 0
    start = time.perf_counter()
    with ExitStack() as stack:
        outputs = open_outputs(stack, config, labeller.columns, len(files), trained.text)
        progress = stack.enter_context(_Progress(len(files)))
        for item in labeller.label(files, refused):
            for output in outputs:
                with naming(output.path):
                    output.write(item)
            failed += item.error is not None
            no_answer += item.error == NOT_FINITE
            unsure += not item.error and not item.predictions
            progress.advance()
    seconds = time.perf_counter() - start
    written = {output.format: str(output.path) for output in outputs if output.path}
    earlier = " (replacing earlier ones)" if any(o.replaces for o in outputs) else ""
    wrote = f"; wrote {' and '.join(written.values())}{earlier}" if written else ""
    notes = f", {no_answer} without an answer" if no_answer else ""
    notes += f"; {unsure} below --min_confidence {config.min_confidence:g}" if unsure else ""
    labelled = f"{_images(len(files) - failed)} labelled, {failed - no_answer} unreadable{notes}"
    tell(f"{labelled} in {seconds:.1f} s{wrote}", sys.stdout)
    if failed > no_answer:
        unread = failed - no_answer
        tell(f"convoy: {unread} of {len(files)} images could not be read (see their rows)")
    if no_answer:
        tell(f"convoy: {no_answer} of {len(files)} images: {NOT_FINITE}")
    return {"images": len(files) - failed, "failed": failed, **written}


def _images(count: int) -> str:
    return f"{count} image{'s' if count != 1 else ''}"


def _answer(config: Config, image: Path) -> dict[str, Any]:
    """Answers for `--image` in one line."""
    trained = trained_model(config)
    names = class_names(trained.class_names, trained.model.output_shape[-1], config.label_file)
    labeller = Labeller(trained.model, names, config.with_(predict_batch_size=1), once=True)
    (item,) = labeller.label([image])
    print(one_line(item), flush=True)
    return {"images": int(item.error is None), "failed": int(item.error is not None)}


@dataclass
class Image:
    """The model's view of an image, uint8 `(size, size, 3)`, and a small JPEG of it."""

    pixels: np.ndarray
    thumbnail: bytes | None


class Labeller:
    """Labels images with a model after the preprocessing of evaluation.

    Args:
        model: from uint8 images to logits.
        names: one per class.
        config: config for the crop, the batch, and the report on each image.
        thumbnails: add a small JPEG of the model's view to each result.
        once: there is only one image. Tracing functions would cost more than it saves: 2.7 s of
            processor time instead of 0.6 s, for EfficientNet-B0.
    """

    def __init__(
        self,
        model: Any,
        names: list[str],
        config: Config,
        thumbnails: bool = False,
        once: bool = False,
    ) -> None:
        self.names = names
        self.columns = min(config.top_k, len(names))
        self.least = config.min_confidence
        self.batch = config.predict_batch_size
        self.threads = config.num_workers or os.cpu_count()
        self.size, self.crop = model.input_shape[1], eval_crop(config)
        self._decode = decoder(self.size, self.crop, thumbnails, traced=not once)
        compiled = config.data_format == "channels_first" and config.use_xla
        self._forward = _forward(model, config.flip_tta)
        if compiled or not once:
            self._forward = xla.function(self._forward, compiled)

    def label(
        self, files: list[Path], refused: dict[Path, str] | None = None
    ) -> Iterator[Labelled]:
        """Yields a result for each file, in order.

        The next batch is decoded while one is in use.
        """
        refused = refused or {}

        def load(file: Path) -> Image | str:
            if file in refused:
                return refused[file]
            content = b""
            try:
                content = read_image(file)
                return self._decode(content)
            except OSError as error:
                return error.strerror or str(error)
            except TF_ERRORS as error:
                return unread(content) or f"not a readable image ({self._why(content, error)})"
            except ValueError as error:
                return str(error)

        with ThreadPoolExecutor(self.threads) as pool:
            for batch in _read_ahead(pool, load, iter(files), self.batch):
                images = [image.pixels for _, image in batch if isinstance(image, Image)]
                probabilities = iter(self.probabilities(images))
                for file, image in batch:
                    if isinstance(image, str):
                        yield Labelled(str(file), error=image)
                    else:
                        yield self._labelled(str(file), next(probabilities), image.thumbnail)

    def _why(self, content: bytes, error: Exception) -> str:
        """Returns what is wrong with an image: outside a compiled function, errors say more."""
        try:
            eval_decode(tf.constant(content), self.size, self.crop)
        except TF_ERRORS as plain:
            error = plain
        return first_words(error)

    def probabilities(self, images: list[np.ndarray]) -> np.ndarray:
        """Returns float32 `(images, classes)`; NaN for an image with a logit that is not finite.

        It pads a short batch, so that the model is compiled for only one shape.
        """
        if not images:
            return np.zeros((0, len(self.names)), np.float32)
        padding = [np.zeros_like(images[0])] * (self.batch - len(images))
        return self._forward(tf.constant(np.stack(images + padding))).numpy()[: len(images)]

    def _labelled(self, file: str, probabilities: np.ndarray, thumbnail: bytes | None) -> Labelled:
        if not np.isfinite(probabilities).all():
            return Labelled(file, error=NOT_FINITE, thumbnail=thumbnail)
        return Labelled(file, self._best(probabilities), thumbnail=thumbnail)

    def _best(self, probabilities: np.ndarray) -> list[Prediction]:
        order = np.argsort(-probabilities, kind="stable")[: self.columns]
        return [
            Prediction(self.names[i], int(i), float(probabilities[i]))
            for i in order
            if probabilities[i] >= self.least
        ]


def _forward(model: Any, flip: bool) -> Callable[[tf.Tensor], tf.Tensor]:
    """Maps images to probabilities; with `flip`, the mean over an image and its mirror image."""

    def of(images: tf.Tensor) -> tf.Tensor:
        logits = model(images, training=False)
        # softmax makes an ordinary 0 of -inf
        finite = tf.reduce_all(tf.math.is_finite(logits), axis=-1, keepdims=True)
        return tf.where(finite, tf.nn.softmax(logits), np.nan)

    def forward(images: tf.Tensor) -> tf.Tensor:
        probabilities = of(images)
        if flip:
            probabilities = (probabilities + of(tf.reverse(images, [2]))) / 2
        return probabilities

    return forward


def decoder(
    size: int, crop: EvalCrop, thumbnails: bool, traced: bool = True
) -> Callable[[bytes], Image]:
    """Returns a function from encoded bytes to the model's view, and a small JPEG if requested.

    The function raises one of `TF_ERRORS` if the bytes are not an image.
    """

    def decode(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = eval_decode(encoded, size, crop)
        if not thumbnails:
            return image, tf.constant(b"")
        small = resize(image, [THUMBNAIL, THUMBNAIL], "area") if size > THUMBNAIL else image
        return image, tf.io.encode_jpeg(small, quality=80)

    if traced:
        signature = [tf.TensorSpec([], tf.string)]
        decode = tf.function(decode, input_signature=signature, autograph=False)

    def run(content: bytes) -> Image:
        image, thumbnail = decode(tf.constant(content))
        return Image(image.numpy(), thumbnail.numpy() if thumbnails else None)

    return run


def _read_ahead(
    pool: ThreadPoolExecutor, load: Any, files: Iterator[Path], batch: int
) -> Iterator[list[Any]]:
    """Yields batches of (file, image or reason), and decodes the next while one is in use."""

    def submit() -> list[Any]:
        return [(file, pool.submit(load, file)) for file in islice(files, batch)]

    current = submit()
    while current:
        following = submit()
        yield [(file, future.result()) for file, future in current]
        current = following


class _Progress:
    """Draws a bar on a terminal's stderr; elsewhere prints a line now and then."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self._bar: Any = None
        self._start = self._said = time.monotonic()

    def __enter__(self) -> _Progress:
        if sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            columns = (
                progress.BarColumn(bar_width=None),
                progress.MofNCompleteColumn(),
                progress.TextColumn("{task.speed:.0f} images/s"),
                progress.TimeRemainingColumn(),
            )
            self._bar = progress.Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.add_task("", total=self.total)
            self._bar.start()
        return self

    def advance(self) -> None:
        """Counts one more image."""
        self.done += 1
        if self._bar:
            self._bar.advance(0)
        elif time.monotonic() - self._said >= SAY_EVERY:
            self._said = time.monotonic()
            speed = self.done / (self._said - self._start)
            text = f"{self.done} of {self.total} images, {speed:.0f} images/s"
            print(text, file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()
