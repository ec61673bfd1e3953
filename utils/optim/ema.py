"""Keeps an exponential moving average of a model's weights.

Keras' own `use_ema` skips batch norm's statistics, counts micro-steps under gradient accumulation
and overwrites the weights when `fit` ends; we want none of that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from convoy.utils.optim.variables import to_numpy


class EMA:
    """A float32 shadow copy of every floating-point weight, batch norm statistics included.

    `shadow += (1 - d) * (w - shadow)` once per optimizer update, with `d = decay`, or `d =
    min(decay, (1 + t) / (10 + t))` under warm-up, so that the random initial weights do not
    dominate an early average (the rule of tf.train.ExponentialMovingAverage).

    Build it, or call `reset`, when the weights have their initial values: after importing
    pre-trained weights and after the broadcast from rank 0.

    Args:
        variables: Keras variables (`model.variables`) or `tf.Variable`s. Skips those that are not
            floating point, such as the states of seed generators.
        decay: in [0, 1). 0.9999 is usual for runs of hundreds of thousands of steps.
        warmup: limit the decay by the number of steps.

    Raises:
        ValueError: the decay is out of range, no variable is floating point, or two variables share
            a name.

    Example:
        >>> ema = EMA(model.variables, 0.9999)
        >>> ema.update(step)          # in the training step, after the optimizer
        >>> with ema.swap():
        ...     evaluate(model)
    """

    def __init__(self, variables: Sequence[Any], decay: float, warmup: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"The EMA decay must be at least 0 and below 1, not {decay}.")
        self.decay = float(decay)
        self.warmup = bool(warmup)
        self._swapped = False
        self._weights: dict[str, tf.Variable] = {}
        for variable in variables:
            raw = variable.value if isinstance(variable, keras.Variable) else variable
            if not raw.dtype.is_floating:
                continue
            name = getattr(variable, "path", None) or raw.name.split(":")[0]
            if name in self._weights:
                raise ValueError(f"Two variables are named {name!r}; the EMA needs distinct names.")
            self._weights[name] = raw
        if not self._weights:
            raise ValueError("There is no floating-point variable to average.")
        self._shadows = {
            name: tf.Variable(
                tf.cast(raw, tf.float32), trainable=False, name=f"ema_{name.replace('/', '_')}"
            )
            for name, raw in self._weights.items()
        }

    @property
    def shadows(self) -> dict[str, tf.Variable]:
        """Returns the float32 shadow variables by name, for broadcasting and checkpoints."""
        return dict(self._shadows)

    def update(self, step: tf.Tensor | int) -> None:
        """Moves the shadows towards the weights. Works inside a `tf.function`.

        Args:
            step: scalar, the number of updates before this one (t above). Use a tensor inside a
                `tf.function`: a Python number would be frozen into the graph.
        """
        # Compute 1 - d without a subtraction in float32, which at d = 0.9999 would be wrong in the
        # fourth digit: 1 - (1 + t) / (10 + t) is 9 / (10 + t).
        rate = tf.constant(1.0 - self.decay, tf.float32)
        if self.warmup:
            rate = tf.maximum(rate, 9.0 / (10.0 + tf.cast(step, tf.float32)))
        for name, raw in self._weights.items():
            shadow = self._shadows[name]
            shadow.assign_sub(rate * (shadow - tf.cast(raw, tf.float32)))

    def reset(self) -> None:
        """Sets the shadows to the present weights."""
        for name, raw in self._weights.items():
            self._shadows[name].assign(tf.cast(raw, tf.float32))

    @contextmanager
    def swap(self) -> Iterator[None]:
        """Puts the averages into the model for a `with` block.

        On leaving, also by an exception, the model gets its weights back, bit for bit. The shadows
        do not change, so `state` is correct inside the block as well. Takes one more copy of the
        weights in memory. Do not use it inside a `tf.function`, or run a training step in the
        block: leaving the block would undo the step.

        Raises:
            RuntimeError: the averages are already in the model.
        """
        if self._swapped:
            raise RuntimeError("The EMA weights are already in the model.")
        backup = {name: tf.identity(raw) for name, raw in self._weights.items()}
        self._swapped = True
        try:
            for name, raw in self._weights.items():
                raw.assign(tf.cast(self._shadows[name], raw.dtype))
            yield
        finally:
            for name, raw in self._weights.items():
                raw.assign(backup[name])
            self._swapped = False

    def state(self, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """Copies the shadows, or some of them, by variable name: float32 in the weights' shapes."""
        wanted = self._shadows if names is None else names
        return {name: to_numpy(self._shadows[name]) for name in wanted}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Sets the shadows from the result of `state`. Changes nothing if anything does not fit.

        Raises:
            ValueError: a name is missing or unknown, or a shape differs.
        """
        missing = [name for name in self._shadows if name not in state]
        unknown = [name for name in state if name not in self._shadows]
        if missing or unknown:
            raise ValueError(
                f"The EMA state is of another model: {len(missing)} weights are missing from it "
                f"({', '.join(missing[:3]) or 'none'}), {len(unknown)} are unknown "
                f"({', '.join(unknown[:3]) or 'none'})."
            )
        for name, shadow in self._shadows.items():
            if tuple(np.shape(state[name])) != tuple(shadow.shape):
                raise ValueError(
                    f"The EMA state of {name!r} has shape {tuple(np.shape(state[name]))}; the "
                    f"model has {tuple(shadow.shape)}."
                )
        for name, shadow in self._shadows.items():
            shadow.assign(np.asarray(state[name], np.float32))
