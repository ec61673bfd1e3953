"""Chooses the images for comparing an export with the Keras model, and for calibrating int8."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import tensorflow as tf

from convoy.dataloader.bad_images.culprits import TF_ERRORS
from convoy.dataloader.errors import DataError, RecordError
from convoy.dataloader.images.crops import eval_decode
from convoy.dataloader.images.decoders import decode_image
from convoy.dataloader.images.eval_crop import EvalCrop
from convoy.dataloader.images.file_kinds import HEAD_BYTES, kind_of
from convoy.dataloader.sources.source import Source
from convoy.runtime.builders.trained_model import Trained, for_classes_of
from convoy.runtime.data.open_split import open_split, say_found
from convoy.runtime.export.formats import ENOUGH_IMAGES, FORMATS, INT8, export_formats
from convoy.runtime.predict.find_images import find_images, read_image
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.images import eval_crop
from convoy.utils.errors import ConfigError

BATCH = 32
# Training images whose activations set the int8 ranges; more made no visible difference.
CALIBRATION_IMAGES = 200


@dataclass
class Sample:
    """Images for both the exports and the Keras model.

    Attributes:
        encoded: the files' bytes.
        images: uint8 `(size, size, 3)`, cropped as in evaluation.
        labels: for validation images, their classes in the model's numbers; None for other images,
            on which accuracy is meaningless.
        calibration: training images for int8, in the form of `images`.
        unreadable: number of images left out because they cannot be read.
        logits: the Keras model's for `images`, float32 `(images, classes)`; None: not computed.
    """

    encoded: list[bytes] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)
    labels: list[int | None] = field(default_factory=list)
    calibration: list[np.ndarray] = field(default_factory=list)
    unreadable: int = 0
    logits: np.ndarray | None = None

    @classmethod
    def read(cls, config: Config, trained: Trained) -> Sample:
        """Returns images of `--predict_dir`, or otherwise of the validation split.

        Training images supplement them up to `ENOUGH_IMAGES`. There are none with `--export_samples
        0`.

        Raises:
            ConfigError: there are no images to compare on, or too few for a format.
            DataError: there are no images to calibrate int8 with.
        """
        size, crop, sample = trained.model.input_shape[1], eval_crop(config).in_bytes(), cls()
        # Each split is opened, and told of, only once.
        opened = cache(lambda split: open_split(config, split, say_found))
        for content, label, needed in _candidates(config, trained, opened):
            if len(sample.images) >= needed:
                break
            if (decoded := _decoded(content, size, crop)) is None:
                sample.unreadable += 1  # prediction and evaluation name them; here are others
                continue
            encoded, image = decoded
            sample.encoded.append(encoded)
            sample.images.append(image)
            sample.labels.append(label)
        if config.export_samples and not sample.images:
            where = config.predict_dir or f"--data_dir {config.data_dir}"
            raise ConfigError(
                f"an export is compared with the Keras model on images, and {where} has none that"
                " can be read: name a folder of images with --predict_dir, or do without the"
                " comparison with --export_samples 0"
            )
        for name in export_formats(config.export_format):
            sample._check_number(name, config)
        if set(INT8) & set(export_formats(config.export_format)):
            sample._read_calibration(opened("train"), size, crop)
            if not sample.calibration:
                raise DataError(
                    "int8 needs training images for its ranges, and none of those in --data_dir"
                    f" {config.data_dir} can be read"
                )
        return sample

    def _check_number(self, name: str, config: Config) -> None:
        """Raises ConfigError if one image that differs would already be too much for a format."""
        rules, count = FORMATS[name], len(self.images)
        if count < rules.fewest_images:
            where = config.predict_dir or f"--data_dir {config.data_dir}"
            raise ConfigError(
                f"--export_format {name} must give the same class for {rules.agreement:.0%} of the"
                f" images, which takes at least {rules.fewest_images} of them to judge, and there"
                f" are {count} in {where} (with --export_samples {config.export_samples}): name a"
                " folder of more with --predict_dir"
            )

    def _read_calibration(self, source: Source, size: int, crop: EvalCrop) -> None:
        for encoded, _ in _spread(source, CALIBRATION_IMAGES):
            with suppress(*TF_ERRORS):
                self.calibration.append(eval_decode(tf.constant(encoded), size, crop).numpy())

    def batches(self) -> Iterator[tuple[np.ndarray, list[bytes]]]:
        """Yields pixels and their encoded bytes; the last batch is shorter."""
        for start in range(0, len(self.images), BATCH):
            part = slice(start, start + BATCH)
            yield np.stack(self.images[part]), self.encoded[part]

    def accuracy(self, logits: np.ndarray) -> float | None:
        """Returns top-1 on the validation images, as a fraction; None if there are none."""
        pairs = [
            (a, b) for a, b in zip(np.argmax(logits, -1), self.labels, strict=True) if b is not None
        ]
        return float(np.mean([a == b for a, b in pairs])) if pairs else None

    def lost(self, wanted: np.ndarray, logits: np.ndarray) -> float | None:
        """Returns how far top-1 is below that of the `wanted` logits; None without labels."""
        before, after = self.accuracy(wanted), self.accuracy(logits)
        return None if before is None or after is None else before - after

    def describe(self) -> str:
        """Describes the images of the comparison, for the user."""
        count = len(self.images)
        if not count:
            return "not compared with the Keras model (--export_samples 0)"
        text = f"compared on {count} image{'s' if count > 1 else ''}"
        if count < ENOUGH_IMAGES:
            text += f", which says little: one that differed would be {1 / count:.1%} of them"
        if self.unreadable:
            text += f"; left out: {self.unreadable} that cannot be read"
        return text


def _decoded(content: bytes | Path, size: int, crop: EvalCrop) -> tuple[bytes, np.ndarray] | None:
    """Returns an image as exports take it, and its pixels; None if it cannot be read."""
    if isinstance(content, Path):
        try:
            content = read_image(content)
        except (OSError, ValueError):
            return None
    try:
        encoded = _for_tensorflow(content, crop)
        return encoded, eval_decode(tf.constant(encoded), size, crop).numpy()
    except TF_ERRORS:
        return None


def _for_tensorflow(encoded: bytes, crop: EvalCrop) -> bytes:
    """Returns an image that exports can decode.

    If Pillow decodes it here, the result is a PNG of the same pixels.
    """
    if kind_of(encoded[:HEAD_BYTES]) in (None, "JPEG", "PNG"):
        return encoded
    return tf.io.encode_png(decode_image(tf.constant(encoded), crop.turn)).numpy()


def _candidates(
    config: Config, trained: Trained, opened: Callable[[str], Source]
) -> Iterator[tuple[bytes | Path, int | None, int]]:
    """Yields images, encoded or as files, classes of validation images, and the number wanted."""
    if not config.export_samples:
        return
    if config.predict_dir:
        for file in find_images(config.predict_dir):
            yield file, None, config.export_samples
        return
    problem = None
    try:
        source, labelled = _matched(opened("validation"), config, trained)
        for encoded, label in _spread(source, config.export_samples):
            yield encoded, label if labelled else None, config.export_samples
    except DataError as error:
        problem = error
    try:  # training images only if these are not enough
        enough = min(ENOUGH_IMAGES, config.export_samples)
        for encoded, _ in _spread(opened("train"), 2 * enough):
            yield encoded, None, enough
    except DataError as error:
        if problem:
            raise ConfigError(
                f"{problem} An export is compared with the Keras model on images: name others with"
                " --predict_dir, or do without the comparison with --export_samples 0."
            ) from error


def _matched(source: Source, config: Config, trained: Trained) -> tuple[Source, bool]:
    """Gives the source the model's class numbers; a line says so if it has other classes.

    Returns:
        The source, and whether its classes are the model's.
    """
    try:
        return for_classes_of(trained, config)(source), True
    except DataError as error:
        print(f"no accuracy of the exports: {error}", flush=True)
        return source, False


def _spread(source: Source, count: int) -> Iterator[tuple[bytes, int]]:
    """Yields readable examples out of `count` that are spread evenly over a split."""
    places = np.linspace(0, source.num_examples - 1, min(count, source.num_examples))
    for index in np.unique(places.round().astype(np.int64)):
        label = 0 if source.labels is None else source.labels[index]
        try:
            encoded, label = source.parse(source.read(np.array([index]))[0], label)
        except RecordError:
            continue
        yield encoded, int(label)
