"""Computes the stages of progressive training: what changes, and when.

The epochs are split evenly into `--n_stages`. Image size, RandAugment's magnitude, mixup, cutmix
and dropout rise linearly from the `--base_…` flags in the first stage to the ordinary flags in the
last (EfficientNetV2, Tan and Le 2021, arXiv:2104.00298, section 4).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from convoy.dataloader.data_loader import DataLoader
from convoy.dataloader.sources.source import Source
from convoy.runtime.builders.inputs import build_loader
from convoy.runtime.builders.models import final_dropout
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.images import train_image_size


@dataclass(frozen=True)
class Stage:
    """The settings of some epochs. Epochs with equal settings belong to one stage.

    Attributes:
        number: from 0.
        image_size: side of training images in pixels.
        magnitude: RandAugment's magnitude; None without RandAugment.
        mixup_alpha, cutmix_alpha: 0 for none.
        dropout: rate before the head; None leaves the model's own.
    """

    number: int
    image_size: int
    magnitude: float | None
    mixup_alpha: float
    cutmix_alpha: float
    dropout: float | None

    def describe(self, stages: int, first_epoch: int) -> str:
        """Returns one line for the user; `first_epoch` counts from 0."""
        dropout = "" if self.dropout is None else f", dropout {self.dropout:g}"
        magnitude = "" if self.magnitude is None else f", magnitude {self.magnitude:g}"
        return (
            f"stage {self.number + 1}/{stages}, from epoch {first_epoch + 1}:"
            f" {self.image_size} px{magnitude}, mixup {self.mixup_alpha:g},"
            f" cutmix {self.cutmix_alpha:g}{dropout}"
        )


def stage_settings(config: Config, epoch: int) -> Stage:
    """Returns the stage of an epoch, counted from 0; it depends only on the arguments.

    Stage s of n covers the epochs e with `e * n // max_epochs == s`, so stages differ in length by
    at most one epoch. `--mix_off_epoch` switches mixing off within a stage.
    """
    number = min(epoch * config.n_stages // config.max_epochs, config.n_stages - 1)
    share = number / (config.n_stages - 1) if config.n_stages > 1 else 1.0

    def between(base: float, final: float) -> float:
        # Two products, so that the last stage has exactly the flag's number.
        return (1.0 - share) * base + share * final

    mixing = config.mix_off_epoch is None or epoch < config.mix_off_epoch
    dropout = None
    if config.base_dropout is not None:
        dropout = between(config.base_dropout, final_dropout(config))
    magnitude = None
    if config.augmenter_name == "randaugment":
        magnitude = between(config.base_randaug_mag, config.magnitude)
    return Stage(
        number=number,
        image_size=round(between(config.base_img_size, train_image_size(config))),
        magnitude=magnitude,
        mixup_alpha=between(config.base_mixup, config.mixup_alpha) if mixing else 0.0,
        cutmix_alpha=between(config.base_cutmix, config.cutmix_alpha) if mixing else 0.0,
        dropout=dropout,
    )


def loader_of_stage(
    config: Config,
    stage: Stage,
    before: DataLoader | None = None,
    adapt: Callable[[Source], Source] | None = None,
) -> DataLoader:
    """Builds the training data of a stage.

    Args:
        config: the flags.
        stage: the stage.
        before: the previous stage's loader, to share its classes, cache and list of unreadable
            examples.
        adapt: see `build_loader`; only for the first stage.
    """
    if before is None:
        return build_loader(of_stage(config, stage), "train", adapt=adapt)
    data = build_loader(
        of_stage(config, stage), "train", num_classes=before.num_classes, source=before.source
    )
    data.bad_examples.update(before.bad_examples)
    return data


def of_stage(config: Config, stage: Stage) -> Config:
    """Returns the config for the training data of a stage."""
    changes: dict[str, Any] = {
        "train_image_size": stage.image_size,
        "mixup_alpha": stage.mixup_alpha,
        "cutmix_alpha": stage.cutmix_alpha,
    }
    if stage.magnitude is not None:
        changes["magnitude"] = stage.magnitude
    return config.with_(**changes)


def set_dropout(model: keras.Model, stage: Stage) -> None:
    """Sets the dropout before the head to the stage's rate. Functions traced before keep theirs."""
    for layer in model.layers:
        if stage.dropout is not None and isinstance(layer, keras.layers.Dropout):
            layer.rate = stage.dropout
