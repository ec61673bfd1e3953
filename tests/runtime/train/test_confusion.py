"""The confusion matrix that experiment trackers get after each evaluation."""

import keras
import numpy as np
import pytest

from convoy.runtime.settings.config import Config
from convoy.runtime.train import confusion
from convoy.runtime.train.confusion import CountingStep, heat_map, make_counting_step, show_counts
from tests.runtime.logits import identity_model


@pytest.mark.parametrize(
    ("trackers", "classes", "counts"),
    [("tensorboard", 10, True), ("none", 10, False), ("tensorboard", 1025, False)],
)
def test_the_matrix_is_counted_only_for_a_tracker_and_up_to_1024_classes(trackers, classes, counts):
    step = make_counting_step(Config(trackers=trackers), identity_model(classes))
    assert isinstance(step, CountingStep) == counts


def test_the_matrix_counts_examples_with_weight_and_begins_anew_each_time(monkeypatch):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(40, 3)).astype(np.float32)
    labels, weights = rng.integers(0, 3, 40), (rng.random(40) < 0.8).astype(np.float32)
    want = np.zeros((3, 3), np.int64)
    for label, answer, weight in zip(labels, logits.argmax(1), weights, strict=True):
        want[label, answer] += weight > 0
    step, seen = CountingStep(identity_model(3)), []

    class Seen:
        def image(self, name, pixels, number):
            seen.append((name, number, pixels))

    batch = [keras.ops.convert_to_tensor(part) for part in (logits, labels, weights)]
    for name in ("raw", "ema"):
        step.begin()
        sums = step(*batch).numpy()
        assert sums[[1, 3]].tolist() == [np.trace(want), want.sum()]
        show_counts(step, Seen(), name, 7)
    assert [entry[:2] for entry in seen] == [("raw", 7), ("ema", 7)]
    for *_, pixels in seen:
        np.testing.assert_array_equal(pixels, heat_map(want))
    monkeypatch.setattr(confusion.ranks, "rank", lambda: 1)
    show_counts(step, Seen(), "raw", 8)
    assert len(seen) == 2, "only rank 0 draws"
