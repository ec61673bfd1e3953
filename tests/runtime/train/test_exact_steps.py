"""Whole steps, from a batch to new weights, agree with backpropagation in NumPy float64.

Every kind of clipping is combined with accumulation, loss scale and XLA. The cases run in this
process, and on two ranks that share the batch: horovodrun runs this file as a script for that.
"""

import sys
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from convoy.runtime.train.loss_scale import LossScale
from convoy.runtime.train.step import Step, TrainState
from convoy.utils.distributed import ranks
from convoy.utils.optim import clipping
from convoy.utils.optim.losses import cross_entropy
from convoy.utils.optim.optimizers import make_optimizer

COUNT, CLASSES, RATE, UPDATES = 16, 4, 0.1, 2
# Some numbers are clipped and others are not: test_the_limits_clip_some_numbers_and_not_others.
CLIPS = {
    "norm": (0.2, clipping.clip_by_global_norm),
    "value": (0.05, clipping.clip_by_value),
    "agc": (0.04, clipping.clip_adaptively),
}
# (kind of clipping, forward passes per update, loss scale, XLA)
CASES = [
    *(
        (kind, passes, scale, False)
        for kind in CLIPS
        for passes in (1, 4)
        for scale in ("", "1024")
    ),
    *((kind, 2, "dynamic", True) for kind in CLIPS),
]


def material(update):
    rng = np.random.default_rng(update)
    x = rng.normal(size=(COUNT, 8)).astype(np.float32)
    y = rng.integers(0, CLASSES, COUNT).astype(np.int32)
    weights = np.ones(COUNT, np.float32)
    weights[[1, 6, 7, 15]] = 0  # unequal over ranks and over passes
    return x, y, weights


def start():
    """Returns the initial kernel and bias of a 1x1 convolution and of a classifier."""
    rng = np.random.default_rng(9)
    return [rng.normal(size=s).astype(np.float32) for s in ((1, 1, 8, 6), (6,), (6, 4), (4,))]


def gradients(params, x, y, weights):
    """Returns the gradients of the mean cross-entropy over the examples with weight."""
    kernel, bias, last_kernel, last_bias = params
    hidden = np.tanh(x @ kernel[0, 0] + bias)
    logits = hidden @ last_kernel + last_bias
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    up = (shares - np.eye(CLASSES)[y]) * weights[:, None] / weights.sum()
    down = up @ last_kernel.T * (1 - hidden**2)
    return [(x.T @ down)[None, None], down.sum(0), hidden.T @ up, up.sum(0)]


def clipped(kind, grads, params):
    limit = CLIPS[kind][0]
    if kind == "value":
        return [np.clip(g, -limit, limit) for g in grads]
    if kind == "norm":
        norm = np.sqrt(sum((g**2).sum() for g in grads))
        return [g * min(1, limit / norm) for g in grads]

    def unit(g, w):
        norm, most = np.sqrt((g**2).sum()), limit * max(np.sqrt((w**2).sum()), 1e-3)
        return g * min(1, most / norm)

    kernel, bias, *classifier = grads
    columns = [unit(kernel[..., i], params[0][..., i]) for i in range(kernel.shape[-1])]
    return [np.stack(columns, -1), unit(bias, params[1]), *classifier]


def by_hand(kind):
    """Yields the weights after each update with plain SGD."""
    params = [p.astype(np.float64) for p in start()]
    for update in range(UPDATES):
        grads = clipped(kind, gradients(params, *material(update)), params)
        params = [p - RATE * g for p, g in zip(params, grads, strict=True)]
        yield params


def small_step(kind, passes, scale, use_xla):
    inputs = keras.layers.Input((1, 1, 8))
    x = keras.layers.Conv2D(6, 1, activation="tanh", name="conv")(inputs)
    x = keras.layers.Dense(CLASSES, name="predictions")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, x)
    for variable, value in zip(model.weights, start(), strict=True):
        variable.assign(value)
    optimizer = make_optimizer("sgd")
    optimizer.build(model.trainable_variables)
    limit, clip = CLIPS[kind]
    return Step(
        TrainState(model, optimizer, LossScale(scale or "1", bool(scale))),
        loss=partial(cross_entropy, smoothing=0.0),
        clip=(lambda g, v: clip(g, v, limit)) if kind == "agc" else lambda g, v: clip(g, limit),
        micro_steps=passes,
        use_xla=use_xla,
    )


def passes_of(update, passes):
    """Yields this rank's batches of one update."""
    x, y, weights = material(update)
    rank, parts = ranks.rank(), passes * ranks.size()
    for number in range(passes):
        mine = slice(number * ranks.size() + rank, None, parts)
        yield tf.constant(x[mine][:, None, None]), tf.constant(y[mine]), tf.constant(weights[mine])


def check(case):
    """Checks that two updates of `Step` equal `by_hand`'s, with one exchange between ranks each."""
    kind, passes, *_ = case
    step, exchanges = small_step(*case), []
    reduce = step.reduce
    step.reduce = lambda *tensors: (exchanges.append(1), reduce(*tensors))[1]
    for update, want in enumerate(by_hand(kind)):
        step(passes_of(update, passes), RATE)
        for variable, value in zip(step.variables, want, strict=True):
            text = f"{case}: {variable.path} after update {update + 1}"
            np.testing.assert_allclose(variable.numpy(), value, rtol=0, atol=1e-6, err_msg=text)
    assert len(exchanges) == UPDATES, "an update exchanges once, however many passes it takes"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_clipped_updates_equal_the_numpy_reference(case):
    check(case)


@pytest.mark.parametrize("kind", CLIPS)
def test_the_limits_clip_some_numbers_and_not_others(kind):
    params = [p.astype(np.float64) for p in start()]
    grads = gradients(params, *material(0))
    changed = np.concatenate(
        [(a != b).ravel() for a, b in zip(clipped(kind, grads, params), grads, strict=True)]
    )
    assert changed.any()
    assert kind == "norm" or not changed.all()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_gradients_between_ranks_are_float32_under_mixed_precision(policy):
    """Horovod cannot sum bfloat16, and need not: weights and their gradients are float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        step = small_step("norm", 1, "1024" if policy == "mixed_float16" else "", False)
    finally:
        keras.config.set_dtype_policy(before)
    (batch,) = passes_of(0, 1)
    logits = step.state.model(batch[0])
    assert logits.dtype == policy.removeprefix("mixed_")
    found, weight, sums = step.forward_backward(*batch)
    assert {t.dtype.name for t in (*found, weight)} == {"float32"}
    assert sums.dtype == tf.float64
    scale = step.state.loss_scale.value()
    want = gradients([p.astype(np.float64) for p in start()], *material(0))
    for got, value in zip(found, want, strict=True):
        np.testing.assert_allclose(got / scale / weight, value, atol=0.01)


@pytest.mark.slow
def test_two_ranks_make_the_same_updates_as_the_numpy_reference(convoy):
    done = convoy(np=2, script=Path(__file__), timeout=280)
    assert "AGREED 0" in done.text
    assert "AGREED 1" in done.text


def main():
    """Runs every case on this rank."""
    ranks.init()
    joined = []
    exchange = ranks._hvd.grouped_allreduce
    ranks._hvd.grouped_allreduce = lambda tensors, **options: (
        joined.append({t.dtype.name for t in tensors}),
        exchange(tensors, **options),
    )[1]
    for case in CASES:
        check(case)
    assert joined == [{"float32"}] * len(CASES), "one grouped exchange in each traced step"
    print("AGREED", ranks.rank(), flush=True)
    ranks.shutdown()


if __name__ == "__main__":
    sys.exit(main())
