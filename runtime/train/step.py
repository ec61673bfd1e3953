"""Runs the training step: `forward_backward`, `reduce`, `update` on one `TrainState`.

A step is one update of the weights. Horovod's exchange is between the two compiled halves and
belongs to neither. So XLA never sees a Horovod operation, and every rank exchanges in every step,
also if its gradients overflow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from convoy.dataloader.data_loader import Batch
from convoy.model import native
from convoy.model.recompute import Recomputing
from convoy.model.sync_batch_norm import SyncBatchNorm
from convoy.runtime.train.loss_scale import LossScale
from convoy.utils.distributed import ranks
from convoy.utils.machine import xla
from convoy.utils.metrics import METRICS, batch_sums
from convoy.utils.optim.clipping import global_norm
from convoy.utils.optim.ema import EMA
from convoy.utils.optim.optimizers import add_l2, decay_decoupled, decay_mask, l2_coefficient
from convoy.utils.signals import Wishes
from convoy.utils.watchdog import watchdog

Prepare = Callable[[Any], tf.Tensor]
Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
Clip = Callable[[list[tf.Tensor], list[Any]], list[tf.Tensor]]

_FRESH_STEPS = 3  # XLA compiles clusters when it runs them again


class Passes(NamedTuple):
    """The results of the forward and backward passes of a step on one rank.

    Attributes:
        gradients: of the scaled `Σ w·loss / B`, one tensor a variable, summed over the passes.
        weight: `Σ w / B`, summed over the passes.
        sums: float64 `(4,)`: loss, top-1, top-5 and weight, summed over examples.
    """

    gradients: list[tf.Tensor]
    weight: tf.Tensor
    sums: tf.Tensor

    def plus(self, other: Passes) -> Passes:
        """Adds the results of another pass."""
        gradients = [a + b for a, b in zip(self.gradients, other.gradients, strict=True)]
        return Passes(gradients, self.weight + other.weight, self.sums + other.sums)


class StepResult(NamedTuple):
    """The results of a step on one rank.

    Attributes:
        sums: float64 `(4,)`: loss, top-1, top-5 and weight, summed over this rank's examples.
        shared: float64 `(4,)`: the mean of `sums` over ranks, taken in float32.
        finite_loss, finite: whether the loss, and the gradients, were finite on every rank. If
            either was not, the weights have not changed.
        granted: for each of the step's `wishes`, whether any rank had it.
        gradient_norm: in an observed step, the norm of all averaged gradients together, before
            clipping; otherwise None.
        own_seconds: in an observed step, the time of this rank's forward and backward passes
            without the exchange; otherwise None. Also None in the first steps, which compile, and
            if synchronised batch norm makes ranks wait for each other within these passes.
    """

    sums: np.ndarray
    shared: np.ndarray
    finite_loss: bool
    finite: bool
    granted: Wishes = Wishes()
    gradient_norm: float | None = None
    own_seconds: float | None = None


@dataclass
class TrainState:
    """Everything that training changes.

    Attributes:
        arguments: the arguments of `model.build_model`.
        step: updates since the beginning.
        epoch: epochs finished.
        offset: finished examples of the current epoch, over all ranks.
        best: the best evaluation so far: metric, value, epoch, step, weights; empty before the
            first.
        waited: evaluations since `--best_metric` was last better than before.
        class_weights: the weight of each class in the loss; None: all equal.
        left_out: ranges of examples that training skips, (epoch, from, to) in positions of the
            epoch over all ranks; see `runtime.train.rollback`.
    """

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    loss_scale: LossScale
    arguments: dict[str, Any] = field(default_factory=dict)
    ema: EMA | None = None
    step: int = 0
    epoch: int = 0
    offset: int = 0
    best: dict[str, Any] = field(default_factory=dict)
    waited: int = 0
    class_weights: list[float] | None = None
    left_out: list[tuple[int, int, int]] = field(default_factory=list)


class Step:
    """Updates a `TrainState`'s weights once per call.

    Args:
        state: the state to train.
        loss: maps logits and labels to each example's loss; see `utils.optim.losses`.
        prepare: makes images from the first part of a batch if that is not yet images
            (`--augment_on device`); compiled with the rest.
        weight_decay, weight_decay_style, bn_weight_decay: as in the flags with these names.
        rate_scales: factor on each variable's learning rate, here for decoupled weight decay
            (`scale_rates` sets it in the optimizer); None means 1.
        class_weights: float32 `(classes,)`: weight of each class's examples in the loss and its
            gradients, but not in the accuracies; soft labels count by their shares. None: all
            equal.
        clip: maps averaged gradients and their variables to clipped gradients; or None.
        exchange: how ranks exchange gradients.
        recompute: names of the blocks whose activations the backward pass computes again, see
            `model.recompute`; None keeps everything.
        micro_steps: forward passes per update; their gradients are averaged before the single
            exchange.
        use_xla: compile both halves.
        seed: seed of dropout and stochastic depth.
    """

    def __init__(
        self,
        state: TrainState,
        *,
        loss: Loss,
        prepare: Prepare | None = None,
        weight_decay: float = 0.0,
        weight_decay_style: str = "l2",
        bn_weight_decay: bool = False,
        rate_scales: Sequence[float] | None = None,
        class_weights: np.ndarray | None = None,
        clip: Clip | None = None,
        exchange: ranks.Exchange | None = None,
        recompute: Collection[str] | None = None,
        micro_steps: int = 1,
        use_xla: bool = False,
        seed: int = 0,
    ) -> None:
        self.state, self.micro_steps, self.seed = state, micro_steps, seed
        self._fresh = _FRESH_STEPS
        self._loss, self._clip, self._class_weights = loss, clip, class_weights
        self.prepare: Prepare = prepare or (lambda images: images)
        self._exchange = exchange or ranks.Exchange()
        self.variables = state.model.trainable_variables
        self._decay, self._style = weight_decay, weight_decay_style
        self._mask = decay_mask(self.variables, bn_weight_decay=bn_weight_decay)
        self._rate_scales = rate_scales
        self._natively = not use_xla  # XLA supports only its own operations
        # Synchronised batch norm exchanges in the middle of this half: XLA compiles the parts
        # around it (utils.machine.xla.cluster), not the whole.
        synced = any(isinstance(layer, SyncBatchNorm) for layer in state.model.layers)
        self._exchanges_within = synced and ranks.size() > 1
        compiled = use_xla and not self._exchanges_within
        self._logits: Callable = partial(state.model, training=True)
        if recompute is not None:
            self._logits = Recomputing(state.model, recompute, compiled)
        self.forward_backward = xla.function(self._forward_backward, compiled)
        self.reduce: Callable = (
            tf.function(self._reduce, autograph=False) if ranks.size() > 1 else self._reduce
        )
        self.update = xla.function(self._update, use_xla)

    def __call__(
        self,
        batches: Iterable[Batch],
        lr: float,
        wishes: Wishes = Wishes(),  # noqa: B008 — it cannot be changed
        observe: bool = False,
    ) -> StepResult:
        """Trains on `micro_steps` batches.

        If the loss or a gradient is not finite on any rank, no rank's weights change.

        Args:
            batches: as many as `micro_steps`.
            lr: learning rate of the update.
            wishes: this rank's wishes; the result's `granted` says which of them any rank had.
            observe: measure values that cost time, such as `gradient_norm`: for logged steps.
        """
        # Tracing, compiling and finding the best kernels take minutes for large models.
        compiles = self._fresh > 0
        self._fresh -= compiles
        times = None if compiles else 1.0
        number = self.state.step + 1
        watchdog.mark(f"computing step {number}", times)
        (gradients, weight, sums), own_seconds = self._accumulate(batches, observe)
        watchdog.mark(f"exchanging the gradients of step {number}", times)
        gradients, weight, news = self.reduce(gradients, weight, _news(sums, wishes))
        with tf.device("/cpu:0"):  # `tf.cond` reads its predicate on the host
            observed = tf.constant(observe)
        rate, step = tf.constant(lr, tf.float32), tf.constant(self.state.step, tf.int64)
        finite, norm = self.update(gradients, weight, rate, step, observed)
        self.state.step = number
        shared, finite_loss, granted = _read(news)
        return StepResult(
            sums=sums.numpy(),  # waits for the device, as `bool(finite)` does
            shared=shared,
            finite_loss=finite_loss,
            finite=bool(finite),
            granted=granted,
            gradient_norm=float(norm) if observe else None,
            own_seconds=None if compiles else own_seconds,
        )

    def _accumulate(self, batches: Iterable[Batch], observe: bool) -> tuple[Passes, float | None]:
        """Runs the forward and backward passes of a step, and times them if `observe`."""
        start, total = time.perf_counter(), None
        for batch in batches:
            passed = Passes(*self.forward_backward(*batch))
            total = passed if total is None else total.plus(passed)
        if total is None:
            raise ValueError("a step needs a batch")
        if observe:
            total.sums.numpy()  # waits for the device, which finishes both passes before it copies
        alone = observe and not self._exchanges_within
        return total, time.perf_counter() - start if alone else None

    def _forward_backward(
        self, images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        """Returns gradients of the scaled `Σ w·loss / B`, then `Σ w / B`, and the metrics' sums."""
        scale, images = self.state.loss_scale.scale, self.prepare(images)
        with native.enabled(self._natively), tf.GradientTape() as tape:
            logits = self._logits(images)
            losses, shares = self._loss(logits, labels), self._weighted(weights, labels)
            # multiply_no_nan: an infinite loss of an example that does not count cannot spoil the
            # batch.
            loss_sum = tf.reduce_sum(tf.math.multiply_no_nan(losses, shares))
            scaled = loss_sum * scale / tf.cast(tf.size(weights), tf.float32)
        gradients = tape.gradient(scaled, [v.value for v in self.variables])
        sums = batch_sums(logits, labels, weights)
        sums = tf.concat([[tf.cast(loss_sum, tf.float64)], sums[1:]], axis=0)
        return gradients, tf.reduce_mean(shares), sums

    def _weighted(self, weights: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Weights examples by their classes."""
        if self._class_weights is None:
            return weights
        by_class = tf.constant(self._class_weights, tf.float32)
        if labels.shape.rank == 2:
            return weights * tf.linalg.matvec(labels, by_class)
        # A slot that does not count may have any label.
        return weights * tf.gather(by_class, tf.where(weights > 0, labels, 0))

    def _reduce(
        self, gradients: list[tf.Tensor], mean_weight: tf.Tensor, news: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        gradients, others = ranks.reduce_mean(gradients, [mean_weight, news], self._exchange)
        return gradients, *others

    def _update(
        self,
        gradients: list[tf.Tensor],
        mean_weight: tf.Tensor,
        lr: tf.Tensor,
        step: tf.Tensor,
        observe: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Does the finite check, clipping, weight decay, optimizer and moving average.

        Returns:
            Whether it updated, and the norm of the gradients if requested, otherwise 0.
        """
        loss_scale = self.state.loss_scale
        # Dividing by the mean weight gives the mean over all examples that count, over all ranks.
        # The weight was summed over micro-steps like the gradients, so their number cancels.
        factor = 1.0 / (loss_scale.scale * tf.maximum(mean_weight, 1e-12))
        gradients = [g * factor for g in gradients]
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in gradients])
        # All ranks have the same reduced gradients here, so all decide alike.
        tf.cond(finite, lambda: self._apply(gradients, lr, step), lambda: None)
        loss_scale.after(finite)
        norm = tf.constant(0.0)
        if observe is not None:
            norm = tf.cond(observe, lambda: global_norm(gradients), lambda: norm)
        return finite, norm

    def _apply(self, gradients: list[tf.Tensor], lr: tf.Tensor, step: tf.Tensor) -> None:
        optimizer = self.state.optimizer
        # Inside tf.cond: clipping and decay make new tensors for some gradients, and Keras wants
        # all from one graph.
        gradients = [tf.identity(g) for g in gradients]
        if self._clip is not None:
            gradients = self._clip(gradients, self.variables)
        if self._decay and self._style == "decoupled":
            decay_decoupled(self.variables, self._mask, lr, self._decay, self._rate_scales)
        elif self._decay:
            convention = "keras" if self._style == "l2" else "half"
            coefficient = l2_coefficient(self._decay, convention)
            gradients = add_l2(gradients, self.variables, self._mask, coefficient)
        optimizer.learning_rate.assign(lr)
        optimizer.apply(gradients, self.variables)
        if self.state.ema is not None:
            self.state.ema.update(step)

    def pass_over(self) -> None:
        """Counts a step that changes nothing."""
        self.state.step += 1
        self.seed_randomness()

    def seed_randomness(self) -> None:
        """Sets the random state of dropout and stochastic depth for this rank at `state.step`.

        Their generators' state is (seed, number of draws). Seeding from (seed, rank, step) makes
        ranks differ, and makes a resumed run continue as if it had never stopped.
        """
        generators = seed_generators(self.state.model)
        sequence = np.random.SeedSequence([self.seed, ranks.rank()])
        seeds = sequence.generate_state(max(1, len(generators)), np.uint32)
        for variable, seed in zip(generators, seeds, strict=False):
            variable.assign(np.array([seed, self.state.step * self.micro_steps], np.uint32))


