"""Computes settings that fit the data, for flags that the user left open.

It uses what is known before the first step.

docs/defaults.md has the rules as a table, and the measurements behind them.

The documents' settings are for ImageNet: a million images, thousands of updates per epoch. On a few
hundred photographs they end at chance: batch norm's statistics are still near the random start, the
warm-up is longer than the run, and the rate is for another batch. Above `FEW_IMAGES` they do not
change. This module only computes; it reads nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CHOSEN = (
    *("image_size", "crop_padding", "train_batch_size", "eval_batch_size", "max_epochs"),
    *("optimizer", "epsilon", "lr_init", "lr_base_batch", "lr_decay", "weight_decay"),
    *("weight_decay_style", "warmup_epochs", "bn_momentum", "moving_average_decay"),
    *("augmenter_name", "crop_area_min", "hflip", "label_smoothing", "weight_init"),
    *("stochastic_depth", "log_steps"),
)
"""All flags that may be chosen."""
FEW_IMAGES = 50_000
"""From this number of training images on, the documents' settings apply."""
STEPS_PER_EPOCH = 20
"""Minimum number of updates per epoch, unless batches would be smaller than `BATCH`."""
BATCH = (8, 64)
"""The smallest batch over all processes, for batch norm; the largest batch of one process, for
memory.
"""
AUTO_MOST = 1024
"""The largest batch of one process that is tried: the largest in the documents, B0's on 80 GB."""
UPDATES, UPDATES_PRETRAINED = 2000, 500
"""Updates in a whole run of open length, within `EPOCHS` and `EPOCHS_PRETRAINED`."""
EPOCHS, EPOCHS_PRETRAINED = (30, 300), (10, 100)
RATE, RATE_PRETRAINED, RATE_HEAD = 2e-3, 5e-4, 1e-2
"""Peak learning rates of AdamW for batches of 32; they scale with the square root of the batch."""
LEAST_PIXELS = 96
"""The smallest side when training from scratch. Networks shrink a side 32-fold: 32 pixels become
one position, which loses all spatial information. Scans of digits, 20 per class: 84.8% top-1 at 32,
94.3% at 64, 96.0% at 96, in about the same time on a CPU, where batches are small.
"""
HOST_PIXELS = 128
"""The largest image side when training from scratch without a GPU."""


@dataclass(frozen=True)
class Facts:
    """Facts known before the first step.

    Attributes:
        images, eval_images: training and validation images.
        short_side: median over a sample of the training images, in pixels. None: unknown.
        processes: number of processes that train together.
        gpus: whether there is a GPU.
        pretrained: whether weights are loaded.
        frozen: whether only the classifier is trained.
        letters: whether the class names are those of letters, which mirror images would make wrong.
    """

    images: int
    eval_images: int
    short_side: int | None = None
    processes: int = 1
    gpus: bool = False
    pretrained: bool = False
    frozen: bool = False
    letters: bool = False


def fitted(facts: Facts, resolution: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings that replace the documents', by flag, except those in `given`.

    Args:
        facts: what is known about data, model and machine.
        resolution: the architecture's published image side in pixels.
        given: the user's settings by flag; the others are chosen to fit them.
    """
    if facts.images >= FEW_IMAGES:
        return {}
    chosen: dict[str, Any] = {"image_size": _image_size(facts, resolution)}
    size = given.get("image_size") or chosen["image_size"]
    chosen["crop_padding"] = round(size / 7)  # 32 of 224 pixels

    chosen["train_batch_size"] = _batch(facts)
    chosen["eval_batch_size"] = max(
        1, min(BATCH[1], math.ceil(facts.eval_images / facts.processes))
    )
    batch = facts.processes * given.get("train_batch_size", chosen["train_batch_size"])
    batch = given.get("optimizer_batch_size") or batch * (given.get("grad_accum_steps") or 1)
    steps = given.get("steps_per_epoch") or math.ceil(facts.images / batch)
    chosen["max_epochs"] = _epochs(facts, steps)
    epochs = given.get("max_epochs", chosen["max_epochs"])

    chosen |= _schedule(facts, batch) if "optimizer" not in given else {}
    chosen["warmup_epochs"] = round(min(5.0, epochs / 10), 2)
    chosen |= _averages(steps)
    chosen |= _regularisation(facts, steps * epochs)
    chosen["log_steps"] = max(1, steps // 2)
    return {name: value for name, value in chosen.items() if name not in given}


def _image_size(facts: Facts, resolution: int) -> int:
    """Returns the image size in steps of 16, up to the architecture's.

    From scratch it is at least `LEAST_PIXELS`, and without a GPU at most `HOST_PIXELS`; loaded
    weights are used to larger images, so with them it is at least that.
    """
    least, most = (HOST_PIXELS if facts.pretrained else LEAST_PIXELS), resolution
    if not (facts.gpus or facts.pretrained):
        most = min(most, HOST_PIXELS)
    if facts.short_side is None:
        return most
    return min(most, max(least, 16 * math.ceil(facts.short_side / 16)))


def _batch(facts: Facts) -> int:
    """Returns a power of two for one process, such that an epoch has enough updates."""
    return max(1, min(BATCH[1], _whole_batch(facts.images) // facts.processes))


def _whole_batch(images: int) -> int:
    """Returns images per update, over all processes, that leave an epoch enough updates."""
    images = max(1, images // STEPS_PER_EPOCH)
    return max(BATCH[0], 1 << (images.bit_length() - 1))


def auto_batches(images: int, parts: int) -> list[int]:
    """Returns the candidates of `--train_batch_size auto` in rising order.

    They are powers of two that leave an epoch enough updates, at most `AUTO_MOST`. Measured memory
    replaces `BATCH`'s second number.

    Args:
        images: number of training images.
        parts: parts of an update: processes times passes.
    """
    most = max(1, min(AUTO_MOST, _whole_batch(images) // parts))
    return [1 << i for i in range(most.bit_length())]


def _epochs(facts: Facts, steps: int) -> int:
    updates, (least, most) = UPDATES, EPOCHS
    if facts.pretrained:
        updates, (least, most) = UPDATES_PRETRAINED, EPOCHS_PRETRAINED
    return max(least, min(most, math.ceil(updates / steps)))


def _schedule(facts: Facts, batch: int) -> dict[str, Any]:
    """Returns AdamW with a half cosine, which need no tuning to a batch."""
    rate = RATE
    if facts.pretrained:
        rate = RATE_HEAD if facts.frozen else RATE_PRETRAINED
    return {
        "optimizer": "adamw",
        "epsilon": 1e-7,
        "lr_init": float(f"{rate * math.sqrt(batch / 32):.2g}"),
        "lr_base_batch": 0,
        "lr_decay": "cosine",
        "weight_decay": 0.05,
        "weight_decay_style": "decoupled",
    }


def _averages(steps: int) -> dict[str, Any]:
    """Averages batch norm's statistics over the last half epoch, the weights over two epochs."""
    return {
        "bn_momentum": round(min(0.99, max(0.8, 1 - 2 / steps)), 3),
        "moving_average_decay": round(min(0.9999, max(0.9, 1 - 1 / (2 * steps))), 5),
    }


def _regularisation(facts: Facts, updates: int) -> dict[str, Any]:
    """Returns less regularisation than on ImageNet: short runs underfit."""
    chosen: dict[str, Any] = {"augmenter_name": "none", "crop_area_min": 0.35}
    chosen |= {"label_smoothing": 0.1, "weight_init": "fan_in"}
    if facts.letters:
        chosen["hflip"] = 0.0
    if updates < 10_000:
        chosen["stochastic_depth"] = 0.0
    return chosen
