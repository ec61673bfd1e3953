"""Warns about a run's problems, each once and with a way out.

Examples are a loss that does not fall, an evaluation spoilt by batch norm, and classes that are
never answered.

`data_warnings.py` has the warnings before the first step.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from convoy.dataloader.data_loader import DataLoader
from convoy.dataloader.order.balanced import SAMPLING
from convoy.runtime.data.class_weights import class_weights
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.lr_schedule import Schedule
from convoy.runtime.settings.modes import RUN_MODES
from convoy.runtime.train.batch_statistics import StatisticsComparison
from convoy.runtime.train.data_warnings import data_doubts, labels_of
from convoy.runtime.train.epoch_evaluations import Evaluations
from convoy.runtime.train.step import TrainState
from convoy.utils.distributed import ranks
from convoy.utils.optional import known
from convoy.utils.text import some, warning
from convoy.utils.watchdog import watchdog

LEAST_UPDATES, LEAST_SHARE = 50, 0.25
"""A loss is judged after this many updates and this fraction of the run."""
FALLEN = 0.02
"""Fraction of the way from guessing to the lowest possible loss: less counts as no fall."""
WORSE, GAP = 0.7, 0.1
"""An evaluation is far worse than training if its top-1 is below this fraction of training's, and
lower by this much.
"""
SPOILT = 0.15
"""Difference in top-1 by which batch statistics must beat the running ones."""


class Doubts:
    """Finds the warnings for a run.

    Every rank has one, and calls the same methods at the same places.

    Args:
        config: config of training; a benchmark gets no warnings.
        data: the training loader.
        steps_per_epoch: updates per epoch.
    """

    def __init__(
        self,
        config: Config,
        state: TrainState,
        data: DataLoader,
        schedule: Schedule,
        steps_per_epoch: int,
    ) -> None:
        self._config, self._state, self._data = config, state, data
        self._updates = steps_per_epoch * config.max_epochs
        self._steps_per_epoch, self._warmup = steps_per_epoch, schedule.warmup_steps
        self._source = data.source if config.mode in RUN_MODES else None
        self._active = self._source is not None
        self._loss_judged = not self._active
        self._comparison: StatisticsComparison | None = None
        self._quarter = 0  # quarter of the run in which statistics were last compared

    def of_data(self, validation: DataLoader | None) -> list[str]:
        """Returns warnings before the first step.

        Args:
            validation: the loader; None without evaluation.
        """
        if not self._active or validation is None or validation.source is None:
            return []
        watchdog.rest("looking through the data")
        return list(map(warning, ranks.on_rank0(lambda: data_doubts(self._data, validation))))

    def of_epoch(self, loss: float) -> list[str]:
        """Returns warnings after an epoch, complete or not.

        Args:
            loss: mean loss over all ranks' images.
        """
        done = self._done()
        late = max(LEAST_UPDATES, LEAST_SHARE * self._updates, 2 * self._warmup)
        if self._loss_judged or self._state.offset or done < late:
            return []
        self._loss_judged = True
        if (levels := guessing(self._config, self._shares())) is None:
            return []
        guessed, lowest = levels
        if loss < guessed - FALLEN * (guessed - lowest):
            return []
        text = (
            f"after {self._state.epoch} of {self._config.max_epochs} epochs the training loss"
            f" is {loss:.3f}, and guessing gives {guessed:.3f}: nothing is learnt. The usual"
            f" cause is the learning rate (--lr_init {self._config.lr_init:g}; --mode lr_find looks"
            " for one), or labels that do not belong to their images"
        )
        return [warning(text)]

    def of_evaluation(
        self, evaluations: Evaluations, figures: dict[str, float], over: bool
    ) -> list[str]:
        """Returns warnings after an evaluation, whose `figures` are the run's latest.

        Args:
            evaluations: `runtime.train.epoch_evaluations.Evaluations`.
            figures: the run's latest.
            over: whether the run ends with it.
        """
        if not self._active:
            return []
        texts = [*self._of_statistics(known(evaluations.data), figures)]
        if over:
            texts += self._of_answers(evaluations.answers)
        return list(map(warning, texts))

    def _done(self) -> int:
        return self._state.epoch * self._steps_per_epoch

    def _shares(self) -> np.ndarray:
        """Returns how often each class is trained on, as far as quickly known: float64 `(C,)`."""
        data = self._data

        def count() -> np.ndarray | None:
            labels = labels_of(known(self._source), data.num_classes)
            return None if labels is None else np.bincount(labels, minlength=data.num_classes)

        counts = ranks.on_rank0(count)
        weights = class_weights(self._config, data)
        if counts is None or not counts.any():
            counts = np.ones(data.num_classes)
        power = SAMPLING.get(self._config.sampling, 1.0)
        shares = np.where(counts > 0, counts.astype(np.float64) ** power, 0.0)
        shares *= 1.0 if weights is None else weights
        return shares / shares.sum()

    def _of_statistics(self, data: DataLoader, figures: dict[str, float]) -> list[str]:
        """Compares the statistics if an evaluation is far worse than training.

        It does so once in each quarter of a run but the first, where running statistics may still
        include their start.
        """
        trained, *evaluations = (
            figures.get(f"{name}_accuracy_top_1", -math.inf)
            for name in ("training", "eval", "eval_ema")
        )
        evaluated = max(evaluations)
        quarter = min(4, 4 * self._done() // max(1, self._updates))
        far = evaluated < WORSE * trained and evaluated < trained - GAP
        if self._quarter >= max(1, quarter) or not far:
            return []
        self._quarter = quarter
        if self._comparison is None:
            model, use_xla = self._state.model, self._config.use_xla
            self._comparison = StatisticsComparison(model, data, use_xla)
        found = self._comparison()
        if found is None:
            return []
        running, batch, images = found
        if batch - running < max(SPOILT, 3 * math.sqrt(0.5 / images)):
            return []
        self._quarter = 4  # already warned
        momentum = next(
            (x.momentum for x in self._state.model.layers if hasattr(x, "moving_variance")), 0.0
        )
        return [
            f"batch norm spoils the evaluation: {images} of its images score {running:.0%} with"
            f" the running statistics, and {batch:.0%} with those of their batch. They are the"
            f" mean of about {1 / (1 - momentum):.0f} updates, and the weights have changed since:"
            f" lower --bn_momentum (it is {momentum:g}) or --lr_init, or train longer"
        ]

    def _of_answers(self, totals: np.ndarray | None) -> list[str]:
        if totals is None:
            return []
        _, images, answers = totals
        never = np.flatnonzero((images > 0) & (answers == 0))
        if not never.size:
            return []
        names = self._data.class_names or [str(i) for i in range(self._data.num_classes)]
        classes = int((images > 0).sum())
        which = some([names[i] for i in never])
        shares = self._shares()
        rare = bool((shares[never] < 0.5 / max(1, int(np.count_nonzero(shares)))).any())
        way = "--sampling balanced shows rare classes more often" if rare else "train longer"
        return [
            f"{never.size} of {classes} classes {'was' if never.size == 1 else 'were'} never the"
            " answer in the last evaluation:"
            f" {which} ({int(images[never].sum())} images). Look at their images and labels, or"
            f" {way}"
        ]


def guessing(config: Config, shares: np.ndarray) -> tuple[float, float] | None:
    """Returns the best constant answer's training loss, and the lowest possible loss, in nats.

    The lowest is what smoothed and mixed labels allow. None if unknown.

    With softmax cross-entropy, the first is the entropy of the mean target: ln C for C equally
    frequent classes, with any smoothing and mixing.

    Args:
        config: the flags.
        shares: how often each class occurs, float64 `(C,)`.
    """
    classes, smoothing = len(shares), config.label_smoothing
    mixed = [alpha for alpha in (config.mixup_alpha, config.cutmix_alpha) if alpha]
    mixed = mixed if config.mix_prob else []
    mean = shares * (1 - smoothing) + smoothing / classes
    if config.loss == "bce":
        if mixed:
            return None
        high, low = 1 - smoothing + smoothing / classes, smoothing / classes
        if (threshold := config.bce_target_threshold) is not None:
            high, low = float(high > threshold), float(low > threshold)
            mean = shares * high + (1 - shares) * low
        lowest = (_binary(high) + (classes - 1) * _binary(low)) / classes
        return float(np.mean(_binary(mean))), float(lowest)
    first: np.ndarray = np.ones(1)
    if mixed:
        draws = np.random.default_rng(0).beta(mixed[0], mixed[-1], 1000)
        first = np.where(np.arange(1000) < 1000 * config.mix_prob, draws, 1.0)
    rest = smoothing / classes
    parts = ((1 - smoothing) * first + rest, (1 - smoothing) * (1 - first) + rest)
    lowest = np.mean(_part(parts[0]) + _part(parts[1])) + (classes - 2) * _part(rest)
    return float(np.sum(_part(mean))), float(lowest)


def _part(p: Any) -> Any:
    """Returns one term of an entropy."""
    return -np.asarray(p) * np.log(np.maximum(p, 1e-300))


def _binary(p: Any) -> Any:
    return _part(p) + _part(1 - np.asarray(p))
