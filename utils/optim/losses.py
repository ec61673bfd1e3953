"""Computes the loss of each example from logits."""

from __future__ import annotations

import tensorflow as tf


def smooth(labels: tf.Tensor, classes: int, smoothing: float) -> tf.Tensor:
    """Smooths labels to float32 distributions `(B, C)`: spreads a share evenly over the C classes.

    Args:
        labels: int `(B,)`, or float `(B, C)` distributions.
        classes: number of classes, C.
        smoothing: that share (Szegedy et al., arXiv:1512.00567, section 7).
    """
    if labels.shape.rank == 1:
        labels = tf.one_hot(labels, classes, dtype=tf.float32)
    return tf.cast(labels, tf.float32) * (1.0 - smoothing) + smoothing / classes


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor, smoothing: float) -> tf.Tensor:
    """Returns the softmax cross-entropy of each example, float32 `(B,)`, in nats.

    Args:
        logits: `(B, C)`.
        labels: see `smooth`.
        smoothing: see `smooth`.
    """
    logits = tf.cast(logits, tf.float32)
    targets = smooth(labels, logits.shape[-1], smoothing)
    return tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits)


def binary_cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, smoothing: float, threshold: float | None = None
) -> tf.Tensor:
    """Returns the sigmoid cross-entropy, averaged over the classes: float32 `(B,)`, in nats.

    Wightman et al. 2021 (arXiv:2110.00476, "ResNet strikes back"), section 3: with mixing, every
    class with more than a small share of an example becomes a target of 1.

    Args:
        logits: `(B, C)`.
        labels: see `smooth`.
        smoothing: see `smooth`.
        threshold: smoothed targets above it become 1 and the others 0; None leaves them soft.
    """
    logits = tf.cast(logits, tf.float32)
    targets = smooth(labels, logits.shape[-1], smoothing)
    if threshold is not None:
        targets = tf.cast(targets > threshold, tf.float32)
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits)
    return tf.reduce_mean(losses, axis=-1)
