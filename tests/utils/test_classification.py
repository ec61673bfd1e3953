"""Classification metrics against scikit-learn and SciPy."""

import tracemalloc

import numpy as np
import pytest
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import classification_report, confusion_matrix, precision_recall_fscore_support

from convoy.utils import classification as c


@pytest.fixture(scope="module", params=[3, 10, 200])
def answers(request):
    """Labels, predictions and confidences; some classes never occur, some are never predicted."""
    rng = np.random.default_rng(request.param)
    classes, count = request.param, 997
    labels = rng.integers(0, classes - classes // 10, count)
    predicted = np.where(
        rng.random(count) < 0.7, labels, rng.integers(classes // 8, classes, count)
    )
    return classes, labels, predicted, rng.beta(5, 2, count).astype(np.float32)


def test_the_confusion_matrix_equals_scikit_learns(answers):
    classes, labels, predicted, _ = answers
    want = confusion_matrix(labels, predicted, labels=range(classes))
    np.testing.assert_array_equal(c.confusion(labels, predicted, classes).matrix, want)


def test_metrics_by_class_equal_scikit_learns(answers):
    classes, labels, predicted, _ = answers
    got = c.by_class(c.confusion(labels, predicted, classes))
    want = precision_recall_fscore_support(
        labels, predicted, labels=range(classes), zero_division=0
    )
    absent = ~np.isin(np.arange(classes), np.concatenate([labels, predicted]))
    for mine, theirs in zip((got.precision, got.recall, got.f1), want, strict=False):
        np.testing.assert_allclose(mine[~absent], theirs[~absent], rtol=1e-12)
        assert np.isnan(mine[absent]).all()
    np.testing.assert_array_equal(got.support, want[3])
    judged = classification_report(labels, predicted, output_dict=True, zero_division=0)
    for weighted, name in ((False, "macro avg"), (True, "weighted avg")):
        means = got.means(weighted)
        assert means["precision"] == pytest.approx(judged[name]["precision"], rel=1e-12)
        assert means["recall"] == pytest.approx(judged[name]["recall"], rel=1e-12)
        assert means["f1"] == pytest.approx(judged[name]["f1-score"], rel=1e-12)


def test_confused_pairs_are_the_largest_cells_off_the_diagonal(answers):
    classes, labels, predicted, _ = answers
    found = c.confusion(labels, predicted, classes)
    matrix, pairs = found.matrix, c.confused_pairs(found, 7)
    counts = sorted((matrix - np.diag(np.diag(matrix))).ravel())[::-1][:7]
    assert [pair.count for pair in pairs] == [n for n in counts if n]
    for pair in pairs:
        assert pair.label != pair.predicted
        assert np.sum((labels == pair.label) & (predicted == pair.predicted)) == pair.count
    assert pairs == sorted(pairs, key=lambda pair: (-pair.count, pair.label, pair.predicted))
    assert c.confused_pairs(c.confusion(labels, labels, classes), 7) == []


def test_memory_of_50_000_classes_grows_with_the_predictions_not_the_matrix():
    """The full confusion matrix would take 20 GB."""
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 50_000, (2, 5000))
    tracemalloc.start()
    try:
        found = c.confusion(labels, predicted, 50_000)
        figures, pairs = c.by_class(found), c.confused_pairs(found, 7)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20e6
    assert figures.support.sum() == figures.predicted.sum() == found.count.sum() == 5000
    assert len(pairs) == 7


def test_the_reliability_diagram_equals_scikit_learns(answers):
    _, labels, predicted, confidence = answers
    right = labels == predicted
    got = c.calibration(confidence, right)
    accuracy, mean = calibration_curve(right, confidence.astype(np.float64), n_bins=c.BINS)
    full = got.count > 0
    np.testing.assert_allclose(got.accuracy[full], accuracy, rtol=1e-12)
    np.testing.assert_allclose(got.confidence[full], mean, rtol=1e-12)
    weights = got.count[full] / got.count.sum()
    assert got.count.sum() == len(labels)
    assert got.ece == pytest.approx(np.sum(weights * np.abs(accuracy - mean)), rel=1e-12)
    assert got.mce == pytest.approx(np.abs(accuracy - mean).max(), rel=1e-12)


def test_a_confidence_on_the_edge_of_bins_counts_once():
    edges = np.linspace(0, 1, c.BINS + 1)
    got = c.calibration(edges, np.ones(len(edges)))
    np.testing.assert_array_equal(got.count, [2, *[1] * (c.BINS - 1)])


def test_thresholds_keep_the_predictions_that_reach_them(answers):
    _, labels, predicted, confidence = answers
    right = labels == predicted
    thresholds = np.array([0, 0.25, float(confidence[3]), 0.9, 1.0])
    coverage, accuracy = c.by_threshold(confidence, right, thresholds)
    for threshold, share, correct in zip(thresholds, coverage, accuracy, strict=True):
        kept = confidence.astype(np.float64) >= threshold
        assert share == kept.mean()
        assert correct == right[kept].mean() if kept.any() else np.isnan(correct)


def test_the_bootstrap_interval_agrees_with_scipys(answers):
    _, labels, predicted, _ = answers
    right = (labels == predicted).astype(float)
    judged = stats.bootstrap(
        (right,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    low, high = c.bootstrap_interval(right)
    # Both are random draws; the interval is 0.057 wide.
    assert low == pytest.approx(judged.low, abs=0.003)
    assert high == pytest.approx(judged.high, abs=0.003)


def test_the_interval_of_a_difference_agrees_with_scipys_paired_bootstrap(answers):
    _, labels, predicted, _ = answers
    right = labels == predicted
    other = right ^ (np.random.default_rng(1).random(len(right)) < 0.05)
    judged = stats.bootstrap(
        (right.astype(float), other.astype(float)),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        paired=True,
        n_resamples=4000,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    low, high = c.bootstrap_difference(right, other)
    assert low == pytest.approx(judged.low, abs=0.002)
    assert high == pytest.approx(judged.high, abs=0.002)
    assert c.bootstrap_difference(right, right) == (0, 0)
