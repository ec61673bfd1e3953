"""The exponential moving average against a float64 recurrence, on a real Keras model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from convoy.utils.optim.ema import EMA


@pytest.fixture
def model():
    layers = keras.layers
    made = keras.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(5, name="dense"),
            layers.BatchNormalization(name="bn"),
            layers.Dropout(0.5, seed=1),
        ]
    )
    made(np.random.default_rng(0).normal(size=(16, 6)), training=True)
    return made


def floats(model):
    return [v for v in model.variables if v.dtype.startswith("float")]


def drift(model, step):
    for i, v in enumerate(floats(model)):
        v.assign(v + 0.1 * (i + 1) + 0.01 * step)


@pytest.mark.parametrize(("decay", "warmup"), [(0.9999, True), (0.5, True), (0.9999, False)])
def test_the_average_in_a_graph_follows_the_recurrence(model, decay, warmup):
    assert len(floats(model)) < len(model.variables), "the seed generator's state must be left out"
    ema = EMA(model.variables, decay, warmup=warmup)
    update = tf.function(ema.update, autograph=False)
    want = {v.path: v.numpy().astype(np.float64) for v in floats(model)}
    assert set(want) == set(ema.state())
    assert any("moving_variance" in name for name in want)
    for t in range(40):
        drift(model, t)
        update(tf.constant(t, tf.int64))
        d = min(decay, (1 + t) / (10 + t)) if warmup else decay
        for v in floats(model):
            want[v.path] = d * want[v.path] + (1 - d) * v.numpy().astype(np.float64)
    for name, value in ema.state().items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, want[name], rtol=2e-6, atol=1e-6)


def test_the_small_step_of_a_large_decay_is_exact():
    variable = tf.Variable(0.0, name="w")
    ema = EMA([variable], 0.9999, warmup=False)
    variable.assign(1.0)
    ema.update(0)
    assert ema.state()["w"] == pytest.approx(1e-4, rel=1e-6)


def test_swap_evaluates_the_average_and_restores_the_same_bits(model):
    ema = EMA(model.variables, 0.9)
    drift(model, 0)
    ema.update(0)
    before = [v.numpy() for v in model.variables]
    x = np.ones((2, 6), np.float32)
    raw = model(x).numpy()
    with ema.swap():
        for v in floats(model):
            np.testing.assert_array_equal(v.numpy(), ema.state()[v.path])
        assert not np.allclose(model(x).numpy(), raw)
        with pytest.raises(RuntimeError, match="already"), ema.swap():
            pass
        np.testing.assert_array_equal(floats(model)[0].numpy(), ema.state()[floats(model)[0].path])
    for v, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(v.numpy(), value)


def test_swap_restores_after_an_exception_and_restores_even_nan(model):
    ema = EMA(model.variables, 0.9)
    floats(model)[0].assign(np.full(floats(model)[0].shape, np.nan))
    inside = []

    def evaluate():
        with ema.swap():
            inside.append(np.isfinite(floats(model)[0].numpy()).all())
            raise KeyError

    with pytest.raises(KeyError):
        evaluate()
    assert inside == [True]
    assert np.isnan(floats(model)[0].numpy()).all()
    with ema.swap():
        pass


def test_updates_continue_after_a_swap(model):
    ema = EMA(model.variables, 0.9)
    update = tf.function(ema.update, autograph=False)
    drift(model, 0)
    update(tf.constant(0))
    with ema.swap():
        pass
    kept = ema.state()
    drift(model, 1)
    for name, value in ema.state().items():
        np.testing.assert_array_equal(value, kept[name])
    update(tf.constant(1))
    assert all((ema.state()[name] != kept[name]).any() for name in kept)


def test_state_round_trip_is_exact_and_reset_copies_the_weights(model):
    ema = EMA(model.variables, 0.9)
    drift(model, 0)
    ema.update(3)
    saved = ema.state()
    drift(model, 1)
    ema.update(4)
    ema.load(saved)
    for name, value in ema.state().items():
        np.testing.assert_array_equal(value, saved[name])
    ema.reset()
    for v in floats(model):
        np.testing.assert_array_equal(ema.state()[v.path], v.numpy())
    assert set(ema.shadows) == set(saved)


def test_a_state_of_another_model_is_refused_and_changes_nothing(model):
    ema = EMA(model.variables, 0.9)
    good = ema.state()
    drift(model, 0)
    first, *_, last = good
    with pytest.raises(ValueError, match="another model"):
        ema.load({k: v for k, v in good.items() if k != last})
    with pytest.raises(ValueError, match="unknown"):
        ema.load({**good, "stranger": np.zeros(1)})
    with pytest.raises(ValueError, match="shape"):
        ema.load({**{k: v + 1 for k, v in good.items()}, last: np.zeros((9, 9))})
    np.testing.assert_array_equal(ema.state()[first], good[first])


def test_half_precision_weights_have_a_float32_average():
    variable = tf.Variable(tf.ones(3, tf.bfloat16), name="w")
    ema = EMA([variable], 0.99, warmup=False)
    variable.assign(tf.zeros(3, tf.bfloat16))
    for step in range(3):
        ema.update(step)
    np.testing.assert_allclose(ema.state()["w"], 0.99**3, rtol=1e-6)
    with ema.swap():
        assert variable.dtype == tf.bfloat16
    np.testing.assert_array_equal(variable.numpy().astype(np.float32), 0)


def test_invalid_arguments_are_refused():
    one = tf.Variable(1.0, name="w")
    with pytest.raises(ValueError, match="decay"):
        EMA([one], 1.0)
    with pytest.raises(ValueError, match="no floating-point"):
        EMA([tf.Variable(1, name="n")], 0.9)
    with pytest.raises(ValueError, match="distinct"):
        EMA([one, tf.Variable(2.0, name="w")], 0.9)
