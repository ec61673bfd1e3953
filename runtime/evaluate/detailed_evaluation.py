"""Runs `--mode eval --report`: details behind the accuracy, for one or several evaluations.

Each evaluation is the pass of `--mode eval`, with the same sums. In addition it records every
example's label, answer and confidence (48 bytes per example, whatever the number of classes), and
joins them over ranks at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from convoy.dataloader.loader import Loader
from convoy.dataloader.sources.file_names import file_names
from convoy.dataloader.sources.source import Source
from convoy.runtime.builders.inference import for_inference
from convoy.runtime.builders.inputs import build_loader
from convoy.runtime.builders.trained_model import Trained, for_classes_of, trained_model
from convoy.runtime.data.class_names import class_names
from convoy.runtime.evaluate.counting import CountingByClass
from convoy.runtime.evaluate.evaluate import announce, evaluate_data
from convoy.runtime.evaluate.relabel import NONE, label_table, names_for_labels, read_label_file
from convoy.runtime.evaluate.result import Result
from convoy.runtime.evaluate.side_by_side import Variant, check_fit, variants
from convoy.runtime.run_folder.checkpoint import CheckpointError, check_writable
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.images import eval_crop, image_size
from convoy.utils.distributed import ranks
from convoy.utils.errors import ConfigError
from convoy.utils.machine import xla
from convoy.utils.metrics import batch_sums
from convoy.utils.optional import known
from convoy.utils.watchdog import watchdog


def report(config: Config, tell: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """Evaluates, writes the report on rank 0, and returns the figures of the first evaluation.

    Args:
        config: the flags.
        tell: receives these figures before the report is written, as writing may fail.

    Raises:
        ConfigError: `--eval_labels` do not fit, or the models have different classes.
        CheckpointError: a checkpoint cannot be read, its model answers NaN, or the folder is not
            writable.
        DataError: an image cannot be read.
    """
    from convoy.runtime.evaluate.page import report_folder, write_report

    results: list[Result] = []
    source: Source | None = None
    table, asked = None, variants(config)
    ranks.on_rank0(lambda: check_fit(asked))
    ranks.on_rank0(lambda: check_writable(report_folder(config), "--report_dir"))
    for variant in asked:
        trained = trained_model(variant.config)
        announce(trained, variant.config)
        classes = trained.model.output_shape[-1]
        adapt = for_classes_of(trained, config)
        loader = build_loader(
            variant.config, "validation", num_classes=classes, source=source, adapt=adapt
        )
        if not isinstance(loader, Loader):
            raise ConfigError("--report needs images that are read, not made up")
        if config.eval_labels and source is None:
            names = names_for_labels(trained.class_names, loader.class_names, classes)
            table = _labels(config.eval_labels, loader.source, classes, names)
        source = loader.source
        results.append(_evaluate(variant, trained, loader, table))
    tell(results[0].figures)
    watchdog.rest("writing the report")
    ranks.on_rank0(lambda: write_report(config, results, known(source)))
    return results[0].figures


def _labels(file: str, source: Source, classes: int, names: list[str] | None) -> np.ndarray:
    """Returns the `label_table` of all examples; each rank reads the file names of its share."""
    watchdog.rest("reading the names of the images")
    rank, world = ranks.rank(), ranks.size()
    found: list[str | None] = [None] * source.num_examples
    shares = ranks.all_gather_object(file_names(source, range(rank, source.num_examples, world)))
    for other, share in enumerate(shares):
        found[other::world] = share
    return label_table(read_label_file(file), found, classes, names)


def _evaluate(
    variant: Variant, trained: Trained, loader: Loader, table: np.ndarray | None
) -> Result:
    config = variant.config
    model = for_inference(trained.model, config.use_xla)
    recorder = Recorder(model, loader, table, config.use_xla)
    figures = evaluate_data(recorder, loader, config, prof=config.prof)
    rows, confidence = recorder.gather()
    if not np.isfinite(confidence).all():
        raise CheckpointError(
            f"{trained.text} gives logits that are not finite for"
            f" {np.sum(~np.isfinite(confidence))} of {len(confidence)} images; leave out --report"
            " for a plain evaluation, which counts them as wrong"
        )
    index, stored, label, predicted = rows.T
    classes = trained.model.output_shape[-1]
    return Result(
        name=variant.name,
        text=trained.text,
        image_size=image_size(config),
        crop=eval_crop(config),
        figures=figures,
        class_names=class_names(trained.class_names, classes, config.label_file),
        index=index,
        label=label,
        predicted=predicted,
        confidence=confidence,
        stored=None if table is None else float(np.mean(stored == predicted)),
    )


class Recorder(CountingByClass):
    """An evaluation step that also records each example's label, answer and confidence.

    Args:
        model: from images to logits.
        loader: the loader of its batches, from the first on.
        table: the examples' labels (`runtime.evaluate.relabel.label_table`); None uses the data's
            own.
        use_xla: compile the step.
    """

    def __init__(
        self, model: Any, loader: Loader, table: np.ndarray | None = None, use_xla: bool = False
    ) -> None:
        self._loader, self._table = loader, table
        self._step = _make_step(model, use_xla)
        super().__init__(model.output_shape[-1])

    def begin(self) -> None:
        """Starts an evaluation: forgets the rows of the last one."""
        super().begin()
        self._rows: list[np.ndarray] = []
        self._confidence: list[np.ndarray] = []

    def __call__(self, images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """Returns the sums of an `EvalStep`."""
        index, _ = self._loader.drawn(0, len(self._rows) * self._loader.global_batch)
        stored = labels.numpy()
        options = stored[:, None] if self._table is None else self._table[index]
        weights = weights.numpy() * (options[:, 0] != NONE)
        sums, label, predicted, confidence = self._step(images, options, weights)
        label, predicted, counts = label.numpy(), predicted.numpy(), weights > 0
        self.count(label[counts], predicted[counts])
        columns = (index, stored, label, predicted, counts)
        self._rows.append(np.stack(columns, axis=1).astype(np.int64))
        self._confidence.append(confidence.numpy().astype(np.float64))
        return sums

    def gather(self) -> tuple[np.ndarray, np.ndarray]:
        """Gathers all ranks' examples that count, in the order of their numbers.

        Returns:
            int64 `(N, 4)` with number, stored label, label and answer; float64 `(N,)` confidences.
        """
        rows = ranks.all_gather(np.concatenate(self._rows))
        confidence = ranks.all_gather(np.concatenate(self._confidence))
        counts = rows[:, -1] > 0
        rows, confidence = rows[counts, :-1], confidence[counts]
        order = np.argsort(rows[:, 0], kind="stable")
        return rows[order], confidence[order]


def _make_step(model: Any, use_xla: bool) -> Callable:
    """Builds the evaluation of a batch.

    It maps images, int32 labels `(B, L)` and weights to sums, label, answer and confidence.
    """

    def step(images: tf.Tensor, options: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, ...]:
        logits = tf.cast(model(images, training=False), tf.float32)
        # Of several correct labels, take the one with the largest logit: if any is correct at k, it
        # is.
        given = tf.where(
            options == NONE, -np.inf, tf.gather(logits, tf.maximum(options, 0), batch_dims=1)
        )
        best = tf.argmax(given, axis=1, output_type=tf.int32)[:, tf.newaxis]
        label = tf.gather(options, best, batch_dims=1)[:, 0]
        predicted = tf.argmax(logits, axis=1, output_type=tf.int32)
        confidence = tf.reduce_max(tf.nn.softmax(logits), axis=1)
        return batch_sums(logits, label, weights), label, predicted, confidence

    return xla.function(step, use_xla)
