"""One training step: example weights, loss scaling, skipped updates, randomness, weight decay."""

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from convoy.model import build_model
from convoy.runtime.train.loss_scale import LossScale
from convoy.runtime.train.step import Step, TrainState, batch_norm_statistics, seed_generators
from convoy.utils.distributed import ranks
from convoy.utils.optim.ema import EMA
from convoy.utils.optim.losses import cross_entropy
from convoy.utils.optim.optimizers import make_optimizer


def dense(dropout=0.0):
    """Returns a model of two small layers with fixed weights."""
    layers = keras.layers
    inputs = layers.Input((8,))
    x = layers.Dense(6, activation="tanh", name="first")(inputs)
    if dropout:
        x = layers.Dropout(dropout, seed=3)(x)
    model = keras.Model(inputs, layers.Dense(4, name="second")(x))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    return model


def convnet(**options):
    """Returns `efficientnet-test` without randomness; `frozen=False` lets batch norm train."""
    frozen = options.pop("frozen", True)
    settings = {"num_classes": 10, "dropout": 0.0, "stochastic_depth": 0.0, "seed": 0} | options
    model = build_model("efficientnet-test", **settings)
    for layer in model.layers:
        if frozen and "moving_mean" in " ".join(w.path for w in layer.weights):
            layer.trainable = False
    return model


def stepper(model, *, optimizer="momentum", scale=None, ema=None, **options):
    """Returns a `Step` over the model, by default without label smoothing and weight decay."""
    settings = {"loss": partial(cross_entropy, smoothing=0.0)}
    made = make_optimizer(optimizer, momentum=0.9)
    made.build(model.trainable_variables)
    state = TrainState(model, made, LossScale(scale or "dynamic", scale is not None))
    if ema:
        state.ema = EMA(model.weights, ema)
    return Step(state, **(settings | options))


def vectors(count, seed=1):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 8)).astype(np.float32)
    return x, rng.integers(0, 4, count).astype(np.int32)


def images(count, seed=1):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
    return x, rng.integers(0, 10, count).astype(np.int32)


def batch(x, y, weights=None):
    weights = np.ones(len(x)) if weights is None else weights
    return tf.constant(x), tf.constant(y), tf.constant(weights, tf.float32)


def arrays(variables):
    return [np.asarray(v.value if isinstance(v, keras.Variable) else v).copy() for v in variables]


def assert_close(got, want, **tolerance):
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, **({"rtol": 1e-6, "atol": 1e-6} | tolerance))


def test_an_example_of_weight_0_has_no_effect():
    x, y = vectors(8)
    weights = np.array([1, 1, 0, 1, 1, 0, 1, 1], np.float32)
    with_, without = stepper(dense()), stepper(dense())
    for _ in range(3):
        sums = with_([batch(x, y, weights)], 0.1).sums
        fewer = without([batch(x[weights > 0], y[weights > 0])], 0.1).sums
        np.testing.assert_allclose(sums, fewer, rtol=1e-6)
        assert sums[3] == 6
    assert_close(arrays(with_.state.model.weights), arrays(without.state.model.weights))


def test_the_gradient_is_of_the_mean_loss_over_examples_with_weight():
    x, y = vectors(8)
    weights = np.array([1, 1, 0, 1, 1, 0, 1, 1], np.float32)
    model = dense()
    gradients, mean_weight, _ = stepper(model).forward_backward(*batch(x, y, weights))
    assert float(mean_weight) == 0.75
    with tf.GradientTape() as tape:
        losses = keras.losses.sparse_categorical_crossentropy(
            y[weights > 0], model(x[weights > 0]), from_logits=True
        )
        loss = tf.reduce_mean(losses)
    want = tape.gradient(loss, [v.value for v in model.trainable_variables])
    assert_close([g / 0.75 for g in gradients], want)


