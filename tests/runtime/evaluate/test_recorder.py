"""Recording an evaluation example by example agrees with a plain one, with NumPy and with ReaL."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from convoy.runtime.evaluate import detailed_evaluation
from convoy.runtime.evaluate.detailed_evaluation import Recorder
from convoy.runtime.evaluate.evaluate import evaluate
from convoy.runtime.evaluate.side_by_side import Variant
from convoy.runtime.evaluate.step import EvalStep
from convoy.runtime.run_folder import checkpoint
from convoy.runtime.settings.config import Config
from tests.runtime.evaluate.random_logits import CLASSES, EXAMPLES, METRICS
from tests.runtime.logits import softmax

BATCH = 8


class Loader:
    """A stand-in for a rank's loader: logits in place of images, in the real loader's order."""

    bad_examples, num_examples = {}, EXAMPLES

    def __init__(self, logits, labels, rank=0, world=1):
        self.logits, self.labels, self.rank, self.world = logits, labels, rank, world
        self.global_batch = BATCH * world

    def drawn(self, epoch, offset):
        places = offset + self.rank + self.world * np.arange(BATCH)
        return places % EXAMPLES, None

    def batches(self, epoch=0):
        for offset in range(0, EXAMPLES, self.global_batch):
            places = offset + self.rank + self.world * np.arange(BATCH)
            index = places % EXAMPLES
            weights = (places < EXAMPLES).astype(np.float32)
            yield tuple(map(tf.constant, (self.logits[index], self.labels[index], weights)))


@pytest.mark.parametrize("world", [1, 3])
def test_each_example_is_recorded_once_and_the_metrics_equal_an_evaluations(
    identity, examples, monkeypatch, world
):
    """Runs the ranks in turn, then joins their parts as Horovod's allgather would."""
    logits, labels = examples
    parts, passes = [], []
    monkeypatch.setattr(detailed_evaluation.ranks, "all_gather", lambda mine: mine)
    for rank in range(world):
        loader = Loader(logits, labels, rank, world)
        recorder = Recorder(identity, loader)
        passes.append(evaluate(recorder, loader.batches(), BATCH))
        plain = evaluate(EvalStep(identity), loader.batches(), BATCH)
        assert list(passes[-1]) == list(plain)
        for name in METRICS:
            assert passes[-1][name] == plain[name], name
        parts.append(recorder.gather())
    rows, confidence = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.argsort(rows[:, 0])
    index, stored, label, predicted = rows[order].T
    np.testing.assert_array_equal(index, np.arange(EXAMPLES))
    np.testing.assert_array_equal(stored, labels)
    np.testing.assert_array_equal(label, labels)
    np.testing.assert_array_equal(predicted, logits.argmax(axis=1))
    np.testing.assert_allclose(confidence[order], softmax(logits).max(axis=1), rtol=1e-5)


def test_of_several_labels_the_likeliest_counts(identity, examples):
    """The reference is ReaL's rule: an answer in the list is right; an empty list is left out."""
    logits, labels = examples
    rng = np.random.default_rng(1)
    lists = [
        sorted(set(rng.integers(0, CLASSES, rng.integers(0, 4)).tolist())) for _ in range(EXAMPLES)
    ]
    table = np.full((EXAMPLES, 3), -1, np.int32)
    for row, entry in zip(table, lists, strict=True):
        row[: len(entry)] = entry
    loader = Loader(logits, labels)
    recorder = Recorder(identity, loader, table)
    figures = evaluate(recorder, loader.batches(), BATCH)
    rows, _ = recorder.gather()
    kept = [i for i, entry in enumerate(lists) if entry]
    assert 0 < len(kept) < EXAMPLES
    np.testing.assert_array_equal(rows[:, 0], kept)
    first = logits.argmax(axis=1)
    right = [first[i] in lists[i] for i in kept]
    np.testing.assert_array_equal(rows[:, 2] == rows[:, 3], right)
    assert all(label in lists[i] for i, label in zip(kept, rows[:, 2], strict=True))
    assert figures["eval_accuracy_top_1"] == pytest.approx(np.mean(right))
    five = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    assert figures["eval_accuracy_top_5"] == pytest.approx(
        np.mean([bool(set(five[i]) & set(lists[i])) for i in kept])
    )
    losses = -np.log(softmax(logits))
    want = np.mean([losses[i, lists[i]].min() for i in kept])
    assert figures["eval_loss"] == pytest.approx(want, rel=1e-6)


def test_a_model_that_answers_nan_is_an_error_with_its_name(identity, examples):
    logits = examples[0].copy()
    logits[7, 3] = np.nan
    trained = SimpleNamespace(model=identity, text="runs/x (raw weights)", class_names=None)
    variant = Variant("", Config(arch="efficientnet-test", eval_batch_size=BATCH))
    loader = Loader(logits, examples[1])
    with pytest.raises(checkpoint.CheckpointError, match=r"runs/x .*for 1 of 101 images"):
        detailed_evaluation._evaluate(variant, trained, loader, None)
