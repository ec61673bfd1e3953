"""Optimizers against float64 formulas and Keras' own operations; weight decay."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from convoy.utils.optim.optimizers import (
    OPTIMIZERS,
    add_l2,
    decay_decoupled,
    decay_mask,
    l2_coefficient,
    make_optimizer,
)

STEPS = 10
RATES = [0.02 * (i + 1) / STEPS for i in range(STEPS)]


def material():
    rng = np.random.default_rng(7)
    weight = rng.normal(0, 0.5, (3, 4)).astype(np.float32)
    gradients = rng.normal(0, 0.5, (STEPS, 3, 4)).astype(np.float32)
    return weight, gradients


def run(optimizer, before_update=None, path="kernel", compiled=None):
    """Makes ten updates inside a tf.function, each with its own learning rate.

    Returns the weights after each update.
    """
    start, gradients = material()
    variable = keras.Variable(start, name=path)
    optimizer.build([variable])

    @tf.function(jit_compile=compiled, autograph=False)
    def update(gradient, rate):
        optimizer.learning_rate.assign(rate)
        if before_update:
            before_update(variable, rate)
        optimizer.apply([gradient], [variable])

    trace = []
    for gradient, rate in zip(gradients, RATES, strict=True):
        update(tf.constant(gradient), tf.constant(rate, tf.float32))
        trace.append(variable.numpy())
    return np.stack(trace)


def by_formula(step_rule):
    """Makes the same updates in float64.

    `step_rule(state, w, g, lr, t)` returns the new w; t starts at 1.
    """
    start, gradients = material()
    w, state, trace = start.astype(np.float64), {}, []
    for t, (g, lr) in enumerate(zip(gradients.astype(np.float64), RATES, strict=True), 1):
        w = step_rule(state, w, g, lr, t)
        trace.append(w)
    return np.stack(trace)


def sgd(state, w, g, lr, t):
    return w - lr * g


def momentum(state, w, g, lr, t):
    state["m"] = 0.9 * state.get("m", 0.0) - lr * g
    return w + state["m"]


def nesterov(state, w, g, lr, t):
    state["m"] = 0.9 * state.get("m", 0.0) - lr * g
    return w + 0.9 * state["m"] - lr * g


def rmsprop(state, w, g, lr, t):
    state["v"] = 0.8 * state.get("v", 0.0) + 0.2 * g**2
    state["m"] = 0.7 * state.get("m", 0.0) + lr * g / np.sqrt(state["v"] + 0.001)
    return w - state["m"]


def rmsprop_alone(state, w, g, lr, t):
    state["v"] = 0.8 * state.get("v", 0.0) + 0.2 * g**2
    return w - lr * g / np.sqrt(state["v"] + 0.001)


def adam(state, w, g, lr, t):
    state["m"] = 0.9 * state.get("m", 0.0) + 0.1 * g
    state["v"] = 0.99 * state.get("v", 0.0) + 0.01 * g**2
    rate = lr * np.sqrt(1 - 0.99**t) / (1 - 0.9**t)
    return w - rate * state["m"] / (np.sqrt(state["v"]) + 0.001)


def adamw(state, w, g, lr, t):
    return adam(state, w - lr * 0.05 * w, g, lr, t)


def lars(state, w, g, lr, t):
    ratio = 0.01 * norm(w) / (norm(g) + 0.05 * norm(w))
    state["m"] = 0.9 * state.get("m", 0.0) + lr * ratio * (g + 0.05 * w)
    return w - state["m"]


def lars_nesterov(state, w, g, lr, t):
    ratio = 0.01 * norm(w) / (norm(g) + 0.05 * norm(w))
    state["m"] = 0.9 * state.get("m", 0.0) + lr * ratio * (g + 0.05 * w)
    return w - 0.9 * state["m"] - lr * ratio * (g + 0.05 * w)


def lamb(state, w, g, lr, t):
    state["m"] = 0.9 * state.get("m", 0.0) + 0.1 * g
    state["v"] = 0.99 * state.get("v", 0.0) + 0.01 * g**2
    corrected = state["m"] / (1 - 0.9**t), state["v"] / (1 - 0.99**t)
    update = corrected[0] / (np.sqrt(corrected[1]) + 0.001) + 0.05 * w
    return w - lr * norm(w) / norm(update) * update


norm = np.linalg.norm


@pytest.mark.parametrize(
    ("name", "options", "formula"),
    [
        ("sgd", {}, sgd),
        ("momentum", {}, momentum),
        ("momentum", {"nesterov": True}, nesterov),
        ("rmsprop", {"rho": 0.8, "momentum": 0.7}, rmsprop),
        ("rmsprop", {"rho": 0.8, "momentum": 0.0}, rmsprop_alone),
        ("adam", {"beta_2": 0.99}, adam),
        ("adamw", {"beta_2": 0.99}, adamw),
        ("lars", {"weight_decay": 0.05, "trust_coefficient": 0.01}, lars),
        (
            "lars",
            {"weight_decay": 0.05, "trust_coefficient": 0.01, "nesterov": True},
            lars_nesterov,
        ),
        ("lamb", {"weight_decay": 0.05, "beta_2": 0.99}, lamb),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_first_ten_updates_follow_the_formula(name, options, formula):
    def decay(variable, rate):
        decay_decoupled([variable], [True], rate, 0.05)

    got = run(make_optimizer(name, **options), decay if name == "adamw" else None)
    np.testing.assert_allclose(got, by_formula(formula), rtol=0, atol=1e-6)


OWN = {
    "sgd": lambda: keras.optimizers.SGD(0.0),
    "momentum": lambda: keras.optimizers.SGD(0.0, momentum=0.9),
    "nesterov": lambda: keras.optimizers.SGD(0.0, momentum=0.9, nesterov=True),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.0, rho=0.9, momentum=0.9, epsilon=1e-3),
    "adam": lambda: keras.optimizers.Adam(0.0, epsilon=1e-3),
}


@pytest.mark.parametrize("compiled", [False, True], ids=["", "XLA"])
@pytest.mark.parametrize("name", OWN)
def test_updates_and_slots_equal_those_of_keras(name, compiled):
    made = make_optimizer("momentum", nesterov=True) if name == "nesterov" else make_optimizer(name)
    own = OWN[name]()
    exact = name in ("momentum", "nesterov") and not compiled
    bound = {"rtol": 0, "atol": 0 if exact else 1e-6}
    np.testing.assert_allclose(run(made, compiled=compiled), run(own), **bound)
    for one, other in zip(made.variables, own.variables, strict=True):
        assert one.path.split("/")[1:] == other.path.split("/")[1:]
        np.testing.assert_allclose(one.numpy(), other.numpy(), **bound)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_update_does_not_change_arrays_read_before_it(name):
    """Checkpoints are written from these arrays while training continues."""
    optimizer = make_optimizer(name)
    weight = keras.Variable(np.ones((40, 30), np.float32), name="kernel")
    optimizer.build([weight])
    optimizer.learning_rate.assign(0.1)
    update = tf.function(lambda gradient: optimizer.apply([gradient], [weight]), autograph=False)
    update(tf.ones((40, 30)))
    variables = [weight, *optimizer.variables]
    read = [v.value.numpy() for v in variables]
    copies = [np.array(array) for array in read]
    update(tf.ones((40, 30)))
    for array, copy in zip(read, copies, strict=True):
        np.testing.assert_array_equal(array, copy)
    assert (weight.numpy() != copies[0]).all()


def test_lamb_without_weight_decay_equals_kerass():
    ours = make_optimizer("lamb", epsilon=1e-6, weight_decay=1e-30)
    keras_own = keras.optimizers.Lamb(learning_rate=0.0, epsilon=1e-6)
    np.testing.assert_allclose(run(ours), run(keras_own), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "plain"), [("lars", momentum), ("lamb", adam)])
def test_variables_without_weight_decay_are_updated_without_the_trust_ratio(name, plain):
    """LARS moves a bias as momentum does, and LAMB as Adam does."""

    def bias_rule(state, w, g, lr, t):
        if plain is momentum:
            return momentum(state, w, g, lr, t)
        state["m"] = 0.9 * state.get("m", 0.0) + 0.1 * g
        state["v"] = 0.99 * state.get("v", 0.0) + 0.01 * g**2
        root = np.sqrt(state["v"] / (1 - 0.99**t)) + 0.001
        return w - lr * state["m"] / (1 - 0.9**t) / root

    made = make_optimizer(name, weight_decay=0.05, beta_2=0.99)
    np.testing.assert_allclose(run(made, path="bias"), by_formula(bias_rule), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["lars", "lamb"])
def test_a_zero_weight_or_gradient_gives_finite_updates(name):
    made = make_optimizer(name, weight_decay=0.05)
    zeros, ones = np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32)
    variables = [keras.Variable(zeros, name="a_kernel"), keras.Variable(ones, name="b_kernel")]
    made.build(variables)
    made.learning_rate.assign(0.1)
    made.apply([tf.constant(ones), tf.constant(zeros)], variables)
    assert all(np.isfinite(v.numpy()).all() for v in variables)
    assert (variables[0].numpy() < 0).all(), "a zero weight must be able to change"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_keras_adds_no_decay_clipping_or_ema_and_the_learning_rate_starts_at_0(name):
    optimizer = make_optimizer(name)
    assert not optimizer.weight_decay
    assert not optimizer.use_ema
    assert optimizer.clipnorm is optimizer.clipvalue is optimizer.global_clipnorm is None
    assert float(optimizer.learning_rate) == 0.0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("rmspop", {}, "did you mean 'rmsprop'"),
        ("lion", {}, "Known: sgd"),
        ("lars", {"trust_coefficient": 0}, "trust_coefficient"),
        ("adam", {"nesterov": True}, "--nesterov"),
        ("sgd", {"nesterov": True}, "--optimizer momentum"),
        ("momentum", {"momentum": 1.0}, "momentum"),
        ("rmsprop", {"rho": -0.1}, "rho"),
        ("rmsprop", {"epsilon": 0}, "epsilon"),
    ],
)
def test_invalid_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(name, **options)


@pytest.fixture(scope="module")
def small_model():
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((8, 8, 3)),
            layers.Conv2D(4, 3, use_bias=False, name="stem_conv"),
            layers.BatchNormalization(name="stem_bn"),
            layers.DepthwiseConv2D(3, name="block1a_dwconv"),
            layers.SeparableConv2D(4, 3, name="separable"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2, name="predictions"),
        ]
    )


def test_the_decay_mask_goes_by_variable_name(small_model):
    variables = small_model.trainable_variables

    def decayed(**options):
        mask = decay_mask(variables, **options)
        return {v.path.split("/", 1)[-1] for v, on in zip(variables, mask, strict=True) if on}

    names = {v.path.split("/", 1)[-1] for v in variables}
    kernels = {n for n in names if n.endswith("kernel")}
    biases = {n for n in names if n.endswith("bias")}
    norms = {n for n in names if n.endswith(("gamma", "beta"))}
    assert any("dwconv" in n for n in kernels), "a depthwise kernel must count as a kernel"
    assert len(kernels) == 5
    assert len(biases) == 3
    assert len(norms) == 2
    assert decayed() == kernels
    assert decayed(decay_bias=True) == kernels | biases
    assert decayed(bn_weight_decay=True) == kernels | norms


def test_the_decay_mask_excludes_statistics_and_treats_unknown_names_by_rank(small_model):
    bn = small_model.get_layer("stem_bn")
    statistics = [bn.moving_mean, bn.moving_variance]
    assert decay_mask(statistics, bn_weight_decay=True, decay_bias=True) == [False, False]
    plain = [
        tf.Variable(tf.ones((2, 2)), name="tf_layer/kernel"),
        tf.Variable(tf.ones(2), name="tf_layer/bias"),
        tf.Variable(tf.ones((2, 2)), name="position_table"),
        tf.Variable(tf.ones(2), name="temperature"),
    ]
    assert decay_mask(plain) == [True, False, True, False]


def test_coupled_decay_adds_the_gradient_of_the_l2_penalty():
    start, gradients = material()
    variables = [keras.Variable(start, name="kernel"), keras.Variable(start[0], name="bias")]
    wd = 0.03
    with tf.GradientTape() as tape:
        penalty = keras.regularizers.L2(wd)(variables[0])
    keras_gradient = tape.gradient(penalty, variables[0].value)

    @tf.function(autograph=False)
    def decayed(convention):
        return add_l2(
            [tf.constant(gradients[0]), tf.constant(gradients[0][0])],
            variables,
            decay_mask(variables),
            l2_coefficient(wd, convention),
        )

    kernel, bias = decayed("keras")
    np.testing.assert_allclose(kernel, gradients[0] + keras_gradient.numpy(), atol=1e-7)
    np.testing.assert_array_equal(bias, gradients[0][0])
    kernel, _ = decayed("half")
    np.testing.assert_allclose(kernel, gradients[0] + wd * start, atol=1e-7)
    assert l2_coefficient(5e-6) == 1e-5


def test_coupled_decay_keeps_a_missing_gradient_missing():
    variable = keras.Variable(np.ones((2, 2)), name="kernel")
    assert add_l2([None], [variable], [True], 0.1) == [None]
    with pytest.raises(ValueError, match="zip"):
        add_l2([None, None], [variable], [True], 0.1)
    with pytest.raises(ValueError, match="L2 convention"):
        l2_coefficient(0.1, "full")


def test_decoupled_decay_changes_only_masked_variables():
    start, _ = material()
    kernel, bias = keras.Variable(start, name="kernel"), keras.Variable(start[0], name="bias")

    @tf.function(autograph=False)
    def decay(rate):
        decay_decoupled([kernel, bias], [True, False], rate, 0.5)

    decay(tf.constant(0.1))
    np.testing.assert_allclose(kernel.numpy(), start.astype(np.float64) * (1 - 0.05), atol=1e-7)
    np.testing.assert_array_equal(bias.numpy(), start[0])
