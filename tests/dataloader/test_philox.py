import numpy as np
import pytest
import tensorflow as tf

from convoy.dataloader import philox


@pytest.mark.parametrize("shape", [[], [1], [9], [42], [3, 4]])
def test_philox_uniforms_equal_tensorflows(shape):
    rng = np.random.default_rng(0)
    seeds = rng.integers(-(2**31), 2**31, (40, 2)).astype(np.int32).tolist()
    for seed in [[0, 0], [-1, -1], [2**31 - 1, -(2**31)], *seeds]:
        wanted = tf.random.stateless_uniform(shape, seed, alg="philox")
        np.testing.assert_array_equal(philox.uniforms(shape, tf.constant(seed)), wanted)
