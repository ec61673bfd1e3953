"""Augmentation's operations, with fixed strengths."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.agreement.case import Case, Program, ask
from benchmarks.agreement.pictures import dali, photograph

Image = Any
Operation = Callable[[Any], Any]


def cases(installed: dict[str, bool]) -> list[Case]:
    """Returns what each operation makes of a photograph of 240 × 320."""
    photo = np.ascontiguousarray(photograph()[100:340, 200:520])
    asked: dict[str, dict[str, Program]] = {}

    def add(program: str, operations: dict[str, Operation], given: Any, back: Operation) -> None:
        for what, operation in operations.items():
            asked.setdefault(what, {})[program] = partial(lambda o: back(o(given)), operation)

    from PIL import Image

    add("Pillow", _pillow(), Image.fromarray(photo), np.asarray)
    import tensorflow as tf

    add("Convoy", _convoy(), tf.constant(photo), np.asarray)
    add("TensorFlow", _tensorflow(), tf.constant(photo), lambda x: np.asarray(tf.cast(x, tf.uint8)))
    if installed["timm"]:
        import torch

        tensor = torch.from_numpy(photo).permute(2, 0, 1)
        add("torchvision, tensor", _torchvision(), tensor, lambda x: x.permute(1, 2, 0).numpy())
    if installed["dali"]:
        add("DALI", _dali(), photo, lambda x: x)
    return [ask(what, programs) for what, programs in asked.items() if len(programs) > 2]


def _pillow() -> dict[str, Operation]:
    from PIL import Image, ImageEnhance, ImageOps

    return {
        "posterize to 4 bits": lambda x: ImageOps.posterize(x, 4),
        "solarize at 128": lambda x: ImageOps.solarize(x, 128),
        "equalize": ImageOps.equalize,
        "autocontrast": ImageOps.autocontrast,
        "invert": ImageOps.invert,
        "brightness × 1.5": lambda x: ImageEnhance.Brightness(x).enhance(1.5),
        "contrast × 1.5": lambda x: ImageEnhance.Contrast(x).enhance(1.5),
        "saturation × 1.5": lambda x: ImageEnhance.Color(x).enhance(1.5),
        "sharpness × 1.5": lambda x: ImageEnhance.Sharpness(x).enhance(1.5),
        "rotate by 30°, nearest, black": lambda x: x.rotate(30, Image.Resampling.NEAREST),
    }


def _convoy() -> dict[str, Operation]:
    from convoy.dataloader.augment import operations as ours

    return {
        "posterize to 4 bits": lambda x: ours.posterize(x, 4),
        "solarize at 128": lambda x: ours.solarize(x, 128),
        "equalize": ours.equalize,
        "autocontrast": ours.auto_contrast,
        "invert": ours.invert,
        "brightness × 1.5": lambda x: ours.brightness(x, 1.5),
        "contrast × 1.5": lambda x: ours.contrast(x, 1.5),
        "saturation × 1.5": lambda x: ours.color(x, 1.5),
        "sharpness × 1.5": lambda x: ours.sharpness(x, 1.5),
        "hue, a tenth of a turn": lambda x: ours.hue(x, 0.1),
    }


def _tensorflow() -> dict[str, Operation]:
    import tensorflow as tf

    return {
        "contrast × 1.5": lambda x: tf.image.adjust_contrast(x, 1.5),
        "saturation × 1.5": lambda x: tf.image.adjust_saturation(x, 1.5),
        "hue, a tenth of a turn": lambda x: tf.image.adjust_hue(x, 0.1),
    }


def _torchvision() -> dict[str, Operation]:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as f

    return {
        "posterize to 4 bits": lambda x: f.posterize(x, 4),
        "solarize at 128": lambda x: f.solarize(x, 128),
        "equalize": f.equalize,
        "autocontrast": f.autocontrast,
        "invert": f.invert,
        "brightness × 1.5": lambda x: f.adjust_brightness(x, 1.5),
        "contrast × 1.5": lambda x: f.adjust_contrast(x, 1.5),
        "saturation × 1.5": lambda x: f.adjust_saturation(x, 1.5),
        "sharpness × 1.5": lambda x: f.adjust_sharpness(x, 1.5),
        "hue, a tenth of a turn": lambda x: f.adjust_hue(x, 0.1),
        "rotate by 30°, nearest, black": lambda x: f.rotate(x, 30, InterpolationMode.NEAREST),
    }


def _dali() -> dict[str, Operation]:
    from nvidia.dali import fn, types

    def run(operation: Operation) -> Operation:
        return lambda x: dali(operation, x)

    return {
        "equalize": run(fn.equalize),
        "brightness × 1.5": run(lambda x: fn.brightness(x, brightness=1.5)),
        "contrast × 1.5": run(lambda x: fn.contrast(x, contrast=1.5)),
        "saturation × 1.5": run(lambda x: fn.saturation(x, saturation=1.5)),
        "hue, a tenth of a turn": run(lambda x: fn.hue(x, hue=36.0)),
        "rotate by 30°, nearest, black": run(
            lambda x: fn.rotate(
                x, angle=30.0, interp_type=types.INTERP_NN, fill_value=0.0, keep_size=True
            )
        ),
    }
