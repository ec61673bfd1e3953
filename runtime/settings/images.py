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
    """Returns how images are cut for evaluation and prediction.

    `--evaluation_like` decides the arithmetic. `runtime.settings.evaluation_like` has chosen the
    other settings for it.
    """
    like, arithmetic = config.evaluation_like, "own"
    interpolation: str = config.interpolation
    if like:
        # NVIDIA's program for EfficientNets leaves everything to TensorFlow.
        theirs = like == "documents" and config.eval_crop == "crop"
        arithmetic = "tensorflow" if theirs else "pillow"
    if like == "keras":
        interpolation = "nearest"  # the default of keras.utils.load_img
    elif interpolation == "random":
        interpolation = "bicubic"
    return EvalCrop(
        padding=config.crop_padding,
        method=config.eval_crop,
        interpolation=interpolation,
        exif_orientation=config.exif_orientation or "ignore",
        arithmetic=arithmetic,
        rounded=arithmetic != "tensorflow",
    )


def likeness(config: Config, size: int) -> str:
    """Returns the end of a line about an evaluation: how `--evaluation_like` makes its squares.

    Args:
        config: the flags.
        size: side of the squares in pixels.
    """
    if config.evaluation_like is None:
        return ""
    crop = eval_crop(config)
    side = size + crop.padding
    how = {
        "crop": f"the centre's {size}/{side} resized",
        "resize": f"the short side resized to {side}",
        "squash": f"both sides resized to {side}",
    }[crop.method]
    return f", like {config.evaluation_like}: {how}, {crop.interpolation}"
