"""The native operations of training against NumPy and TensorFlow in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from convoy.model import native
from tests.model.float64 import CLOSE, distance, double, drawn

SHAPES = [(4, 7, 7, 24), (3, 5, 5, 13), (2, 16, 16, 300), (2, 64, 64, 16), (1, 3, 3, 1)]
MAPS = [(3, 8, 8, 24), (2, 7, 5, 37), (1, 1, 1, 200), (2, 112, 112, 32)]


def batch_norm(x, gamma, beta, dy, shortcut, activation, epsilon=1e-3):
    """Returns result, mean, variance and gradients by the formulas of Ioffe and Szegedy."""
    axes, count = (0, 1, 2), x.size / x.shape[-1]
    mean, variance = x.mean(axes), x.var(axes)
    scale = 1 / np.sqrt(variance + epsilon)
    normal = (x - mean) * scale
    z = gamma * normal + beta + (0 if shortcut is None else shortcut)
    gate = 1 / (1 + np.exp(-z))
    y = {"linear": z, "relu": np.maximum(z, 0), "silu": z * gate}[activation]
    slope = {"linear": 1, "relu": z > 0, "silu": gate + z * gate * (1 - gate)}[activation]
    dz = dy * slope
    dbeta, dgamma = dz.sum(axes), (dz * normal).sum(axes)
    dx = gamma * scale * (dz - dbeta / count - normal * dgamma / count)
    return y, mean, variance, dx, dgamma, dbeta, dz


@pytest.mark.parametrize("joined", [False, True], ids=["alone", "shortcut"])
@pytest.mark.parametrize("dtype", native.DTYPES)
def test_batch_norm_and_its_gradients_are_close_to_float64(ops, level, dtype, joined):
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        for activation in native.ACTIVATIONS:
            x, dy = drawn(rng, shape, dtype, 30, 2), drawn(rng, shape, dtype)
            gamma, beta = (
                drawn(rng, shape[-1:], "float32", 1, 0.3),
                drawn(rng, shape[-1:], "float32"),
            )
            shortcut = [drawn(rng, shape, dtype)] if joined else []
            with tf.GradientTape() as tape:
                tape.watch([x, gamma, beta, *shortcut])
                y, mean, variance = native.batch_norm(
                    ops, x, gamma, beta, 1e-3, activation, *shortcut
                )
            found = y, mean, variance, *tape.gradient(y, [x, gamma, beta, *shortcut], dy)
            assert y.dtype == found[3].dtype == found[-1 if joined else 0].dtype == dtype
            arguments = (double(a) for a in (x, gamma, beta, dy))
            expected = batch_norm(*arguments, double(shortcut[0]) if joined else None, activation)
            places = ("y", "mean", "variance", "dx", "dgamma", "dbeta", "dshortcut")
            for place, one, other in zip(places, found, expected, strict=False):
                bound = CLOSE[dtype] if place in ("y", "dx", "dshortcut") else 2e-5
                if dtype == "bfloat16" and activation == "silu":
                    bound = max(bound, 1e-4)  # the exponential for bfloat16 is only this exact
                if joined and dtype == "bfloat16" and place in ("dx", "dgamma", "dbeta"):
                    bound = 2 * CLOSE[dtype]  # computed from dshortcut, which is already rounded
                assert distance(one, other) < bound, (shape, activation, place)


@pytest.mark.parametrize("dtype", native.DTYPES)
@pytest.mark.parametrize("shape", [(2, 512, 512, 16), (1, 1013, 997, 9)], ids=["even", "uneven"])
def test_batch_norm_of_tensors_larger_than_the_caches_is_close_to_float64(ops, dtype, shape):
    rng = np.random.default_rng(8)
    x, dy = (tf.cast(rng.standard_normal(shape, np.float32), dtype) for _ in range(2))
    gamma, beta = (drawn(rng, shape[-1:], "float32") for _ in range(2))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y, *_ = native.batch_norm(ops, x, gamma, beta, 1e-3, "relu")
    found = y, tape.gradient(y, x, dy)
    expected = batch_norm(*(double(a) for a in (x, gamma, beta, dy)), None, "relu")
    for one, other in zip(found, (expected[0], expected[3]), strict=True):
        # Where ReLU's argument is nearly 0, either side's gradient is right.
        off = np.abs(double(one) - other) > CLOSE[dtype] * np.abs(other).max()
        assert off.mean() < 1e-6


@pytest.mark.parametrize("dtype", native.DTYPES)
@pytest.mark.parametrize("shape", MAPS)
def test_the_gate_and_its_gradients_are_close_to_float64(ops, level, dtype, shape):
    rng = np.random.default_rng(2)
    x, dy = drawn(rng, shape, dtype), drawn(rng, shape, dtype)
    gate = drawn(rng, (shape[0], 1, 1, shape[-1]), dtype)
    with tf.GradientTape() as tape:
        tape.watch([x, gate])
        y = native.gated(ops, x, gate)
    dx, dgate = tape.gradient(y, [x, gate], dy)
    assert distance(y, double(x) * double(gate)) < CLOSE[dtype]
    assert distance(dx, double(dy) * double(gate)) < CLOSE[dtype]
    expected = (double(dy) * double(x)).sum((1, 2), keepdims=True)
    assert distance(dgate, expected) < CLOSE[dtype]


@pytest.mark.parametrize("dtype", native.DTYPES)
@pytest.mark.parametrize("shape", MAPS)
def test_the_squeeze_and_its_gradient_are_close_to_float64(ops, level, dtype, shape):
    rng = np.random.default_rng(9)
    x, dmaps = drawn(rng, shape, dtype, 3), drawn(rng, shape, dtype)
    dmean = drawn(rng, (shape[0], 1, 1, shape[-1]), dtype, deviation=shape[1] * shape[2])
    with tf.GradientTape() as tape:
        tape.watch(x)
        maps, mean = native.squeeze(ops, x)
    dx = tape.gradient((maps, mean), x, (dmaps, dmean))
    np.testing.assert_array_equal(maps, x)
    assert distance(mean, double(x).mean((1, 2), keepdims=True)) < CLOSE[dtype]
    assert distance(dx, double(dmaps) + double(dmean) / (shape[1] * shape[2])) < CLOSE[dtype]


@pytest.mark.parametrize("dtype", native.DTYPES)
@pytest.mark.parametrize("shape", MAPS)
def test_the_gradients_of_a_fork_are_summed(ops, level, dtype, shape):
    rng = np.random.default_rng(10)
    x, first, second = (drawn(rng, shape, dtype) for _ in range(3))
    kept = first.numpy().copy()
    with tf.GradientTape() as tape:
        tape.watch(x)
        one, other = native.forked(ops, x)
    dx = tape.gradient((one, other), x, (first, second))
    np.testing.assert_array_equal(one, x)
    np.testing.assert_array_equal(other, x)
    assert distance(dx, double(first) + double(second)) < CLOSE[dtype]
    # The sum may reuse its first input's memory, but not while another tensor uses it.
    np.testing.assert_array_equal(first.numpy(), kept)


def address(array):
    return np.int64(array.ctypes.data)


@pytest.mark.parametrize("kept", [None, 0, 1], ids=["none", "the first", "the second"])
@pytest.mark.parametrize("name", ["convoy_sum", "convoy_squeeze_gradient"])
def test_a_sum_reuses_the_memory_of_a_term_that_nothing_else_needs(ops, name, kept):
    @tf.function(autograph=False)
    def run(x):
        terms = [x + 1, x + 2 if name == "convoy_sum" else x[:, :1, :1] + 2]
        places = [tf.numpy_function(address, [term], tf.int64) for term in terms]
        with tf.control_dependencies(places):  # then nothing reads the terms afterwards
            result = getattr(ops, name)(**dict(zip(names, terms, strict=True)))
        place = tf.numpy_function(address, [result], tf.int64)
        with tf.control_dependencies([place]):
            needed = [] if kept is None else [terms[kept] * 2]
        return places, place, needed

    names = ("a", "b") if name == "convoy_sum" else ("dmaps", "dmean")
    places, place, _ = run(tf.ones((2, 8, 8, 16)))
    usable = places[:1] if name == "convoy_squeeze_gradient" else places
    free = [p for i, p in enumerate(usable) if i != kept]
    assert (place in free) == bool(free)


def test_a_term_that_is_needed_later_is_not_overwritten(ops):
    x = tf.random.uniform((2, 5, 5, 7), seed=1)

    @tf.function(autograph=False)
    def run(x):
        a, b, mean = x + 1, x + 2, x[:, :1, :1]
        sums = ops.convoy_sum(a=a, b=b), ops.convoy_sum(a=a, b=a), a, b
        return (*sums, ops.convoy_squeeze_gradient(dmaps=a, dmean=mean))

    total, twice, a, b, dx = run(x)
    np.testing.assert_array_equal(a, x + 1)
    np.testing.assert_array_equal(b, x + 2)
    np.testing.assert_allclose(total, a + b, rtol=1e-6)
    np.testing.assert_allclose(twice, 2 * a, rtol=1e-6)
    np.testing.assert_allclose(dx, a + x[:, :1, :1] / 25, rtol=1e-6)


@pytest.mark.parametrize("joined", [False, True], ids=["alone", "shortcut"])
@pytest.mark.parametrize("dtype", native.DTYPES)
def test_normalising_with_known_statistics_has_the_same_bits(ops, level, dtype, joined):
    rng = np.random.default_rng(4)
    for activation in native.ACTIVATIONS.values():
        x, other = drawn(rng, (3, 5, 5, 13), dtype, 30, 2), drawn(rng, (3, 5, 5, 13), dtype)
        gamma, beta = (drawn(rng, (13,), "float32") for _ in range(2))
        given = {"x": x, "gamma": gamma, "beta": beta, "shortcut": [other] if joined else []}
        given |= {"epsilon": 1e-3, "activation": activation}
        y, mean, variance = ops.convoy_batch_norm(**given)
        again = ops.convoy_normalize(mean=mean, variance=variance, **given)
        np.testing.assert_array_equal(again, y)


@pytest.mark.parametrize("needed", [False, True], ids=["free", "needed later"])
@pytest.mark.parametrize("joined", [False, True], ids=["alone", "shortcut"])
def test_a_gradient_of_batch_norm_takes_the_place_of_the_one_above(ops, joined, needed):
    x, one = tf.random.normal((2, 8, 8, 16), seed=1), tf.ones(16)

    @tf.function
    def run(x):
        dy = x * 3
        place = tf.numpy_function(address, [dy], tf.int64)
        with tf.control_dependencies([place]):  # then nothing reads dy afterwards
            shortcut = [x + 1] if joined else []
            dx, _, _, dshortcut = ops.convoy_batch_norm_gradient(
                dy=dy, x=x, gamma=one, beta=one, mean=one, variance=one, shortcut=shortcut,
                epsilon=1e-3, activation=2,
            )  # fmt: skip
        found = dshortcut[0] if joined else dx
        later = tf.numpy_function(address, [found], tf.int64)
        with tf.control_dependencies([later]):
            kept = dy * 2 if needed else x
        return place, later, dx, kept

    place, later, dx, kept = run(x)
    assert (place == later) == (not needed)
    again = run(x + 0)[2]
    np.testing.assert_array_equal(dx, again)
    if needed:
        np.testing.assert_array_equal(kept, x * 3 * 2)


@pytest.mark.parametrize("needed", [False, True], ids=["free", "needed later"])
@pytest.mark.parametrize("name", ["depthwise", "gate"])
def test_an_inputs_gradient_takes_the_place_of_the_input(ops, name, needed):
    rng = np.random.default_rng(6)
    dy = drawn(rng, (2, 8, 8, 20), "float32")
    settings = {"kernel": drawn(rng, (3, 3, 20, 1), "float32"), "stride": 1}
    settings |= {"pad_top": 1, "pad_left": 1}
    if name == "gate":
        settings = {"gate": drawn(rng, (2, 1, 1, 20), "float32")}
    gradients = getattr(ops, f"convoy_{name}_gradient")

    @tf.function(autograph=False)
    def run(dy):
        x = dy * 3
        place = tf.numpy_function(address, [x], tf.int64)
        with tf.control_dependencies([place]):  # then nothing reads x afterwards
            found = gradients(dy=dy, x=x, **settings)
        later = tf.numpy_function(address, [found[0]], tf.int64)
        with tf.control_dependencies([later]):
            kept = x * 2 if needed else dy * 6
        return place, later, kept, found

    place, later, kept, found = run(dy)
    assert (place == later) == (not needed)
    np.testing.assert_array_equal(kept, dy * 3 * 2)
    x = dy * 3  # a variable of Python holds it, so this call cannot take its place
    for one, other in zip(found, gradients(dy=dy, x=x, **settings), strict=True):
        np.testing.assert_array_equal(one, other)


def test_results_have_the_same_bits_with_any_number_of_threads(ops):
    rng = np.random.default_rng(5)
    x, dy = (drawn(rng, (8, 28, 28, 48), "float32") for _ in range(2))
    kernel, ones = drawn(rng, (5, 5, 48, 1), "float32"), tf.ones(48)

    def results():
        y, mean, variance = ops.convoy_batch_norm(
            x=x, gamma=ones, beta=ones, shortcut=[dy], epsilon=1e-3, activation=2
        )
        more = ops.convoy_batch_norm_gradient(
            dy=dy, x=x, gamma=ones, beta=ones, mean=mean, variance=variance, shortcut=[x],
            epsilon=1e-3, activation=2,
        )  # fmt: skip
        last = ops.convoy_depthwise_gradient(
            dy=dy, x=x, kernel=kernel, stride=1, pad_top=2, pad_left=2
        )
        _, squeezed = native.squeeze(ops, x)
        more = [*keras.tree.flatten(more), squeezed, *ops.convoy_gate_gradient(dy, x, squeezed)]
        more += [ops.convoy_squeeze_gradient(x, squeezed), ops.convoy_sum(x, dy)]
        return [t.numpy().tobytes() for t in (y, mean, variance, *more, *last)]

    try:
        found = []
        for threads in (1, 2, 5):
            native.controls().convoy_set_threads(threads)
            found.append(results())
    finally:
        native.controls().convoy_set_threads(0)
    assert found[0] == found[1] == found[2]


def test_nan_and_infinity_reach_the_results_of_their_channel(ops):
    for bad in (np.nan, np.inf):
        x = np.ones((2, 4, 4, 3), np.float32)
        x[1, 2, 3, 1] = bad
        y, mean, variance = native.batch_norm(
            ops, tf.constant(x), tf.ones(3), tf.ones(3), 1e-3, "silu"
        )
        for statistic in (mean, variance):
            assert np.isfinite(statistic.numpy()).tolist() == [True, False, True]
        assert not np.isfinite(y.numpy()[..., 1]).any()
        assert np.isfinite(y.numpy()[..., ::2]).all()


def test_the_variance_of_large_values_is_exact(ops):
    x = np.random.default_rng(6).normal(1e4, 1, (8, 16, 16, 5)).astype(np.float32)
    _, mean, variance = native.batch_norm(
        ops, tf.constant(x), tf.ones(5), tf.ones(5), 1e-3, "linear"
    )
    np.testing.assert_allclose(mean, x.mean((0, 1, 2), np.float64), rtol=1e-7)
    np.testing.assert_allclose(variance, x.var((0, 1, 2), np.float64), rtol=1e-4)
