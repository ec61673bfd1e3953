"""Computes the lengths of a run: images per step, steps per epoch, and where this launch ends."""

from __future__ import annotations

import math
from typing import NamedTuple

from convoy.dataloader.data_loader import DataLoader
from convoy.runtime.builders.inputs import micro_steps
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.flags import batch_number
from convoy.runtime.train.step import TrainState
from convoy.utils.distributed import ranks


class Sizes(NamedTuple):
    """How much a step and an epoch are.

    Attributes:
        micro_steps: forward passes per step, whose gradients are averaged.
        images_per_step: images per step, over all ranks and passes.
        steps_per_epoch: steps per epoch; padding may fill up the last one.
    """

    micro_steps: int
    images_per_step: int
    steps_per_epoch: int

    @classmethod
    def of(cls, config: Config, data: DataLoader) -> Sizes:
        """Computes them for this training loader."""
        passes = micro_steps(config)
        images = batch_number(config.train_batch_size) * ranks.size() * passes
        return cls(passes, images, math.ceil(data.steps_per_epoch / passes))


class Last(NamedTuple):
    """The last epoch and the last step of a launch."""

    epoch: int
    step: float

    @classmethod
    def of(cls, config: Config, state: TrainState) -> Last:
        """Applies `--max_epochs`, `--run_epochs` and `--prof`, counted from where the state is."""
        epochs = config.run_epochs or config.max_epochs
        last = min(config.max_epochs, state.epoch + epochs)
        return cls(last, state.step + (config.prof or math.inf))
