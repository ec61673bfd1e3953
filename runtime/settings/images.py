"""Says from a `Config` how large images are and how evaluation cuts them. Imports no TensorFlow."""

from __future__ import annotations

from convoy.dataloader.images.eval_crop import EvalCrop
from convoy.model.catalog import get_arch
from convoy.runtime.settings.config import Config


def image_size(config: Config) -> int:
    """Returns the side of the model's images in pixels."""
    return config.image_size or get_arch(config.arch).resolution


def train_image_size(config: Config) -> int:
    """Returns the side of training images in pixels; in progressive training, of the last stage."""
    return config.train_image_size or image_size(config)


def eval_crop(config: Config) -> EvalCrop:
    """Returns how images are cut for evaluation and prediction."""
    return EvalCrop(
        padding=config.crop_padding,
        method=config.eval_crop,
        interpolation="bicubic" if config.interpolation == "random" else config.interpolation,
        exif_orientation=config.exif_orientation or "ignore",
    )
