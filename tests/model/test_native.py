"""The native training operations against NumPy and TensorFlow in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from convoy.model import native
from convoy.model.layers import Conv2D

# Relative to the largest value: float32 rounding, and half a unit in bfloat16's last place.
CLOSE = {"float32": 3e-6, "bfloat16": 2**-8}
SHAPES = [(4, 7, 7, 24), (3, 5, 5, 13), (2, 16, 16, 300), (2, 64, 64, 16), (1, 3, 3, 1)]


LEVELS = {0: "baseline", 3: "x86-64-v3", 4: "x86-64-v4", 5: "x86-64-v4 with bfloat16"}


@pytest.fixture(params=LEVELS, ids=["baseline", "v3", "v4", "v4 with bfloat16"])
def level(request, ops):
    native.controls().convoy_limit_level(request.param)
    found = native.controls().convoy_level().decode()
    if found != LEVELS[request.param]:
        native.controls().convoy_limit_level(5)
        pytest.skip("this processor lacks those instructions")
    yield found
    native.controls().convoy_limit_level(5)


def drawn(rng, shape, dtype, mean=0.0, deviation=1.0):
    return tf.cast(rng.normal(mean, deviation, shape), dtype)


def double(x):
    return tf.cast(x, tf.float64).numpy()


def distance(found, expected):
    return np.abs(double(found) - expected).max() / np.abs(expected).max()


def as_close_as(theirs, expected, bound):
    """Returns the bound for results of TensorFlow's own operations.

    Without AVX-512 TensorFlow rounds sums of bfloat16 repeatedly, so its results are further from
    float64 than those of the native operations.
    """
    return max(bound, distance(theirs, expected))


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
@pytest.mark.parametrize(
    ("height", "width", "channels", "kernel", "stride", "padding"),
    [
        (14, 14, 48, 3, 1, "same"),
        (15, 13, 40, 5, 2, "same"),
        (16, 16, 35, 3, 2, "same"),
        (4, 4, 72, 5, 1, "same"),
        (9, 9, 70, 7, 1, "same"),
        (9, 10, 16, 2, 1, "same"),
        (17, 17, 33, 3, 2, "valid"),
        (3, 3, 8, 3, 2, "valid"),
    ],
)
def test_depthwise_convolution_and_its_gradients_are_close_to_float64(
    ops, level, dtype, height, width, channels, kernel, stride, padding
):
    rng = np.random.default_rng(1)
    x = drawn(rng, (3, height, width, channels), dtype)
    weights = drawn(rng, (kernel, kernel, channels, 1), dtype)
    exact = [tf.constant(double(x)), tf.constant(double(weights))]
    with tf.GradientTape() as tape:
        tape.watch(exact)
        expected = tf.nn.depthwise_conv2d(*exact, (1, stride, stride, 1), padding.upper())
    dy = drawn(rng, expected.shape, dtype)
    gradients = tape.gradient(expected, exact, tf.cast(dy, tf.float64))
    with tf.GradientTape() as tape:
        tape.watch([x, weights])
        y = native.depthwise(ops, x, weights, stride, padding)
    found = tape.gradient(y, [x, weights], dy)
    theirs = tf.nn.depthwise_conv2d(x, weights, (1, stride, stride, 1), padding.upper())
    assert distance(y, expected.numpy()) <= as_close_as(theirs, expected.numpy(), CLOSE[dtype])
    for one, other in zip(found, gradients, strict=True):
        assert one.dtype == dtype
        assert distance(one, other.numpy()) < CLOSE[dtype]


MAPS = [(3, 8, 8, 24), (2, 7, 5, 37), (1, 1, 1, 200), (2, 112, 112, 32)]


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
    @tf.function
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

    @tf.function
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


@pytest.mark.parametrize("dtype", native.DTYPES)
@pytest.mark.parametrize(
    ("height", "width", "kernel", "stride", "padding"),
    [
        (7, 7, (1, 1), 1, "same"),
        (7, 6, (3, 3), 1, "same"),
        (6, 5, (3, 5), 1, "same"),
        (16, 16, (3, 3), 2, "valid"),
        (15, 13, (3, 3), 2, "valid"),
        (11, 14, (2, 5), 3, "valid"),
        (14, 14, (1, 1), 2, "same"),
        (7, 9, (1, 1), 2, "same"),
    ],
)
def test_convolution_and_its_gradients_are_close_to_float64(
    dtype, height, width, kernel, stride, padding
):
    rng = np.random.default_rng(3)
    x = drawn(rng, (3, height, width, 20), dtype)
    weights = drawn(rng, (*kernel, 20, 24), dtype)
    exact = [tf.constant(double(x)), tf.constant(double(weights))]
    with tf.GradientTape() as tape:
        tape.watch(exact)
        expected = tf.nn.conv2d(*exact, stride, padding.upper())
    dy = drawn(rng, expected.shape, dtype)
    gradients = tape.gradient(expected, exact, tf.cast(dy, tf.float64))

    layer = Conv2D(24, kernel, strides=stride, padding=padding, use_bias=False, dtype=dtype)
    layer.build(x.shape)
    layer.kernel.assign(weights)

    @tf.function
    def run(x, dy):
        with native.enabled(), tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return y, tape.gradient(y, [x, layer.kernel.value], dy)

    @tf.function
    def run_theirs(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.nn.conv2d(x, weights, stride, padding.upper())
        return y, tape.gradient(y, x, dy)

    graph = run.get_concrete_function(x, dy).graph
    assert "Conv2DBackpropFilter" not in {op.type for op in graph.get_operations()}
    y, (dx, dkernel) = run(x, dy)
    dx_exact, dkernel_exact = (gradient.numpy() for gradient in gradients)
    y_theirs, dx_theirs = run_theirs(x, dy)
    assert distance(y, expected.numpy()) <= as_close_as(y_theirs, expected.numpy(), CLOSE[dtype])
    assert distance(dx, dx_exact) <= as_close_as(dx_theirs, dx_exact, 2 * CLOSE[dtype])
    assert distance(dkernel, dkernel_exact) < 2 * CLOSE[dtype]
