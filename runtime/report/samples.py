"""Makes pictures for reports: training images as the network sees them, and predictions.

The predictions have Grad-CAM maps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import keras
import numpy as np
import tensorflow as tf

from convoy.dataloader.bad_images.culprits import TF_ERRORS
from convoy.dataloader.errors import RecordError
from convoy.dataloader.images.crops import eval_decode
from convoy.dataloader.training_examples import training_examples
from convoy.runtime.builders.progressive_stages import of_stage, stage_settings
from convoy.runtime.builders.trained_model import Trained, for_classes_of, load_model
from convoy.runtime.data.class_names import class_names
from convoy.runtime.data.open_split import open_split
from convoy.runtime.report.gradcam import grad_cam, overlay
from convoy.runtime.run_folder.which_checkpoint import resolve
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.images import eval_crop, train_image_size


@dataclass
class Augmented:
    """A training image, uint8 `(H, W, 3)`, and its augmentation in words: its class first."""

    pixels: np.ndarray
    lines: list[str]


@dataclass
class Explained:
    """A validation image, the model's prediction, and the parts that support it.

    Attributes:
        pixels, heat: uint8 `(H, W, 3)`, the image and its Grad-CAM overlay.
        label, predicted: class names.
        probability: probability of the predicted class.
    """

    pixels: np.ndarray
    heat: np.ndarray
    label: str
    predicted: str
    right: bool
    probability: float


def augmented(config: Config, count: int, epoch: int) -> list[Augmented]:
    """Returns the first training images of an epoch, counted from 0, at its stage.

    Raises:
        DataError: there are no data, or they are unreadable.
    """
    settings = of_stage(config, stage_settings(config, epoch))
    given = {name: value for name, value in asdict(settings).items() if value is not None}
    given["image_size"] = train_image_size(settings)
    examples, _ = training_examples(config.data_dir, config.dataset, given, count, epoch)
    return [Augmented(np.asarray(e.image), e.lines) for e in examples]


def explained(config: Config, count: int) -> tuple[list[Explained], str]:
    """Returns predictions of a checkpoint for images spread evenly over the validation split.

    Also returns text about the checkpoint and the size of the maps.

    Raises:
        CheckpointError: there is none.
        DataError: there are no data.
    """
    path = resolve(config.model_dir, config.checkpoint)
    with _float32():
        model, saved = load_model(path, config.weights)
        trained = Trained(model, str(path), saved.state.get("class_names"))
        images, labels = _validation(config, count, trained)
        logits, maps = grad_cam(model)(images)
    names = class_names(trained.class_names, logits.shape[-1], config.label_file)
    chosen = logits.argmax(axis=-1)
    probabilities = tf.nn.softmax(logits).numpy().max(axis=-1)
    parts = zip(images, overlay(images, maps), labels, chosen, probabilities, strict=True)
    found = [
        Explained(image, heat, names[label], names[predicted], label == predicted, float(p))
        for image, heat, label, predicted, p in parts
    ]
    height, width = maps.shape[1:]
    used = saved.state["weights_used"]
    return found, f"{path.name} ({used} weights); its maps of {height} × {width} are enlarged"


def _validation(config: Config, count: int, trained: Trained) -> tuple[np.ndarray, np.ndarray]:
    """Returns readable images uint8 `(B, size, size, 3)`, and labels int64 `(B,)`.

    Labels are the model's numbers.
    """
    size, crop = trained.model.input_shape[1], eval_crop(config).in_bytes()
    source = open_split(config, "validation")
    source = for_classes_of(trained, config)(source)
    count = min(count, source.num_examples)
    images, labels = [], []
    for index in np.linspace(0, source.num_examples - 1, count).round().astype(np.int64):
        try:
            (raw,) = source.read(index[None])
            label = 0 if source.labels is None else int(source.labels[index])
            encoded, label = source.parse(raw, label)
            images.append(eval_decode(tf.constant(encoded), size, crop).numpy())
        except (RecordError, OSError, *TF_ERRORS):
            continue
        labels.append(label)
    return np.stack(images), np.array(labels, np.int64)


@contextmanager
def _float32() -> Iterator[None]:
    """Makes models built here compute in float32, whatever training did."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
