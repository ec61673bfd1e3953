"""Percentiles, throughput and means against NumPy."""

import math

import numpy as np
import pytest
import tensorflow as tf

from convoy.utils.metrics import (
    MeanAccumulator,
    Throughput,
    array_sums,
    batch_sums,
    percentiles,
)


def test_percentiles_interpolate_between_values():
    values = list(range(1, 101))
    assert percentiles(values) == {50: 50.5, 90: pytest.approx(90.1), 95: 95.05, 99: 99.01}
    assert percentiles(iter([3.0]), (0, 100)) == {0: 3.0, 100: 3.0}
    assert percentiles(values)[90] > np.mean(values), (
        "a percentile is not the mean of the fastest 90 %"
    )
    with pytest.raises(ValueError, match="nothing"):
        percentiles([])
    with pytest.raises(ValueError, match="range"):
        percentiles([1.0], (101,))


def test_throughput_excludes_the_warm_up():
    meter = Throughput(warmup_steps=2)
    for _ in range(2):
        meter.add(10, 100.0, 100.0)
    for data, compute in ((0.1, 0.4), (0.3, 0.2), (0.0, 1.0)):
        meter.add(10, data, compute)
    got = meter.summary()
    assert got["steps"] == 3
    assert got["images"] == 30
    assert got["total_ips"] == pytest.approx(30 / 2.0)
    assert got["compute_ips"] == pytest.approx(30 / 1.6)
    assert got["data_time"] == pytest.approx(0.4 / 3)
    assert got["compute_time"] == got["compute_latency"] == pytest.approx(1.6 / 3)
    assert got["compute_latency_at50"] == pytest.approx(0.4)
    assert got["compute_latency_at100"] == 1.0
    np.testing.assert_array_equal(meter.compute_times, [0.4, 0.2, 1.0])


def test_throughput_without_steps_is_nan_and_reset_does_not_repeat_the_warm_up():
    meter = Throughput(warmup_steps=1)
    meter.add(8, 1.0, 1.0)
    assert meter.summary()["steps"] == 0
    assert math.isnan(meter.summary()["total_ips"])
    assert math.isnan(meter.summary()["compute_latency_at99"])
    meter.add(8, 1.0, 1.0)
    meter.reset()
    meter.add(8, 1.0, 3.0)
    assert meter.summary()["total_ips"] == 2.0
    with pytest.raises(ValueError, match="warmup_steps"):
        Throughput(-1)


def test_means_over_uneven_ranks_equal_the_mean_over_all_examples():
    rng = np.random.default_rng(3)
    loss, right = rng.exponential(1, 1000), rng.random(1000) < 0.7
    ranks = [MeanAccumulator() for _ in range(3)]
    for part, rank in zip(np.split(np.arange(1000), [17, 900]), ranks, strict=True):
        rank.update([loss[part].sum(), right[part].sum(), len(part), len(part)])
    total = MeanAccumulator.from_array(sum(rank.as_array() for rank in ranks))
    assert total.result()["loss"] == pytest.approx(loss.mean(), rel=1e-14)
    assert total.result()["top1"] == right.mean()
    assert total.result()["top5"] == 1.0
    assert total.weight == 1000
    assert total.as_array().dtype == np.float64


def test_an_empty_accumulator_gives_nan_and_a_wrong_shape_is_refused():
    assert all(math.isnan(v) for v in MeanAccumulator().result().values())
    with pytest.raises(ValueError, match="4 sums"):
        MeanAccumulator().update([1, 2, 3])
    copy = MeanAccumulator().as_array()
    copy += 1
    assert MeanAccumulator().weight == 0


def reference_sums(logits, labels, weights, top):
    """Computes the sums with NumPy in float64."""
    logits = logits.astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    soft = labels if labels.ndim == 2 else np.eye(logits.shape[1])[labels]
    order = np.argsort(-logits, axis=-1)
    true = soft.argmax(-1)
    hit = [np.any(order[:, :k] == true[:, None], -1) for k in (1, top)]
    return [
        (weights * -(soft * log_p).sum(-1)).sum(),
        *((weights * h).sum() for h in hit),
        weights.sum(),
    ]