@pytest.mark.parametrize("soft", [False, True], ids=["labels", "mixed labels"])
def test_with_class_weights_the_gradient_is_of_the_weighted_mean_loss(soft):
    rng = np.random.default_rng(0)
    x, counts = rng.normal(size=(8, 8)).astype(np.float32), np.ones(8, np.float32)
    by_class, counts[[2, 5]] = np.array([0.5, 1.0, 3.0, 0.0], np.float32), 0
    labels = rng.integers(0, 4, 8).astype(np.int32)
    shares = np.eye(4, dtype=np.float32)[labels]
    if soft:
        shares = 0.7 * shares + 0.3 * shares[::-1]
    labels = shares if soft else np.where(counts > 0, labels, -1).astype(np.int32)
    step = stepper(dense(), class_weights=by_class)
    batch = tuple(map(tf.constant, (x, labels, counts)))
    gradients, mean_weight, sums = step.forward_backward(*batch)
    with tf.GradientTape() as tape:
        logits = step.state.model(x)
        losses = keras.losses.categorical_crossentropy(shares, logits, from_logits=True)
        weights = (shares @ by_class) * counts
        mean = tf.reduce_sum(losses * weights) / weights.sum()
    want = tape.gradient(mean, [v.value for v in step.variables])
    for ours, theirs in zip(gradients, want, strict=True):
        np.testing.assert_allclose(ours / mean_weight, theirs, rtol=1e-5, atol=1e-6)
    assert sums.numpy()[3] == 6, "accuracies count every example alike"


def test_gradients_are_clipped_before_weight_decay():
    x, y = vectors(8)
    seen = []

    def clip(gradients, variables):
        seen.append(len(variables))
        return [g * 0.0 for g in gradients]

    step = stepper(dense(), optimizer="sgd", clip=clip, weight_decay=0.5)
    before = arrays(step.state.model.trainable_variables)
    step([batch(x, y)], 0.1)
    after = arrays(step.state.model.trainable_variables)
    assert seen == [4]
    for old, new in zip(before, after, strict=True):
        want = old * (1 - 0.1 * 2 * 0.5) if old.ndim == 2 else old
        np.testing.assert_allclose(new, want, rtol=1e-6)


@pytest.mark.parametrize("scale", [None, "1024"])
def test_the_reported_gradient_norm_excludes_clipping_and_weight_decay(scale):
    x, y = vectors(8)
    weights = np.array([1, 1, 0, 1, 1, 0, 1, 1], np.float32)
    model = dense()
    with tf.GradientTape() as tape:
        losses = keras.losses.sparse_categorical_crossentropy(
            y[weights > 0], model(x[weights > 0]), from_logits=True
        )
        loss = tf.reduce_mean(losses)
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    want = np.sqrt(sum(np.square(np.array(g, np.float64)).sum() for g in gradients))

    step = stepper(model, scale=scale, weight_decay=0.5, clip=lambda gs, _: [g * 0.0 for g in gs])
    for _ in range(4):  # the first steps trace
        result = step([batch(x, y, weights)], 0.0, observe=True)
        assert result.gradient_norm == pytest.approx(want, rel=1e-6)
    assert result.own_seconds > 0
    result = step([batch(x, y, weights)], 0.0)
    assert result.gradient_norm is None
    assert result.own_seconds is None


