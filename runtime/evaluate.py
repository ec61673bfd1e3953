"""Evaluation that counts every example once, over any number of ranks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from convoy.utils import distributed, watchdog, xla
from convoy.utils.metrics import MeanAccumulator, batch_sums, percentiles

# Metric → (unit, format) for the log.
UNITS = {
    "eval_loss": ("nats", ":.4f"),
    "eval_accuracy_top_1": (None, ":.4f"),
    "eval_accuracy_top_5": (None, ":.4f"),
    "eval_examples": (None, ":.0f"),
    "avg_exp_per_second_eval": ("images/s", ":.1f"),
    "avg_exp_per_second_eval_per_GPU": ("images/s", ":.1f"),
    "avg_time_per_exp_eval": ("ms", ":.2f"),
    "latency_50pct": ("ms", ":.2f"),
    "latency_90pct": ("ms", ":.2f"),
    "latency_95pct": ("ms", ":.2f"),
    "latency_99pct": ("ms", ":.2f"),
}


def make_eval_step(model: keras.Model, use_xla: bool = False) -> Callable:
    """A compiled function from a batch to float64 `(4,)`: sums of loss, top-1, top-5 and weight.

    The loss is plain cross-entropy: label smoothing belongs to training.
    """

    def eval_step(images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return batch_sums(model(images, training=False), labels, weights)

    return xla.function(eval_step, use_xla)


def evaluate(
    eval_step: Callable, batches: Iterable[Any], batch_size: int, *, prof: int | None = None
) -> dict[str, float]:
    """Runs one pass and returns the metrics, the same on every rank.

    Padding carries weight 0, and sums rather than means travel between ranks, so the result does
    not depend on their number. Times are per batch and rank, without the first batch, which
    compiles.

    Args:
        eval_step: from `make_eval_step`.
        batches: this rank's `(images, labels, weights)`; every rank has the same number.
        batch_size: images in a batch of one rank.
        prof: stop after this many batches.

    Returns:
        The names in `UNITS`. Accuracies are fractions, latencies milliseconds per batch; with a
        single batch its own time stands in for the missing ones.
    """
    total, times = MeanAccumulator(), []
    for number, (images, labels, weights) in enumerate(batches):
        start = time.perf_counter()
        sums = eval_step(images, labels, weights).numpy()
        times.append(time.perf_counter() - start)
        total.update(sums)
        # The first batch compiles, and may be alone.
        watchdog.mark(f"evaluating batch {number + 2}", usual=times[-1])
        if prof is not None and number + 1 >= prof:
            break
    watchdog.rest("gathering the results of evaluation")
    total = MeanAccumulator.from_array(distributed.all_sum(total.as_array()))
    times = times[1:] or times
    # All ranks' times, so that a slow rank shows in the percentiles.
    times = distributed.all_gather(np.asarray(times, np.float64))
    result = total.result()
    per_rank = batch_size / float(np.mean(times))
    latency = percentiles(times * 1e3, (50, 90, 95, 99))
    return {
        "eval_loss": result["loss"],
        "eval_accuracy_top_1": result["top1"],
        "eval_accuracy_top_5": result["top5"],
        "eval_examples": total.weight,
        "avg_exp_per_second_eval": per_rank * distributed.size(),
        "avg_exp_per_second_eval_per_GPU": per_rank,
        "avg_time_per_exp_eval": float(np.mean(times)) * 1e3,
        **{f"latency_{q}pct": latency[q] for q in (50, 90, 95, 99)},
    }


def evaluate_checkpoint(config: Any) -> dict[str, Any]:
    """`--mode eval`: the checkpoint or weight file that the flags name, on the validation split."""
    from convoy.runtime.build import build_loader
    from convoy.runtime.trained import for_classes_of, trained_model

    trained = trained_model(config)
    if distributed.rank() == 0:
        print(f"evaluating {trained.text}", flush=True)
    classes = trained.model.output_shape[-1]
    adapt = for_classes_of(trained, config)
    loader = build_loader(config, "validation", num_classes=classes, adapt=adapt)
    step = make_eval_step(trained.model, config.use_xla)
    return evaluate(step, loader.batches(0), config.eval_batch_size, prof=config.prof)
