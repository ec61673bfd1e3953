"""Evaluates every example exactly once, over any number of ranks.

Importing this module does not import TensorFlow.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from convoy.dataloader.data_loader import Batch, DataLoader
from convoy.dataloader.errors import DataError, check_bad_examples
from convoy.runtime.evaluate.counting import CountingByClass
from convoy.runtime.settings.config import Config
from convoy.utils.classification import of_totals
from convoy.utils.distributed import ranks
from convoy.utils.metrics import MeanAccumulator, percentiles
from convoy.utils.watchdog import watchdog

if TYPE_CHECKING:
    from convoy.runtime.builders.trained_model import Trained

_AGREE_SECONDS = 2.0
"""Seconds between two exchanges of the ranks during an evaluation; an exchange takes some
milliseconds.
"""

# Metric -> (unit, format) for the log.
UNITS = {
    "eval_loss": ("nats", ":.4f"),
    "eval_accuracy_top_1": (None, ":.4f"),
    "eval_accuracy_top_5": (None, ":.4f"),
    "eval_macro_recall": (None, ":.4f"),
    "eval_macro_f1": (None, ":.4f"),
    "eval_examples": (None, ":.0f"),
    "eval_unreadable": (None, ":.0f"),
    "avg_exp_per_second_eval": ("images/s", ":.1f"),
    "avg_exp_per_second_eval_per_GPU": ("images/s", ":.1f"),
    "avg_time_per_exp_eval": ("ms", ":.2f"),
    "latency_50pct": ("ms", ":.2f"),
    "latency_90pct": ("ms", ":.2f"),
    "latency_95pct": ("ms", ":.2f"),
    "latency_99pct": ("ms", ":.2f"),
}


def evaluate(
    eval_step: Callable,
    batches: Iterable[Any],
    batch_size: int,
    *,
    prof: int | None = None,
    asked: Callable[[], bool] | None = None,
) -> dict[str, float]:
    """Runs one pass and returns the metrics, the same on every rank.

    Padding has weight 0, and ranks exchange sums instead of means, so the result does not depend on
    their number. Times are per batch and rank, without the first batch, which compiles.

    Args:
        eval_step: an `EvalStep`, or another function from a batch to its sums.
        batches: this rank's `(images, labels, weights)`; every rank has the same number of batches.
        batch_size: images in a batch of one rank.
        prof: stop after this many batches.
        asked: returns whether this rank was asked to stop. All ranks pass one, or none does.

    Returns:
        The names in `UNITS`; `eval_macro_…` if `eval_step` counts by class. Accuracies are
        fractions, latencies milliseconds per batch; with a single batch, its own time replaces the
        missing ones.

    Raises:
        Abandoned: a rank was asked to stop; raised on every rank, after at most about
            `_AGREE_SECONDS`.
        DataError: a rank's batches raised it; raised on every rank.
    """
    total, agreement = MeanAccumulator(), Agreement(asked)
    times: list[float] = []
    batches = iter(batches)
    if isinstance(eval_step, CountingByClass):
        eval_step.begin()
    watchdog.rest("beginning an evaluation")
    agreement.settle(0)
    while True:
        number = f"batch {len(times) + 1} of the evaluation"
        if times:
            watchdog.await_data(f"waiting for the data of {number}")
        batch = _next(batches, agreement)
        if batch is not None:
            if times:  # the first batch compiles
                watchdog.mark(f"computing {number}", usual=times[-1])
            start = time.perf_counter()
            sums = np.asarray(eval_step(*batch))
            times.append(time.perf_counter() - start)
            total.update(sums)
        ended = batch is None or len(times) == prof
        if ended or agreement.due(len(times)):
            agreement.settle(len(times), ended)
        if ended:
            break
    found = _figures(total, times, batch_size) | _over_classes(eval_step)
    return {name: found[name] for name in UNITS if name in found}  # in the order of printing


def _next(batches: Iterator[Batch], agreement: Agreement) -> Batch | None:
    """Returns the next batch; None at the end, or in trouble, of which the other ranks learn."""
    try:
        return next(batches, None)
    except DataError as error:
        agreement.trouble = str(error)
        return None


def _over_classes(eval_step: Callable) -> dict[str, float]:
    """Counts each class once, however many examples it has.

    Returns:
        The mean recall of the classes with examples, and the mean F1 of those with examples or
            answers.
    """
    if not isinstance(eval_step, CountingByClass):
        return {}
    found = of_totals(*eval_step.totals())
    recall = found.recall[found.support > 0]
    return {
        "eval_macro_recall": float(recall.mean()) if recall.size else math.nan,
        "eval_macro_f1": found.means()["f1"] if recall.size else math.nan,
    }


def _figures(total: MeanAccumulator, times: list[float], batch_size: int) -> dict[str, float]:
    """Converts this rank's sums and seconds per batch to the result of `evaluate`."""
    watchdog.rest("gathering the results of evaluation")
    total = MeanAccumulator.from_array(ranks.all_sum(total.as_array()))
    # Use all ranks' times, so that a slow rank shows in the percentiles.
    seconds = ranks.all_gather(np.asarray(times[1:] or times, np.float64))
    result = total.result()
    per_rank = batch_size / float(np.mean(seconds))
    latency = percentiles(seconds * 1e3, (50, 90, 95, 99))
    return {
        "eval_loss": result["loss"],
        "eval_accuracy_top_1": result["top1"],
        "eval_accuracy_top_5": result["top5"],
        "eval_examples": total.weight,
        "avg_exp_per_second_eval": per_rank * ranks.size(),
        "avg_exp_per_second_eval_per_GPU": per_rank,
        "avg_time_per_exp_eval": float(np.mean(seconds)) * 1e3,
        **{f"latency_{q}pct": latency[q] for q in (50, 90, 95, 99)},
    }


