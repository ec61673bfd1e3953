"""Ten updates of every optimizer by `Step` agree with formulas in NumPy float64.

They include warm-up, each kind of weight decay and its exceptions, layer-wise learning rates, and
the moving average with its own warm-up.
"""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from convoy.runtime.train.loss_scale import LossScale
from convoy.runtime.train.step import Step, TrainState
from convoy.utils.optim.ema import EMA
from convoy.utils.optim.lr_scaling_and_decay import make_schedule
from convoy.utils.optim.optimizers import LAYER_WISE, make_optimizer, scale_rates

STEPS, WARMUP, PEAK, DECAY, AVERAGE = 10, 4, 0.02, 0.05, 0.9
NUMBERS = {"rho": 0.8, "epsilon": 0.001, "beta_2": 0.99, "trust_coefficient": 0.01}
SHARES = {"conv": 0.25, "norm": 0.25, "dw": 0.5, "predictions": 1.0}
norm = np.linalg.norm


def small_model():
    layers = keras.layers
    x = images = layers.Input((5, 5, 2))
    x = layers.Conv2D(4, 3, use_bias=False, name="conv")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.DepthwiseConv2D(3, use_bias=False, name="dw")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, layers.Dense(3, name="predictions")(x))


def rate(step):
    """Linear warm-up to the peak, then half a cosine to 0."""
    if step < WARMUP:
        return PEAK * (step + 1) / WARMUP
    return PEAK * 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))


# Each rule returns what is subtracted from the weight. `s` holds the optimizer's slots; `wd` is 0
# for a weight that does not decay.


def sgd(s, w, g, lr, t, wd):
    return lr * g


def momentum(s, w, g, lr, t, wd):
    s["m"] = 0.9 * s.get("m", 0.0) + lr * g
    return s["m"]


def nesterov(s, w, g, lr, t, wd):
    return 0.9 * momentum(s, w, g, lr, t, wd) + lr * g


def rmsprop(s, w, g, lr, t, wd):
    s["v"] = 0.8 * s.get("v", 0.0) + 0.2 * g**2
    s["m"] = 0.9 * s.get("m", 0.0) + lr * g / np.sqrt(s["v"] + 0.001)
    return s["m"]


def adam(s, w, g, lr, t, wd):
    s["m"] = 0.9 * s.get("m", 0.0) + 0.1 * g
    s["v"] = 0.99 * s.get("v", 0.0) + 0.01 * g**2
    return lr * np.sqrt(1 - 0.99**t) / (1 - 0.9**t) * s["m"] / (np.sqrt(s["v"]) + 0.001)


def trusted(w, g, wd):
    """Returns LARS's rescaled gradient."""
    return 0.01 * norm(w) / (norm(g) + wd * norm(w)) * (g + wd * w) if wd else g


def lars(s, w, g, lr, t, wd):
    return momentum(s, w, trusted(w, g, wd), lr, t, wd)


def lars_nesterov(s, w, g, lr, t, wd):
    return nesterov(s, w, trusted(w, g, wd), lr, t, wd)


def lamb(s, w, g, lr, t, wd):
    s["m"] = 0.9 * s.get("m", 0.0) + 0.1 * g
    s["v"] = 0.99 * s.get("v", 0.0) + 0.01 * g**2
    update = s["m"] / (1 - 0.9**t) / (np.sqrt(s["v"] / (1 - 0.99**t)) + 0.001)
    if not wd:
        return lr * update
    update = update + wd * w
    return lr * norm(w) / norm(update) * update


COUPLED = {"l2": 2 * DECAY, "half_l2": DECAY, "decoupled": 0.0}


