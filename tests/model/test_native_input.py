"""The native operations of training refuse invalid input."""

import numpy as np
import pytest
import tensorflow as tf

GOOD = {
    "dy": np.zeros((2, 4, 4, 3), np.float32),
    "x": np.zeros((2, 8, 8, 3), np.float32),
    "kernel": np.zeros((3, 3, 3, 1), np.float32),
    "stride": 2,
    "pad_top": 0,
    "pad_left": 0,
}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dy": np.zeros((1, 4, 4, 3), np.float32)}, "x has the wrong shape"),
        ({"kernel": np.zeros((3, 3, 4, 1), np.float32)}, "the kernel has the wrong shape"),
        ({"kernel": np.zeros((0, 3, 3, 1), np.float32)}, "no values"),
        ({"kernel": np.zeros((17, 17, 3, 1), np.float32)}, "more than 256"),
        ({"dy": np.zeros((2, 9, 4, 3), np.float32)}, "outside"),
        ({"pad_top": 3}, "outside"),
        ({"stride": 0}, "stride is out of range"),
        ({"pad_left": -1}, "pad_left is out of range"),
    ],
)
def test_invalid_input_of_depthwise_gradients_is_refused(ops, wrong, message):
    ops.convoy_depthwise_gradient(**GOOD)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        ops.convoy_depthwise_gradient(**GOOD | wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gamma": np.ones(2, np.float32)}, "gamma has the wrong shape"),
        ({"x": np.zeros((0, 4, 4, 3), np.float32)}, "empty"),
        ({"shortcut": [np.zeros((2, 8, 7, 3), np.float32)]}, "shortcut has the wrong shape"),
        ({"shortcut": 2 * [GOOD["x"]]}, "one shortcut"),
    ],
)
def test_invalid_input_of_batch_norm_is_refused(ops, wrong, message):
    one = np.ones(3, np.float32)
    good = {"x": GOOD["x"], "gamma": one, "beta": one, "shortcut": []}
    settings = {"epsilon": 1e-3, "activation": 0}
    ops.convoy_batch_norm(**good, **settings)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        ops.convoy_batch_norm(**good | wrong, **settings)
    known = {"mean": one, "variance": one}
    ops.convoy_normalize(**good, **known, **settings)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        ops.convoy_normalize(**good | wrong, **known, **settings)
    with pytest.raises(tf.errors.InvalidArgumentError, match="variance has the wrong shape"):
        ops.convoy_normalize(**good, **known | {"variance": one[:2]}, **settings)


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("gate", {"x": GOOD["x"], "gate": np.zeros((2, 1, 1, 4), np.float32)}, "gate has the"),
        ("squeeze", {"x": np.zeros((2, 0, 4, 3), np.float32)}, "no pixels"),
        ("squeeze_gradient", {"dmaps": GOOD["x"], "dmean": GOOD["x"]}, "dmean has the wrong"),
        ("sum", {"a": GOOD["x"], "b": GOOD["dy"]}, "b has the wrong shape"),
    ],
)
def test_invalid_input_of_squeeze_and_excitation_is_refused(ops, name, wrong, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        getattr(ops, f"convoy_{name}")(**wrong)
