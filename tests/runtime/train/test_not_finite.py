"""A loss or a gradient that is not finite: the update is skipped and the cause is named."""

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from convoy.runtime.settings.config import Config
from convoy.runtime.train.loss_scale import LossScale
from convoy.runtime.train.new_state import new_state
from convoy.runtime.train.not_finite import MAX_OVERFLOWS, Health, TrainingError, first_not_finite
from convoy.runtime.train.objective import make_step
from convoy.runtime.train.step import Step, TrainState
from convoy.utils.optim.losses import cross_entropy
from convoy.utils.optim.optimizers import make_optimizer


def steep(logits, labels):
    """Returns a loss whose gradient overflows at large loss scales."""
    return 1e10 * cross_entropy(logits, labels, smoothing=0.0)


def make(scale=None):
    layers = keras.layers
    inputs = layers.Input((4,))
    x = layers.Dense(5, name="first")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Activation("relu", name="relu")(x)
    model = keras.Model(inputs, layers.Dense(3, name="second")(x))
    optimizer = make_optimizer("momentum")
    optimizer.build(model.trainable_variables)
    state = TrainState(model, optimizer, LossScale(scale or "dynamic", scale is not None))
    step = Step(state, loss=steep if scale else partial(cross_entropy, smoothing=0.0))
    return step, Health(step)


def batch(value=1.0):
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    x[0, 0] *= value
    return tf.constant(x), tf.constant([0, 1, 2, 0, 1, 2]), tf.ones([6])


def arrays(step):
    return [v.numpy() for v in step.state.model.trainable_variables]


def test_a_nan_loss_names_its_first_layer_and_leaves_the_weights_alone():
    step, health = make()
    step.state.model.get_layer("first").kernel.assign(np.full((4, 5), 3e38))
    before = arrays(step)
    batches = [batch(1e3)]
    result = step(batches, 0.1)
    with pytest.raises(TrainingError, match=r"loss was not finite at step 1 .* layer first"):
        health.check(result, batches)
    for old, new in zip(before, arrays(step), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_nan_gradient_of_a_finite_loss_names_its_variable():
    step, health = make()

    def cube_root(logits, labels):  # 0 at 0, where its slope is infinite
        return tf.pow(tf.abs(tf.reduce_sum(logits * 0.0, axis=-1)), 1 / 3)

    step = Step(step.state, loss=cube_root)
    health = Health(step)
    result = step([batch()], 0.1)
    with pytest.raises(TrainingError, match=r"gradient was not finite at step 1 .*second/bias"):
        health.check(result, [batch()])


def test_an_overflow_is_no_error_while_the_loss_scale_can_fall():
    step, health = make("dynamic")
    step.state.loss_scale.scale.assign(1e38)
    for _ in range(3):
        result = step([batch()], 0.1)
        assert not result.finite
        assert result.finite_loss
        health.check(result, [batch()])
    assert step.state.loss_scale.value() == pytest.approx(1e38 / 8)


def test_repeated_overflow_at_a_fixed_loss_scale_is_an_error():
    step, health = make("1e38")
    for _ in range(MAX_OVERFLOWS - 1):
        result = step([batch()], 0.1)
        health.check(result, [batch()])
    result = step([batch()], 0.1)
    with pytest.raises(TrainingError, match=f"in each of the last {MAX_OVERFLOWS} steps"):
        health.check(result, [batch()])


def test_one_clean_step_resets_the_count_of_overflows():
    step, health = make("1e38")
    for number in range(2 * MAX_OVERFLOWS):
        step.state.loss_scale.scale.assign(1.0 if number % 10 == 9 else 1e38)
        result = step([batch()], 0.0)
        health.check(result, [batch()])


def test_the_search_for_nan_handles_layers_with_several_outputs():
    """Models that train on CPUs have such layers: the operations of model/native."""
    config = Config(arch="efficientnet-test", image_size=32, train_batch_size=4)
    state = new_state(config, num_classes=10)
    step = make_step(config, state, micro_steps=1)
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    batches = [(tf.constant(images), tf.constant([1, 2, 3, 4]), tf.ones([4]))]
    assert first_not_finite(step, batches) == ""
    classifier = state.model.trainable_variables[-1]
    classifier.assign(np.full(classifier.shape, np.nan))
    assert first_not_finite(step, batches).startswith("the output of layer")


def test_a_first_epoch_without_an_update_at_a_fixed_loss_scale_is_an_error():
    """A short run ended as if it had trained, with the weights that it began with."""
    step, health = make("1e38")
    for _ in range(2):
        health.check(step([batch()], 0.1), [batch()])
    with pytest.raises(TrainingError, match=r"last 3 steps.* lower --loss_scale, or leave it out"):
        health.check(step([batch()], 0.1), [batch()], ends_epoch=True)


def test_a_later_epoch_may_end_with_an_overflow():
    step, health = make("1e38")
    step.state.step = 5  # resumed
    health.check(step([batch()], 0.1), [batch()], ends_epoch=True)
