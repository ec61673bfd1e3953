"""Foresees the memory of a training step by arithmetic, from the model's graph.

Three numbers are measured, the rest follows from the model and the flags. `docs/memory.md` compares
it with measured peaks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import keras

from convoy.model import native
from convoy.model.step_memory import Moment, StepMemory, step_memory
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.images import train_image_size
from convoy.runtime.settings.recomputation import recomputed_blocks
from convoy.utils.distributed import ranks

MIB = 2**20
PROCESS = 760 * MIB
"""Python, TensorFlow and the input pipeline, without a model.

With `PER_CALL` measured on an AMD EPYC (AVX2, two cores), TensorFlow 2.21, 2026-12-02.
"""
PER_CALL = round(0.27 * MIB)
"""The graph's and the kernels' memory for a layer's call, forward, backward or again."""
WASTED = 1 / 16
"""The index of TensorFlow's pool for tensors, as a share of them (`memory_pool.py`).

It takes 1/32 of the pool, which has up to twice the size that is needed.
"""
KNOWN_ERROR = 0.1
"""Largest difference from a measured peak, as a fraction; docs/memory.md has the table."""
_BATCHES = 4
"""Batches of images at once besides a step's own: being made, and waiting."""
UPDATE = "the update of the weights"
_SLOTS = {"sgd": 0, "momentum": 1, "lars": 1, "rmsprop": 2, "adam": 2, "adamw": 2, "lamb": 2}
"""Numbers that an optimizer keeps for each weight."""


@dataclass(frozen=True)
class Foreseen:
    """The peak of a training process, in bytes by what takes them.

    Attributes:
        process: Python, TensorFlow, the step's graph.
        weights: with batch norm's statistics.
        slots: what the optimizer keeps.
        average: the moving average of the weights.
        images: batches of images.
        moment: what the pass takes when the process takes most.
        pool: the index of TensorFlow's pool for tensors, as a share of them.
        gaps: what the pool has free then, in pieces that no tensor fits into.
    """

    process: float
    weights: float
    slots: float
    average: float
    images: float
    moment: Moment
    pool: float
    gaps: float

    @property
    def total(self) -> float:
        """Returns the sum."""
        return self.process + self.tensors * (1 + self.pool) + self.gaps

    @property
    def tensors(self) -> float:
        """Returns the bytes of the tensors that exist at that moment."""
        state = self.weights + self.slots + self.average
        return state + self.images + self.moment.total

    def parts(self) -> dict[str, float]:
        """Returns the bytes by name, for people."""
        moment = self.moment
        return {
            "process with TensorFlow (measured constants)": self.process,
            "weights": self.weights,
            "their gradients": moment.gradients,
            "the optimizer's averages": self.slots,
            "moving average of the weights": self.average,
            "activations kept for the backward pass": moment.kept,
            "at work: a layer, or what is computed again": moment.working,
            "batches of images": self.images,
            "the pool's index": self.pool * self.tensors,
            "gaps in the pool": self.gaps,
        }


def bytes_of_a_number(policy: str | None = None) -> int:
    """Returns the size of a number in activations, from a Keras dtype policy (None: the global)."""
    return 2 if "16" in (policy or keras.config.dtype_policy().name) else 4


class Foresight:
    """Foresees a model's training.

    Args:
        config: the flags.
        model: their model; its weights are not read.
        itemsize: bytes of a number in activations.
        gpu: whether it trains on a GPU: then a process's own memory does not count, and neither do
            cuDNN's workspaces.
    """

    def __init__(self, config: Config, model: keras.Model, itemsize: int, gpu: bool) -> None:
        self._config, self._model, self._itemsize, self._gpu = config, model, itemsize, gpu
        plain = config.data_format == "channels_last" and not config.use_xla and not gpu
        self._natively = plain and native.LIBRARY.load()[0] is not None
        self._passes: dict[str | int, StepMemory] = {}
        self._weights = 4 * _count(model.weights)
        self._trained = 4 * _count(model.trainable_variables)

    def peak(self, batch: int, recompute: str | int) -> Foreseen:
        """Returns the memory of a batch.

        Args:
            batch: images per process and pass.
            recompute: value of `--recompute`, except for auto.
        """
        config, done = self._config, self._pass(recompute)
        moment = done.peak(batch)
        # The passes' gradients exist until the update, which scales a copy of each. With several
        # passes, their sum does too while the next one runs.
        passes = self._passes_per_update(batch)
        summed = self._trained if passes > 1 else 0
        if 2 * self._trained > moment.total + summed:
            moment = Moment(UPDATE, True, 0, 0, 2 * self._trained)
        else:
            moment = replace(moment, gradients=moment.gradients + summed)
        float_images = config.mixup_alpha or config.cutmix_alpha
        images = batch * 3 * train_image_size(config) ** 2 * (4 if float_images else 1)
        return Foreseen(
            process=0 if self._gpu else PROCESS + PER_CALL * done.calls,
            weights=self._weights,
            slots=_SLOTS[config.optimizer] * self._trained,
            average=self._weights if config.moving_average_decay else 0,
            images=images * (passes + (0 if self._gpu else _BATCHES)),
            moment=moment,
            pool=0 if self._gpu else WASTED,
            gaps=batch * done.largest if self._has_gaps(recompute) else 0,
        )

    def _has_gaps(self, recompute: str | int) -> bool:
        """Returns whether wide tensors come and go, which leaves a gap in the pool.

        It has about the size of the largest tensor: B0 at 32 images and B4 at 4 and 93 took 0.8,
        1.7 and 1.4 times that more than tensors, index and process. With a frozen backbone, which
        keeps nothing, B0 at 128 and B4 at 32 took 1.07 and 0.94 times that more.
        """
        blocks = recomputed_blocks(self._config.with_(recompute=recompute))
        return not self._gpu and (bool(blocks) or self._config.freeze_backbone)

    def _passes_per_update(self, batch: int) -> int:
        if total := self._config.optimizer_batch_size:
            return max(1, round(total / (batch * ranks.size())))
        return self._config.grad_accum_steps or 1

    def largest_batch(self, recompute: str | int, room: float) -> int:
        """Returns the most images that take no more than so many bytes; 0 if one takes more."""
        found = most(lambda batch: self.peak(batch, recompute).total <= room)
        each = (self._config.optimizer_batch_size or 0) // ranks.size()
        return next((n for n in range(found, 0, -1) if each % n == 0), found)

    def _pass(self, recompute: str | int) -> StepMemory:
        if recompute not in self._passes:
            self._passes[recompute] = step_memory(
                self._model,
                recomputed_blocks(self._config.with_(recompute=recompute)),
                itemsize=self._itemsize,
                natively=self._natively,
                gpu=self._gpu,
                image_size=train_image_size(self._config),
            )
        return self._passes[recompute]


def most(fits: Callable[[int], bool]) -> int:
    """Returns the largest number that fits, if smaller ones do: 0 to a million."""
    low, high = 0, 1
    while high < 2**20 and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _count(variables: list) -> int:
    return sum(math.prod(variable.shape) for variable in variables)