class Abandoned(Exception):
    """A pass was given up, on every rank after the same batch, because one was asked to stop."""


class Agreement:
    """Lets ranks agree during a pass, so that all of them leave it at the same place.

    At certain batches, the same on every rank, each rank reports whether it was asked to stop and
    whether it is in trouble. A rank in trouble goes to the next such place at once, and waits
    there: all ranks have the same number of batches, and so of places.

    Args:
        asked: returns whether this rank was asked to stop; None: the only place is the end.

    Attributes:
        trouble: why this rank cannot continue; "" if it can.
    """

    def __init__(self, asked: Callable[[], bool] | None) -> None:
        self.trouble = ""
        self._asked = asked
        self._next = math.inf
        self._since, self._at = monotonic(), 0

    def due(self, done: int) -> bool:
        """Returns whether all ranks exchange reports after this many batches."""
        return done >= self._next

    def settle(self, done: int, ended: bool = False) -> None:
        """Exchanges reports after `done` batches or at the end of the pass. All ranks must call it.

        Raises:
            Abandoned, DataError: see `evaluate`.
        """
        if self._asked is None and not ended:
            return
        if self.trouble or ended:
            watchdog.rest("waiting for the other ranks to end the evaluation")
        now = monotonic()
        seconds = (now - self._since) / max(done - self._at, 1)
        stop = self._asked is not None and self._asked()
        told = ranks.all_gather(np.array([[stop, bool(self.trouble), seconds]], np.float64))
        stop, trouble, seconds = told.max(axis=0)
        if trouble:
            texts = ranks.all_gather_object(self.trouble)
            raise DataError("; ".join(dict.fromkeys(filter(None, texts))))
        if stop and not ended:
            raise Abandoned
        # Use the slowest rank's time. The first batches compile, which takes an unknown time.
        batches = int(_AGREE_SECONDS / max(seconds, 1e-6)) if done > 1 else 1
        alone = ranks.size() == 1  # a single rank exchanges for free
        self._next = done + (1 if alone else max(1, batches))
        self._since, self._at = now, done


def evaluate_data(
    eval_step: Callable,
    data: DataLoader,
    config: Config,
    *,
    prof: int | None = None,
    asked: Callable[[], bool] | None = None,
) -> dict[str, float]:
    """Runs `evaluate` on all batches of a validation loader.

    Unreadable images have weight 0; their number is checked at the end, when all of them are known.

    Args:
        eval_step: as in `evaluate`.
        data: from `runtime.builders.inputs.build_loader`.
        config: for its batch size and `max_bad_eval_examples`.
        prof: as in `evaluate`.
        asked: as in `evaluate`.

    Returns:
        The result of `evaluate` and, if images were left out, `eval_unreadable`, their number.

    Raises:
        Abandoned, DataError: as in `evaluate`; or more images are unreadable than
            `--max_bad_eval_examples` allows: the text names them.
    """
    data.lenient = True
    values = evaluate(eval_step, data.batches(0), config.eval_batch_size, prof=prof, asked=asked)
    bad: dict[int, str] = {}
    for others in ranks.all_gather_object(dict(data.bad_examples)):
        bad.update(others)
    check_bad_examples(bad, data.num_examples, config.max_bad_eval_examples, training=False)
    return values | ({"eval_unreadable": float(len(bad))} if bad else {})


def evaluate_checkpoint(config: Config) -> dict[str, Any]:
    """Runs `--mode eval`: evaluates the flags' checkpoint or file on the validation split."""
    from convoy.runtime.builders.inference import for_inference
    from convoy.runtime.builders.inputs import build_loader
    from convoy.runtime.builders.trained_model import for_classes_of, trained_model
    from convoy.runtime.evaluate.step import EvalStep

    trained = trained_model(config)
    announce(trained, config)
    classes = trained.model.output_shape[-1]
    adapt = for_classes_of(trained, config)
    loader = build_loader(config, "validation", num_classes=classes, adapt=adapt)
    step = EvalStep(for_inference(trained.model, config.use_xla), config.use_xla)
    return evaluate_data(step, loader, config, prof=config.prof)


def announce(trained: Trained, config: Config) -> None:
    """Says on rank 0 which weights are evaluated, before the report on their data."""
    from convoy.runtime.settings.images import image_size, likeness

    size = image_size(config)
    if ranks.rank() == 0:
        print(f"evaluating {trained.text} at {size} px{likeness(config, size)}", flush=True)
