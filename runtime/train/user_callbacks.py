"""Calls the callbacks of programs that use the library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras

from convoy.runtime.train.after_step import FinishedStep
from convoy.utils.watchdog import watchdog


class UserCallbacks:
    """Calls `keras.callbacks.Callback`s at the places where Keras' `fit` would.

    Args:
        callbacks: the user's.
        model: theirs to look at.
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback], model: keras.Model) -> None:
        self._all = keras.callbacks.CallbackList(list(callbacks), model=model)
        self._batch = 0

    def begin(self) -> None:
        """Tells them that training begins."""
        self._all.on_train_begin()

    def begin_epoch(self, epoch: int) -> None:
        """Tells them that an epoch begins, or continues, counted from 0."""
        self._batch = 0
        self._all.on_epoch_begin(epoch)

    def after_step(self, done: FinishedStep) -> None:
        """Tells them that a step has ended, by its number since `begin_epoch`."""
        watchdog.mark(f"in the callbacks of step {done.number}", 10.0, done.compute_seconds)
        self._all.on_train_batch_end(self._batch)
        self._batch += 1

    def end_epoch(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Tells them that an epoch has ended, with its loss and accuracy."""
        self._all.on_epoch_end(epoch, dict(logs))

    def end(self) -> None:
        """Tells them that training has ended."""
        self._all.on_train_end()
