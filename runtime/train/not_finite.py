"""Detects non-finite losses and gradients, and finds where they began."""

from __future__ import annotations

from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf

from convoy.dataloader.data_loader import Batch
from convoy.runtime.train.after_step import FinishedStep
from convoy.runtime.train.step import Step, StepResult, batch_norm_statistics
from convoy.utils.distributed import ranks
from convoy.utils.errors import UserError
from convoy.utils.watchdog import watchdog

MAX_OVERFLOWS = 20
"""Number of steps in a row whose float16 gradients may overflow when the loss scale cannot fall
further.
"""
_WAY_OUT = {
    True: "train with --dtype bfloat16 or float32",
    False: "lower --loss_scale, or leave it out, so that it adapts",
}


class TrainingError(UserError, RuntimeError):
    """Training cannot continue. The text says where it stopped and why."""


class NotFinite(TrainingError):
    """A loss or gradient is infinite or NaN at any loss scale."""


class Health:
    """Checks each step for non-finite losses and gradients; all ranks reach the same verdict.

    When it raises, the weights are still good: `Step` does not change them in such a step.
    """

    def __init__(self, step: Step) -> None:
        self._step, self._overflows = step, 0
        self._checked, self._updated = 0, False

    def after_step(self, done: FinishedStep) -> None:
        """Checks a step; see `check`."""
        self.check(done.result, done.batches, done.ends_epoch)

    def check(self, result: StepResult, batches: list[Batch], ends_epoch: bool = False) -> None:
        """Raises if the step was not finite and training cannot go on.

        Occasional overflows of float16 gradients are normal, and lower the loss scale. They are an
        error only if they continue when the scale is 1 or fixed, or if a run's first epoch ends and
        no step has changed the weights.

        Args:
            result: from the step.
            batches: the batches of the step.
            ends_epoch: whether it is the last of its epoch.

        Raises:
            TrainingError: continuing is useless; the text has step and place.
            NotFinite: another order of examples could have worked.
        """
        step, state = self._step, self._step.state
        self._checked, self._updated = self._checked + 1, self._updated or result.finite
        self._overflows = 0 if result.finite else self._overflows + 1
        if result.finite and result.finite_loss:
            return
        scale = state.loss_scale
        if result.finite_loss and scale.active:
            can_fall = scale.dynamic and scale.value() > 1
            useless = ends_epoch and not self._updated and self._checked == state.step
            if can_fall or (self._overflows < MAX_OVERFLOWS and not useless):
                return
            raise TrainingError(
                f"the loss is finite but float16 gradients overflowed in each of the last"
                f" {self._overflows} steps, up to step {state.step}, with a loss scale of"
                f" {scale.value():g}: {_WAY_OUT[scale.dynamic]}"
            )
        watchdog.rest("looking for the layer that is not finite")
        found = first_not_finite(step, batches)
        places = [place for place in ranks.all_gather_object(found) if place]
        what = "gradient" if result.finite_loss else "loss"
        raise NotFinite(
            f"the training {what} was not finite at step {state.step} (epoch {state.epoch + 1});"
            f" first in {places[0] if places else 'no layer when repeated'}. Lower --lr_init,"
            " lengthen --warmup_epochs or set --grad_clip_norm, and continue from the last"
            " checkpoint with --resume_checkpoint"
        )


def first_not_finite(step: Step, batches: Iterable[Batch]) -> str:
    """Says where infinity or NaN first appears: in a layer's output, or in a gradient.

    It runs the batches again, without compiling or changing weights. Dropout draws new numbers, so
    it may find nothing and return "".
    """
    model = step.state.model
    outputs = [layer.output for layer in model.layers]
    every_layer = keras.Model(model.inputs, outputs)
    # On CPUs this layout works only with XLA.
    if any(layer.name == "channels_first" for layer in model.layers):
        every_layer = tf.function(every_layer, jit_compile=True, autograph=False)
    statistics = batch_norm_statistics(model)
    before = [tf.identity(v.value) for v in statistics]
    places: list[str] = []
    try:
        for images, labels, weights in batches:
            seen = every_layer(step.prepare(images), training=True)
            for layer, output in zip(model.layers, seen, strict=True):
                parts = tf.nest.flatten(output)  # some layers return several tensors
                if any(part.dtype.is_floating and not _is_finite(part) for part in parts):
                    places.append(f"the output of layer {layer.name}")
                    break
            # Do this even if the place is known: synchronised batch norm exchanges here, and every
            # rank must take part equally often.
            gradients, _, sums = step.forward_backward(images, labels, weights)
            if places:
                continue
            if not np.isfinite(sums.numpy()[0]):
                places.append("the loss itself")
                continue
            for variable, gradient in reversed(list(zip(step.variables, gradients, strict=True))):
                if not _is_finite(gradient):
                    places.append(f"the gradient of {variable.path}")
                    break
    finally:
        for variable, value in zip(statistics, before, strict=True):
            variable.assign(value)
    return places[0] if places else ""


def _is_finite(tensor: tf.Tensor) -> bool:
    return bool(tf.reduce_all(tf.math.is_finite(tensor)))