def _news(sums: tf.Tensor, wishes: Wishes) -> tf.Tensor:
    """Packs what a rank sends with its gradients, float32.

    It is metric sums, whether its loss is not finite, and its wishes. In the mean over ranks, a
    flag that any rank has set is above 0.
    """
    flags = tf.cast(tf.stack([~tf.math.is_finite(sums[0]), *wishes]), tf.float32)
    return tf.concat([tf.cast(sums, tf.float32), flags], axis=0)


def _read(news: tf.Tensor) -> tuple[np.ndarray, bool, Wishes]:
    """Unpacks the mean of all ranks' `_news`.

    Returns:
        The metric sums, whether every rank's loss is finite, and the wishes that any rank had.
    """
    shared, flags = np.split(news.numpy().astype(np.float64), [len(METRICS) + 1])
    bad_loss, *granted = (flags > 0).tolist()
    return shared, not bad_loss, Wishes(*granted)


def seed_generators(model: keras.Model) -> list[Any]:
    """Returns the states, `(2,)` uint32, of the model's seed generators, in the model's order."""
    weights = {id(v) for v in model.weights}
    return [v for v in model.variables if id(v) not in weights and "seed_generator_state" in v.path]


def batch_norm_statistics(model: keras.Model) -> list[Any]:
    """Returns the running means and variances, which each rank updates from its own batches."""
    return [
        v
        for v in model.non_trainable_weights
        if v.path.endswith(("moving_mean", "moving_variance"))
    ]


def without_weight(batch: Batch) -> Batch:
    """Returns a batch of real images with weight 0, to complete the last update of an epoch."""
    return batch._replace(weights=tf.zeros_like(batch.weights))