@pytest.mark.parametrize("classes", [3, 10])
@pytest.mark.parametrize("soft", [False, True])
def test_batch_sums_in_a_graph_equal_numpys_in_float64(classes, soft):
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 2, (64, classes)).astype(np.float32)
    labels = (
        rng.dirichlet(np.ones(classes), 64).astype(np.float32)
        if soft
        else rng.integers(0, classes, 64).astype(np.int32)
    )
    weights = rng.choice([0.0, 1.0, 0.5], 64).astype(np.float32)
    got = tf.function(batch_sums, autograph=False)(logits, labels, weights)
    assert got.dtype == tf.float64
    np.testing.assert_allclose(got, reference_sums(logits, labels, weights, 5), rtol=1e-6)


def test_top_k_breaks_ties_as_argmax_does():
    rng = np.random.default_rng(6)
    logits = rng.integers(0, 4, (200, 10)).astype(np.float32)  # many ties
    labels = rng.integers(0, 10, 200).astype(np.int32)
    got = batch_sums(logits, labels, np.ones(200, np.float32), top=3)
    ranked = np.argsort(-logits, axis=1, kind="stable")
    assert got[1] == np.sum(np.argmax(logits, axis=1) == labels)
    assert got[2] == np.sum((ranked[:, :3] == np.asarray(labels)[:, None]).any(axis=1))


def test_nan_logits_count_as_wrong_and_make_the_loss_nan():
    logits = np.array([[3, 1, np.nan], [np.nan, 1, 2], [9, 1, 2]], np.float32)
    got = batch_sums(logits, np.int32([0, 0, 0]), np.ones(3, np.float32)).numpy()
    assert got[1] == got[2] == 1
    assert got[3] == 3
    assert math.isnan(got[0])


def test_weight_0_excludes_invalid_labels_and_losses():
    logits = np.array([[1, 2], [np.nan, np.inf], [5, 0]], np.float32)
    got = batch_sums(logits, np.int32([1, 0, -1]), np.float32([1, 0, 0])).numpy()
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got[1:], [1, 1, 1])


def test_half_precision_logits_are_summed_in_float64():
    logits = tf.cast(tf.random.stateless_normal((32, 4), (1, 2)), tf.bfloat16)
    labels = np.zeros(32, np.int32)
    got = batch_sums(logits, labels, np.ones(32, np.float32))
    want = reference_sums(tf.cast(logits, tf.float32).numpy(), labels, np.ones(32), 4)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-6)


def test_invalid_shapes_are_refused():
    logits = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match="labels"):
        batch_sums(logits, np.zeros((2, 3, 1), np.float32), np.ones(2, np.float32))
    with pytest.raises(ValueError, match="top"):
        batch_sums(logits, np.zeros(2, np.int32), np.ones(2, np.float32), top=0)


@pytest.mark.parametrize("classes", [3, 5, 40])
def test_sums_of_arrays_are_those_of_the_graph(classes):
    """Ties, infinite logits and slots that do not count are treated alike."""
    rng = np.random.default_rng(classes)
    logits = rng.integers(-3, 4, (200, classes)).astype(np.float32)
    logits[7], logits[8, 0], logits[9] = 0, np.nan, -1e4 * rng.random(classes)
    labels = rng.integers(0, classes, 200).astype(np.int32)
    weights = rng.integers(0, 2, 200).astype(np.float32)
    weights[8] = 0
    labels[weights == 0] = -5
    want = batch_sums(logits, labels, weights).numpy()
    np.testing.assert_allclose(array_sums(logits, labels, weights), want, rtol=1e-5)
    weights[8], labels[8] = 1, 0
    got = array_sums(logits, labels, weights)
    want = batch_sums(logits, labels, weights).numpy()
    np.testing.assert_array_equal(got[1:], want[1:])
    assert np.isnan(got[0])
    assert np.isnan(want[0])
