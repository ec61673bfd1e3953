"""Adapts the dynamic loss scale for float16."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from convoy.runtime.settings.flags import HIGHEST_LOSS_SCALE

# As in NVIDIA's mixed-precision training guide: start high, halve at an overflow, double after this
# many clean steps.
_INITIAL_SCALE, _GROWTH_STEPS = 2.0**15, 2000


class LossScale:
    """The factor that keeps float16 gradients from vanishing; float32 and bfloat16 need none.

    Args:
        setting: "dynamic", or a fixed number.
        active: False fixes it at 1.
    """

    def __init__(self, setting: str, active: bool) -> None:
        self.dynamic = active and setting == "dynamic"
        start = 1.0 if not active else _INITIAL_SCALE if self.dynamic else float(setting)
        self.active = active
        self.scale = tf.Variable(start, dtype=tf.float32, trainable=False, name="loss_scale")
        self.clean_steps = tf.Variable(0, dtype=tf.int32, trainable=False, name="clean_steps")

    def after(self, finite: tf.Tensor) -> None:
        """Adapts the scale after a step with finite gradients or not.

        For use inside a `tf.function`.
        """
        if not self.dynamic:
            return
        grown = self.clean_steps + 1
        grow = tf.logical_and(finite, grown >= _GROWTH_STEPS)
        scale = tf.where(finite, self.scale, tf.maximum(self.scale / 2, 1.0))
        self.scale.assign(tf.where(grow, tf.minimum(scale * 2, HIGHEST_LOSS_SCALE), scale))
        self.clean_steps.assign(tf.where(tf.logical_and(finite, ~grow), grown, 0))

    def value(self) -> float:
        """Returns the present factor."""
        return float(self.scale.numpy())

    def state(self) -> dict[str, Any]:
        """Returns scale and clean-step count, and whether the scale adapts, for the checkpoint."""
        return {
            "scale": float(self.scale.numpy()),
            "clean_steps": int(self.clean_steps.numpy()),
            "dynamic": self.dynamic,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restores the result of `state` if both scales adapt.

        Otherwise `--loss_scale` or the precision changed, and this scale keeps what they say.
        """
        # Older checkpoints do not say whether it adapted; a scale that is not needed is 1.
        if self.dynamic and state.get("dynamic", (state["scale"] or 1) > 1):
            self.scale.assign(state["scale"])
            self.clean_steps.assign(state["clean_steps"])
