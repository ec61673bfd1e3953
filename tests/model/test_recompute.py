"""Training with activations that are computed again: the same numbers, and less kept."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from convoy.model import native
from convoy.model.arithmetic import maps_by_block
from convoy.model.build import build_model
from convoy.model.catalog import BLOCK, HEADS, get_arch
from convoy.model.recompute import Recomputing
from convoy.model.segments import segments
from convoy.model.weights.load import freeze_backbone
from convoy.utils.distributed import ranks
from tests.model.few_blocks import OTHERS, block_names, small


def caller(model, step, compiled=False):
    """Returns what calls a model in training as `step` says."""
    if step == "plain":
        return lambda images: model(images, training=True)
    names = block_names(model)
    whole = {"norms": (), "one block": names[:1], "blocks": names}[step]
    return Recomputing(model, whole, compiled)


def one_step(model, step, compiled=False, natively=True, images=None):
    """Returns loss and gradients of a step, and the variables that it changed."""
    call = caller(model, step, compiled)
    rng = np.random.default_rng(3)
    given = rng.integers(0, 256, (4, 32, 32, 3)).astype(np.uint8) if images is None else images

    def forward_backward(images):
        with native.enabled(natively and not compiled), tf.GradientTape() as tape:
            logits = call(images)
            loss = tf.reduce_sum(logits**2)
        variables = [v.value for v in model.trainable_variables]
        return loss, tape.gradient(loss, variables)

    before = [v.numpy() for v in model.non_trainable_variables]
    run = tf.function(forward_backward, autograph=False, jit_compile=compiled)
    loss, gradients = run(tf.constant(given))
    after = [v.numpy() for v in model.non_trainable_variables]
    for variable, value in zip(model.non_trainable_variables, before, strict=True):
        variable.assign(value)
    return [loss.numpy(), *(gradient.numpy() for gradient in gradients), *after]


def assert_equal(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "name",
    ["efficientnet-b0", *(pytest.param(n, marks=pytest.mark.slow) for n in OTHERS)],
)
def test_gradients_statistics_and_seeds_have_the_same_bits_in_every_family(ops, name):
    model = small(name)
    assert any("seed" in v.path for v in model.non_trainable_variables)  # it draws
    assert_equal(one_step(model, "one block"), one_step(model, "plain"))


@pytest.mark.slow
@pytest.mark.parametrize("step", ["norms", "blocks"])
@pytest.mark.parametrize("name", ["efficientnet-b0", "efficientnetv2-s", "se-resnext101-32x4d"])
def test_bits_are_the_same_with_every_block_and_none(ops, name, step):
    model = small(name)
    assert_equal(one_step(model, step), one_step(model, "plain"))


@pytest.mark.parametrize(
    "name", ["resnet18", pytest.param("efficientnet-b0", marks=pytest.mark.slow)]
)
def test_bits_are_the_same_without_native_operations(name):
    model = small(name)
    wanted = one_step(model, "plain", natively=False)
    assert_equal(one_step(model, "one block", natively=False), wanted)


@pytest.mark.slow
def test_bits_are_the_same_in_bfloat16(ops):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small("efficientnet-b0")
    finally:
        keras.config.set_dtype_policy("float32")
    assert_equal(one_step(model, "one block"), one_step(model, "plain"))


def test_bits_are_the_same_with_frozen_layers(ops):
    model = small("resnet18")
    for layer in model.layers[: len(model.layers) // 2]:
        layer.trainable = False
    wanted = one_step(model, "plain")
    assert len(model.trainable_variables) < len(model.weights) // 3
    assert_equal(one_step(model, "one block"), wanted)


@pytest.mark.slow
def test_xla_computes_the_same(ops):
    model = small("efficientnet-b0")
    wanted = one_step(model, "plain", compiled=True)
    for one, other in zip(one_step(model, "blocks", compiled=True), wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())


@pytest.mark.slow
def test_synchronised_batch_norm_exchanges_once_forward_in_the_same_order(monkeypatch):
    sent = []
    monkeypatch.setattr(ranks, "size", lambda: 2)
    monkeypatch.setattr(ranks, "mean_over_ranks", lambda x, name: (sent.append(name), x)[1])
    model = small("efficientnet-b0", batch_norm="syncbn")
    wanted, plain = one_step(model, "plain"), sent[:]
    sent.clear()
    assert_equal(one_step(model, "one block"), wanted)
    assert sent == plain
    assert len(sent) == len(set(sent))


def test_the_second_pass_uses_the_statistics_of_the_first(ops):
    model = small("efficientnet-b0")
    call = caller(model, "blocks")

    def step(images):
        with native.enabled(), tf.GradientTape() as tape:
            loss = tf.reduce_sum(call(images))
        return tape.gradient(loss, [v.value for v in model.trainable_variables])

    images = tf.TensorSpec((2, 32, 32, 3), tf.uint8)
    graph = tf.function(step, autograph=False).get_concrete_function(images).graph
    kinds = [operation.type for operation in graph.get_operations()]
    norms = sum("moving_mean" in v.path for v in model.variables)
    assert kinds.count("ConvoyBatchNorm") == norms
    assert kinds.count("ConvoyNormalize") >= norms - 1  # the last has no segment of its own
    for operation in graph.get_operations():
        if operation.type in ("ConvoyBatchNorm", "ConvoyNormalize"):
            assert _waits(operation) == (operation.type == "ConvoyNormalize")


def _waits(operation):
    """Returns whether what an operation reads has to wait for something else."""
    while operation.inputs and not operation.control_inputs:
        operation = operation.inputs[0].op
    return bool(operation.control_inputs)


def test_segments_keep_only_convolutions_and_what_forks():
    model = small("se-resnext101-32x4d")
    kept = {tensor.name: tensor for part in segments(model) for tensor in part.outputs}
    kinds = {type(t._keras_history.operation).__name__ for t in kept.values()}
    assert {"Conv2D", "GroupedConv2D", "Fork"} < kinds
    assert "FusedBatchNorm" not in kinds
    assert "Excite" not in kinds


@pytest.mark.parametrize("name", ["efficientnet-b0", "se-resnext101-32x4d"])
def test_a_whole_block_is_one_segment_that_keeps_its_input(name):
    model = small(name)
    names = block_names(model)
    parts = segments(model, names)
    assert len(parts) < len(names) + 8  # of stem and top
    assert sum(len(part.inputs) for part in parts) == len(parts)


@pytest.mark.parametrize("name", ["efficientnet-b0", "se-resnext101-32x4d"])
def test_the_parts_of_a_block_keep_only_convolutions_and_what_forks(name):
    model = small(name)
    found = segments(model, block_names(model))
    assert any(one.parts for one in found)
    for segment in (one for one in found if one.parts):
        assert [node for part in segment.parts for node in part.nodes] == segment.nodes
        kept = {t for part in segment.parts[:-1] for t in part.outputs} - {*segment.inputs}
        kinds = {type(t._keras_history.operation).__name__ for t in kept}
        assert kinds <= {"Conv2D", "DepthwiseConv2D", "GroupedConv2D", "Fork"}


@pytest.mark.parametrize("name", ["efficientnet-b0", "se-resnext101-32x4d"])
def test_what_is_frozen_is_one_segment_without_a_backward_pass(name):
    model = small(name)
    assert not any(part.frozen for part in segments(model))
    freeze_backbone(model, name)
    frozen, head = segments(model)
    assert (frozen.frozen, frozen.drops, head.frozen) == (True, False, False)
    assert [node.operation.name for node in head.nodes] == [HEADS[get_arch(name).family]]
    assert len(frozen.nodes) == len(model.layers) - 2  # without the input


@pytest.mark.parametrize("name", ["efficientnet-b0", "se-resnext101-32x4d"])
def test_the_first_block_begins_after_the_convolution_of_the_stem(name):
    model = small(name)
    _, first, *_ = segments(model, block_names(model))
    names = [node.operation.name for node in first.nodes]
    assert names[0] in ("stem_bn", "bn1")
    assert names[-1].startswith(block_names(model)[0])


@pytest.mark.parametrize("options", [{}, {"any_size": True}, {"data_format": "channels_first"}])
def test_only_the_blocks_with_the_largest_maps_have_parts(options):
    model = build_model("efficientnet-b0", **options)
    found = segments(model, block_names(model))
    names = [BLOCK.match(one.nodes[-1].operation.name)[1] for one in found if one.parts]
    sizes = maps_by_block(get_arch("efficientnet-b0"))
    assert names == [name for name in sizes if sizes[name] > 0.6 * max(sizes.values())]
    assert names == ["block2a", "block2b"]