class Reference:
    """The same updates in float64: weights and their moving averages by path."""

    def __init__(self, rule, style, decayed, shares, start):
        self.rule, self.style, self.decayed, self.shares = rule, style, decayed, shares
        self.weights = {path: value.astype(np.float64) for path, value in start.items()}
        self.averages = dict(self.weights)
        self.slots = {path: {} for path in start}

    def update(self, gradients, lr, t):
        """Makes update number `t`, counted from 1."""
        d = min(AVERAGE, t / (9 + t))  # (1 + n) / (10 + n) after n = t - 1 updates
        for path, g in gradients.items():
            w, wd = self.weights[path], DECAY * self.decayed(path)
            own = lr * self.shares.get(path.split("/")[0], 1.0)
            if self.rule not in (lars, lars_nesterov, lamb):
                g = g + COUPLED[self.style] * w * self.decayed(path)
                w = w - own * wd * w * (self.style == "decoupled")
            w = w - self.rule(self.slots[path], w, g.astype(np.float64), own, t, wd)
            self.weights[path] = w
            self.averages[path] = d * self.averages[path] + (1 - d) * w


PLAIN = (
    *((sgd, "sgd"), (momentum, "momentum"), (nesterov, "momentum"), (rmsprop, "rmsprop")),
    *((adam, "adam"), (adam, "adamw")),
)
LARGE_BATCH = ((lars, "lars"), (lars_nesterov, "lars"), (lamb, "lamb"))
# (rule, optimizer's name, style of weight decay, whether rates are layer-wise)
CASES = [
    *((rule, name, "half_l2", False) for rule, name in (*PLAIN, *LARGE_BATCH)),
    *((rule, name, "decoupled", True) for rule, name in (*PLAIN, *LARGE_BATCH)),
    *((sgd, "sgd", "l2", True), (rmsprop, "rmsprop", "l2", False)),
    (adam, "adamw", "decoupled", False),
]


@pytest.mark.parametrize(
    ("rule", "name", "style", "layer_wise"), CASES, ids=lambda v: getattr(v, "__name__", str(v))
)
def test_ten_updates_of_each_optimizer_equal_its_formula(rule, name, style, layer_wise):
    rng = np.random.default_rng(3)
    bn_too = not layer_wise  # so that both values of the flag occur
    model = small_model()
    variables = model.trainable_variables
    for v in variables:
        v.assign(rng.normal(0, 0.5, v.shape))
    shares = SHARES if layer_wise else {}
    scales = [shares[v.path.split("/")[0]] for v in variables] if layer_wise else None
    optimizer = make_optimizer(
        name,
        nesterov="nesterov" in rule.__name__,
        weight_decay=DECAY,
        bn_weight_decay=bn_too,
        **NUMBERS,
    )
    optimizer.build(variables)
    if layer_wise:
        scale_rates(optimizer, variables, scales)
    state = TrainState(model, optimizer, LossScale("dynamic", False))
    state.ema = EMA(model.weights, AVERAGE)
    step = Step(
        state,
        loss=lambda logits, labels: logits,
        weight_decay=0.0 if name in LAYER_WISE else DECAY,
        weight_decay_style=style,
        bn_weight_decay=bn_too,
        rate_scales=scales,
    )
    schedule = make_schedule(
        "cosine", base_lr=PEAK, steps_per_epoch=STEPS, total_epochs=1, warmup_epochs="4 steps"
    )
    reference = Reference(
        rule,
        style,
        lambda path: path.endswith("kernel") or (bn_too and path.startswith("norm")),
        shares,
        {v.path: np.asarray(v).copy() for v in variables},
    )
    one = tf.constant(1.0)
    for t in range(STEPS):
        gradients = {v.path: rng.normal(0, 0.5, v.shape).astype(np.float32) for v in variables}
        lr = schedule(t)
        given = [tf.constant(gradients[v.path]) for v in variables]
        step.update(given, one, tf.constant(lr, tf.float32), tf.constant(t, tf.int64))
        reference.update(gradients, rate(t), t + 1)
        averages = state.ema.state()
        for v in variables:
            where = f"{v.path}, update {t + 1}"
            got, want = v.numpy(), reference.weights[v.path]
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-6, err_msg=where)
            want = reference.averages[v.path]
            np.testing.assert_allclose(averages[v.path], want, rtol=0, atol=1e-6, err_msg=where)