def test_observing_a_step_does_not_change_the_weights():
    watched, unwatched = stepper(dense(dropout=0.5)), stepper(dense(dropout=0.5))
    for seed in range(3):
        watched([batch(*vectors(8, seed))], 0.1, observe=True)
        unwatched([batch(*vectors(8, seed))], 0.1)
    for a, b in zip(watched.state.model.weights, unwatched.state.model.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_batch_of_weight_0_leaves_the_weights_unchanged():
    step = stepper(dense(), optimizer="sgd")
    before = arrays(step.state.model.weights)
    result = step([batch(*vectors(4), np.zeros(4))], 0.1)
    np.testing.assert_array_equal(result.sums, np.zeros(4))
    assert_close(arrays(step.state.model.weights), before, atol=0, rtol=0)


def test_two_accumulated_batches_equal_one_of_twice_the_size():
    x, y = images(8)
    weights = np.array([1, 1, 1, 1, 1, 0, 0, 0], np.float32)
    whole, halves = stepper(convnet()), stepper(convnet(), micro_steps=2)
    for _ in range(2):
        want = whole([batch(x, y, weights)], 0.1)
        parts = [batch(x[i : i + 4], y[i : i + 4], weights[i : i + 4]) for i in (0, 4)]
        got = halves(parts, 0.1)
        np.testing.assert_allclose(got.sums, want.sums, rtol=1e-6)
    assert_close(arrays(halves.state.model.weights), arrays(whole.state.model.weights))
    assert halves.state.step == whole.state.step == 2


@pytest.mark.parametrize("style", ["l2", "decoupled"])
@pytest.mark.parametrize("scale", ["dynamic", "1024"])
def test_a_loss_scale_does_not_change_the_result(scale, style):
    decay = {"weight_decay": 0.01, "weight_decay_style": style, "ema": 0.9}
    plain, scaled = stepper(dense(), **decay), stepper(dense(), scale=scale, **decay)
    for seed in range(3):
        want = plain([batch(*vectors(8, seed))], 0.1)
        got = scaled([batch(*vectors(8, seed))], 0.1)
        np.testing.assert_allclose(got.sums, want.sums, rtol=1e-6)
    assert_close(arrays(scaled.state.model.weights), arrays(plain.state.model.weights))


def test_an_overflow_halves_the_scale_and_skips_the_update():
    step = stepper(dense(), optimizer="rmsprop", scale="dynamic", ema=0.9)
    state = step.state
    step([batch(*vectors(8))], 0.1)
    state.loss_scale.clean_steps.assign(7)

    def everything():
        variables = (*state.model.weights, *state.optimizer.variables)
        return [*arrays(variables), *state.ema.state().values()]

    before, scale = everything(), state.loss_scale.state()["scale"]
    x, y = vectors(8)
    x[3, 2] = np.inf
    step([batch(x, y)], 0.5)
    assert_close(everything(), before, rtol=0, atol=0)
    assert state.loss_scale.state() == {"scale": scale / 2, "clean_steps": 0, "dynamic": True}
    step([batch(*vectors(8))], 0.1)
    assert state.loss_scale.state() == {"scale": scale / 2, "clean_steps": 1, "dynamic": True}
    assert not np.array_equal(everything()[0], before[0])


def test_the_loss_scale_doubles_after_2000_clean_steps_within_1_and_2_to_the_24():
    scale = LossScale("dynamic", True)
    scale.load({"scale": 1024.0, "clean_steps": 1998})
    scale.after(tf.constant(True))
    assert scale.state() == {"scale": 1024.0, "clean_steps": 1999, "dynamic": True}
    scale.after(tf.constant(True))
    assert scale.state() == {"scale": 2048.0, "clean_steps": 0, "dynamic": True}
    scale.load({"scale": 2.0**24, "clean_steps": 1999})
    scale.after(tf.constant(True))
    assert scale.state()["scale"] == 2.0**24
    scale.load({"scale": 1.0, "clean_steps": 0, "dynamic": True})
    scale.after(tf.constant(False))
    assert scale.state()["scale"] == 1.0


def test_a_fixed_loss_scale_stays_and_still_skips_an_overflow():
    step = stepper(dense(), scale="64")
    before = arrays(step.state.model.weights)
    x, y = vectors(8)
    x[0] = np.nan
    step([batch(x, y)], 0.1)
    assert_close(arrays(step.state.model.weights), before, rtol=0, atol=0)
    assert step.state.loss_scale.state()["scale"] == 64


def test_the_moving_average_includes_batch_norms_statistics():
    model = convnet(frozen=False)
    step = stepper(model, ema=0.9)
    statistics = batch_norm_statistics(model)
    assert len(statistics) >= 2
    want = {v.path: np.asarray(v.value).copy() for v in model.weights}
    for t in range(3):
        step([batch(*images(8, seed=t))], 0.1)
        decay = min(0.9, (1 + t) / (10 + t))
        for v in model.weights:
            want[v.path] = decay * want[v.path] + (1 - decay) * np.asarray(v.value).copy()
    got = step.state.ema.state()
    assert set(got) == {v.path for v in model.weights}
    assert any(abs(want[v.path] - np.asarray(v.value).copy()).max() > 1e-3 for v in statistics)
    for v in statistics:
        np.testing.assert_allclose(got[v.path], want[v.path], rtol=1e-5, atol=1e-6)


def logits_after_seeding(step, at, draws=1, x=None):
    """Returns the logits of the `draws`-th forward pass after seeding at step `at`."""
    step.state.step = at
    step.seed_randomness()
    for _ in range(draws):
        logits = step.state.model(images(4)[0], training=True)
    return np.array(logits)


def test_dropout_is_a_function_of_step_rank_and_seed(monkeypatch):
    step = stepper(convnet(dropout=0.5, stochastic_depth=0.5))
    assert len(seed_generators(step.state.model)) >= 2
    first = logits_after_seeding(step, 3)
    np.testing.assert_array_equal(logits_after_seeding(step, 3), first)
    others = [logits_after_seeding(step, 4)]
    monkeypatch.setattr(ranks, "rank", lambda: 1)
    others.append(logits_after_seeding(step, 3))
    monkeypatch.undo()
    step.seed = 1
    others.append(logits_after_seeding(step, 3))
    for other in others:
        assert not np.allclose(other, first)
        assert not any(np.allclose(other, another) for another in others if another is not other)


def test_a_resumed_run_draws_the_same_dropout_as_an_uninterrupted_one(monkeypatch):
    step = stepper(convnet(dropout=0.5, stochastic_depth=0.5))
    np.testing.assert_array_equal(
        logits_after_seeding(step, 2), logits_after_seeding(step, 0, draws=3)
    )
    step.micro_steps = 2
    np.testing.assert_array_equal(
        logits_after_seeding(step, 1), logits_after_seeding(step, 0, draws=3)
    )


def update_without_gradients(step):
    """Makes an update at learning rate 0.1 with zero gradients, so that only decay acts."""
    zeros = [tf.zeros(v.shape) for v in step.state.model.trainable_variables]
    step.update(zeros, tf.constant(1.0), tf.constant(0.1), tf.constant(0, tf.int64))


# The factor on a kernel with zero gradient, for a learning rate of 0.1 and a decay of 0.01.
@pytest.mark.parametrize(
    ("style", "factor"), [("l2", 1 - 0.002), ("half_l2", 1 - 0.001), ("decoupled", 1 - 0.001)]
)
def test_weight_decay_shrinks_kernels_and_nothing_else(style, factor):
    model = convnet(frozen=False)
    for weight in model.trainable_variables:
        weight.assign_add(np.ones(weight.shape))
    step = stepper(model, optimizer="sgd", weight_decay=0.01, weight_decay_style=style)
    before = {v.path: np.asarray(v.value).copy() for v in model.trainable_variables}
    update_without_gradients(step)
    shrunk = 0
    for v in model.trainable_variables:
        kernel = v.path.endswith("kernel")
        want = before[v.path] * (factor if kernel else 1)
        np.testing.assert_allclose(v.value, want, rtol=1e-6, err_msg=v.path)
        shrunk += "dwconv" in v.path and kernel
    assert shrunk, "depthwise kernels decay too"


def test_bn_weight_decay_decays_batch_norms_scale_too():
    model = convnet(frozen=False)
    step = stepper(model, optimizer="sgd", weight_decay=0.01, bn_weight_decay=True)
    before = {v.path: np.asarray(v.value).copy() for v in model.trainable_variables}
    update_without_gradients(step)
    for v in model.trainable_variables:
        if v.path.endswith("gamma"):
            np.testing.assert_allclose(v.value, before[v.path] * 0.998, rtol=1e-6)


@pytest.mark.parametrize("model", ["dense", pytest.param("convnet", marks=pytest.mark.slow)])
def test_xla_gives_the_same_loss_and_gradients(model):
    x, y = vectors(8) if model == "dense" else images(8)
    results = []
    for use_xla in (False, True):
        made = dense() if model == "dense" else convnet(frozen=False)
        step = stepper(made, use_xla=use_xla, loss=partial(cross_entropy, smoothing=0.1))
        gradients, weight, sums = step.forward_backward(*batch(x, y))
        step.update(gradients, weight, tf.constant(0.01), tf.constant(0, tf.int64))
        results.append([*arrays(gradients), sums.numpy(), *arrays(step.state.model.weights)])
    assert_close(results[1], results[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "blocks",
    [
        pytest.param((), id="norms", marks=pytest.mark.slow),
        pytest.param(("block1a", "block2a"), id="blocks"),
    ],
)
def test_recomputed_activations_change_nothing_in_an_update(blocks):
    """With accumulation, loss scaling, example weights, dropout and stochastic depth."""
    ends = []
    for recompute in (None, blocks):
        model = convnet(frozen=False, dropout=0.3, stochastic_depth=0.4)
        step = stepper(model, scale=256.0, micro_steps=2, recompute=recompute, seed=7)
        step.seed_randomness()
        for number in range(2):
            passes = [batch(*images(4, seed=2 * number + part)) for part in (0, 1)]
            step(passes, 0.1)
        ends.append(arrays(model.variables))
    for one, other in zip(*ends, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_model_without_blocks_trains_with_recomputation():
    ends = []
    for recompute in (None, ()):
        step = stepper(dense(dropout=0.5), recompute=recompute)
        step([batch(*vectors(6))], 0.1)
        ends.append(arrays(step.state.model.variables))
    for one, other in zip(*ends, strict=True):
        np.testing.assert_array_equal(one, other)
