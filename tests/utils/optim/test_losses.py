"""Losses against NumPy in float64 and against Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from convoy.utils.optim.losses import binary_cross_entropy, cross_entropy


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("soft", [False, True])
def test_cross_entropy_equals_numpys_in_float64(smoothing, soft):
    rng = np.random.default_rng(0)
    logits = (rng.normal(size=(50, 7)) * 10).astype(np.float32)
    labels = rng.integers(0, 7, 50).astype(np.int32)
    distribution = np.eye(7)[labels]
    if soft:
        distribution = rng.dirichlet(np.ones(7), 50)
        labels = distribution.astype(np.float32)
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    smooth = (1 - smoothing) * distribution + smoothing / 7
    want = -(smooth * log_p).sum(axis=1)
    got = cross_entropy(tf.constant(logits), tf.constant(labels), smoothing)
    assert got.dtype == tf.float32
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-6)


def test_cross_entropy_agrees_with_keras():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20, 5)).astype(np.float32)
    labels = rng.integers(0, 5, 20)
    judge = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=0.1, reduction="none"
    )
    want = judge(np.eye(5)[labels], logits)
    got = cross_entropy(tf.constant(logits), tf.constant(labels), 0.1)
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_binary_cross_entropy_agrees_with_keras(smoothing):
    rng = np.random.default_rng(0)
    logits = (rng.normal(size=(20, 5)) * 5).astype(np.float32)
    labels = rng.integers(0, 5, 20).astype(np.int32)
    targets = np.eye(5, dtype=np.float32)[labels] * (1 - smoothing) + smoothing / 5
    want = keras.losses.BinaryCrossentropy(from_logits=True, reduction="none")(targets, logits)
    got = binary_cross_entropy(tf.constant(logits), tf.constant(labels), smoothing)
    assert got.dtype == tf.float32
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_mixed_targets_above_the_threshold_count_as_present():
    logits = tf.constant([[0.3, -1.0, 2.0, 0.5]])
    mixed = tf.constant([[0.75, 0.25, 0.0, 0.0]])
    got = binary_cross_entropy(logits, mixed, 0.1, threshold=0.2)
    want = keras.losses.BinaryCrossentropy(from_logits=True)(tf.constant([[1.0, 1, 0, 0]]), logits)
    np.testing.assert_allclose(got, [want], rtol=1e-6)
