"""`model.step_memory`, against the graph that TensorFlow traces for the same step."""

from contextlib import contextmanager

import keras
import pytest
import tensorflow as tf

from convoy.model import native
from convoy.model.recompute import Recomputing
from convoy.model.step_memory import step_memory
from tests.model.few_blocks import OTHERS, block_names, small

BATCH = 6  # no layer has so many channels
SAME_MEMORY = ("Identity", "IdentityN", "Reshape")
ONLY_SHAPES = ("Shape", "ShapeN", "Size", "BroadcastGradientArgs")


@contextmanager
def computing_in(policy):
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy("float32")


def recomputed(model, how):
    return {"none": None, "norms": (), "blocks": block_names(model)}[how]


def kept_by_tensorflow(model, whole, natively):
    """Returns the bytes per image of what the backward pass reads of the forward pass.

    It traces the step, and follows the gradients' inputs back to the forward pass.
    """
    call = (lambda x: model(x, training=True)) if whole is None else Recomputing(model, whole)
    turn = []

    def step(images):
        with native.enabled(natively), tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.cast(call(images), tf.float32) ** 2)
        turn.append(len(tf.compat.v1.get_default_graph().get_operations()))
        return tape.gradient(loss, [v.value for v in model.trainable_variables])

    images = tf.TensorSpec((BATCH, 32, 32, 3), tf.uint8)
    traced = tf.function(step, autograph=False).get_concrete_function(images)
    place = {op: number for number, op in enumerate(traced.graph.get_operations())}
    waiting, seen, kept = [tensor.op for tensor in traced.outputs], set(), {}
    while waiting:
        op = waiting.pop()
        if op in seen or op.type in ONLY_SHAPES:
            continue
        seen.add(op)
        for tensor in op.inputs:
            if place[tensor.op] >= turn[0]:
                waiting.append(tensor.op)
                continue
            while tensor.op.type in SAME_MEMORY:
                tensor = tensor.op.inputs[tensor.value_index]
            if tensor.shape.rank and tensor.shape[0] == BATCH and tensor.dtype != tf.uint8:
                kept[tensor.ref()] = tensor.dtype.size * tensor.shape.num_elements()
    return sum(kept.values()) / BATCH


def assert_equal(model, how, natively):
    whole = recomputed(model, how)
    found = step_memory(model, whole, natively=natively).kept
    assert found == pytest.approx(kept_by_tensorflow(model, whole, natively), rel=0.003)


FAST = [
    ("efficientnet-b0", "norms", True),
    ("resnet18", "none", False),
    ("resnet18", "blocks", True),
]
EVERY = [
    (name, how, natively)
    for name in ("efficientnet-b0", "resnet18", *OTHERS)
    for how in ("none", "norms", "blocks")
    for natively in (True, False)
]
CASES = [*FAST, *(pytest.param(*c, marks=pytest.mark.slow) for c in EVERY if c not in FAST)]


@pytest.mark.parametrize(("name", "how", "natively"), CASES)
def test_what_is_kept_is_what_the_gradients_read_in_tensorflows_graph(ops, name, how, natively):
    assert_equal(small(name), how, natively)


def test_numbers_of_16_bits_take_half(ops):
    with computing_in("mixed_bfloat16"):
        model = small("efficientnet-b0")
        wanted = kept_by_tensorflow(model, None, True)
    # The classifier computes in float32.
    assert step_memory(model, None, natively=True, itemsize=2).kept == pytest.approx(
        wanted, rel=0.01
    )


def test_frozen_layers_keep_nothing(ops):
    model = small("resnet18")
    for layer in model.layers[:-8]:
        layer.trainable = False
    # The judge also counts the random bits of dropout, one byte a number.
    found, wanted = step_memory(model, None).kept, kept_by_tensorflow(model, None, True)
    assert found == pytest.approx(wanted, rel=0.01)
    assert step_memory(model, None).kept < step_memory(small("resnet18"), None).kept / 4


@pytest.mark.parametrize(
    "name",
    [
        "efficientnet-b0",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("resnet50d", "resnetrs50")),
    ],
)
def test_a_model_of_any_size_takes_what_the_size_says(name):
    fixed, free = (
        step_memory(small(name), ()),
        step_memory(small(name, any_size=True), (), image_size=32),
    )
    assert free.kept == fixed.kept
    assert free.peak(4) == fixed.peak(4)


def chain(width=64, side=16):
    """A model of three convolutions, whose memory can be counted by hand."""
    images = x = keras.Input((side, side, width))
    for _ in range(3):
        x = keras.layers.Conv2D(width, 1, use_bias=False)(x)
    return keras.Model(images, x), 4 * width * side**2, 4 * width**2


def test_the_peak_is_what_a_hand_counts():
    model, maps, kernel = chain()
    found = step_memory(model, None)
    assert found.kept == 3 * maps  # two inputs, and the output, which the loss reads
    # In the last layer's gradient: two inputs, the output's gradient and that of its input.
    peak = found.peak(10)
    assert (peak.backward, peak.kept, peak.working) == (True, 20 * maps, 20 * maps)
    assert peak.gradients == kernel
