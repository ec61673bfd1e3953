"""The baseline does the same augmentation as Convoy."""

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.contenders import float_autoaugment
from convoy.dataloader.augment import augmenter, policies


@pytest.fixture(scope="module")
def photo():
    from sklearn.datasets import load_sample_images

    return np.ascontiguousarray(load_sample_images().images[0][100:324, 200:424])


@pytest.mark.parametrize("op", sorted(float_autoaugment.BRANCHES))
@pytest.mark.parametrize("level", [2, 7])
def test_the_baseline_augments_like_our_operations(photo, op, level):
    argument = policies.argument(op, level)
    got = float_autoaugment.BRANCHES[op](tf.cast(photo, tf.float32), tf.constant(float(argument)))
    wanted = augmenter.apply_op(
        tf.constant(photo),
        tf.constant(policies.OPS.index(op)),
        tf.constant(argument, tf.float64),
        tf.zeros(2),
    )
    difference = np.abs(got.numpy() - wanted.numpy().astype(np.float32)).reshape(-1)
    # One of them rounds, and some sheared pixels are read half a pixel further on.
    assert np.median(difference) <= 1
    assert difference.mean() < 3
